"""The proxies in front of three servers: one configuration, in the words of each proxy. Measures
nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import peers
from harness.peers import Peer

INTERVAL, FALL, RISE, FAILS = 1.0, 3, 2, 3
"""Seconds from one check to the next, checks until a server is out or back, failed connections
until it is out."""
CONNECT_SECONDS = 1.0

CORACLE = """\
[admin]
listen = "127.0.0.1:0"
socket = "off"
[log]
level = "off"
[entrypoints.bench]
listen = "127.0.0.1:{port}"
service = "farm"
[services.farm]
connect_timeout = "{connect:g}s"
max_fails = {fails}
servers = [{servers}]
"""

CORACLE_CHECKS = """\
[services.farm.health]
send = "PING\\n"
expect = "PONG"
port = {check_port}
interval = "{interval:g}s"
timeout = "500ms"
fall = {fall}
rise = {rise}
"""

HAPROXY = """\
global
    nbthread 1
    maxconn 8000
defaults
    mode tcp
    timeout connect {connect:g}s
    timeout check 500ms
    timeout client 1h
    timeout server 1h
    retries 2
    option redispatch 1
listen bench
    bind 127.0.0.1:{port}
    balance roundrobin
{servers}
"""

HAPROXY_CHECKS = """\
    option tcp-check
    tcp-check send PING\\n
    tcp-check expect string PONG
    default-server check port {check_port} inter {interval:g}s fall {fall} rise {rise}
"""

NGINX = """\
{load_module}
daemon off;
master_process off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 16000; }}
stream {{
    access_log off;
    upstream farm {{ {servers} }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        proxy_pass farm;
        proxy_connect_timeout {connect:g}s;
        proxy_timeout 1h;
    }}
}}
"""


@dataclass(frozen=True)
class Farm:
    """Three servers, and what is asked of the proxy in front of them."""

    addresses: Sequence[tuple[str, int]]
    check_port: int | None = None
    """The port of the servers' checks; None for no checks."""
    weights: Sequence[int] = (1, 1, 1)
    passive: bool = True
    """Whether failed connections take a server out."""


Maker = Callable[[Farm], Peer]


def coracle(program: Path) -> Maker:
    """Returns the program under test in front of a farm."""

    def make(farm: Farm) -> Peer:
        def command(port: int, _: int, directory: Path) -> list[str]:
            servers = ", ".join(f'{{ address = "{address}:{number}", weight = {weight} }}'
                                for (address, number), weight in zip(farm.addresses, farm.weights))
            text = CORACLE.format(port=port, connect=CONNECT_SECONDS, fails=FAILS if farm.passive else 0, servers=servers)
            if farm.check_port:
                text += CORACLE_CHECKS.format(check_port=farm.check_port, interval=INTERVAL, fall=FALL, rise=RISE)
            file = directory / "coracle.toml"
            file.write_text(text)
            return [str(program), "run", "-c", str(file)]

        return dataclasses.replace(peers.coracle(program), command=command)

    return make


def haproxy() -> Maker | str:
    """Returns HAProxy in front of a farm, or one line that says why it is unavailable."""
    found = peers.find("haproxy")
    if not isinstance(found, Peer):
        return found

    def make(farm: Farm) -> Peer:
        def command(port: int, _: int, directory: Path) -> list[str]:
            checks = ""
            if farm.check_port:
                checks = HAPROXY_CHECKS.format(check_port=farm.check_port, interval=INTERVAL, fall=FALL, rise=RISE)
            if farm.check_port and farm.passive:
                # Only with checks: they are what brings a server back.
                checks += f"    default-server observe layer4 error-limit {FAILS} on-error mark-down\n"
            lines = [f"    server s{number} {address}:{port} weight {weight}"
                     for number, ((address, port), weight) in enumerate(zip(farm.addresses, farm.weights), 1)]
            file = directory / "haproxy.cfg"
            file.write_text(HAPROXY.format(port=port, connect=CONNECT_SECONDS, servers=checks + "\n".join(lines)))
            return [found.program, "-db", "-q", "-f", str(file)]

        return dataclasses.replace(found, command=command)

    return make


def nginx() -> Maker | str:
    """Returns nginx in front of a farm, or one line that says why it is unavailable. It has no
    checks."""
    found = peers.find("nginx")
    if not isinstance(found, Peer):
        return found

    def make(farm: Farm) -> Peer:
        def command(port: int, _: int, directory: Path) -> list[str]:
            servers = " ".join(f"server {address}:{number} weight={weight} max_fails={FAILS if farm.passive else 0};"
                               for (address, number), weight in zip(farm.addresses, farm.weights))
            file = directory / "nginx.conf"
            file.write_text(NGINX.format(port=port, connect=CONNECT_SECONDS, directory=directory, servers=servers,
                                         load_module=peers.nginx_load_module(found.program)))
            return [found.program, "-e", "stderr", "-c", str(file), "-p", str(directory)]

        return dataclasses.replace(found, command=command)

    return make
