"""The proxies to compare: how to find each and start it on one thread, without logs. Measures
nothing."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.process import Failure
from harness.rows import Row

BUILD_REALM = "cargo build --release --manifest-path comparison/realm/Cargo.toml --target-dir target/bench/realm"
OUR_REALM = Path(__file__).resolve().parents[2] / "target" / "bench" / "realm" / "release"

HAPROXY = """\
global
    nbthread 1
    maxconn 5000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    {splice}
listen bench
    bind 127.0.0.1:{port}
    server backend 127.0.0.1:{backend}
"""

NGINX = """\
{load_module}
daemon off;
master_process off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 10000; }}
stream {{
    access_log off;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        proxy_pass 127.0.0.1:{backend};
        proxy_timeout 1h;
    }}
}}
"""


@dataclass(frozen=True)
class Peer:
    """A proxy. `command` returns the command that starts it: it listens on the first port, forwards
    to the second, and has a directory for its files."""

    name: str
    program: str
    version: str
    command: Callable[[int, int, Path], list[str]]
    environment: dict[str, str] = field(default_factory=dict)
    forks: bool = False
    """Whether it starts a process per connection. If so, it has no figures for threads and memory,
    and no rows with many connections."""
    descriptors: int = 2
    """How many descriptors a connection takes."""

    def why_not(self, row: Row) -> str | None:
        """Returns why it cannot run the row, or None if it can."""
        if row.coracle_only and self.name != "coracle":
            return "a row of coracle alone"
        if self.forks and row.connections > 64:
            return "it starts a process per connection"
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if self.descriptors * row.connections >= limit:
            return f"it takes {self.descriptors} descriptors per connection, and the limit here is {limit}"
        return None


def coracle(program: Path, name: str = "coracle") -> Peer:
    """Returns a build of coracle, with its default admin endpoint, on a free port."""

    def command(port: int, backend: int, _: Path) -> list[str]:
        return [str(program), "run", "-L", f"{port}:127.0.0.1:{backend}", "--admin", "127.0.0.1:0"]

    return Peer(name, str(program), _version([str(program), "--version"]), command)


def find(name: str) -> Peer | str:
    """Returns the peer of this name, or one line that says why it is unavailable."""
    program, make = KNOWN[name]
    path = shutil.which(program, path=_search_path())
    if path is None:
        remedy = f"; to build it: {BUILD_REALM}" if program == "realm" else ""
        return f"there is no `{program}` on PATH{remedy}"
    try:
        return make(path)
    except Failure as why:
        return str(why)


def _haproxy(path: str, splice: bool) -> Peer:
    def command(port: int, backend: int, directory: Path) -> list[str]:
        file = directory / "haproxy.cfg"
        file.write_text(HAPROXY.format(port=port, backend=backend, splice="option splice-auto" if splice else ""))
        return [path, "-db", "-q", "-f", str(file)]

    return Peer("haproxy-splice" if splice else "haproxy", path, _version([path, "-v"]), command)


def _nginx(path: str) -> Peer:
    load_module = nginx_load_module(path)

    def command(port: int, backend: int, directory: Path) -> list[str]:
        file = directory / "nginx.conf"
        file.write_text(NGINX.format(port=port, backend=backend, directory=directory, load_module=load_module))
        return [path, "-e", "stderr", "-c", str(file), "-p", str(directory)]

    return Peer("nginx", path, _version([path, "-v"]), command)


def nginx_load_module(path: str) -> str:
    """Returns the line that loads nginx's stream module, which is empty if it is built in."""
    built = subprocess.run([path, "-V"], capture_output=True, text=True, timeout=10, check=False).stderr
    if re.search(r"--with-stream(\s|$)", built):
        return ""
    directory = re.search(r"--modules-path=(\S+)", built)
    module = Path(directory[1] if directory else "/usr/lib/nginx/modules") / "ngx_stream_module.so"
    if not module.exists():
        raise Failure(f"it has no stream module ({module}); on Debian that is libnginx-mod-stream")
    return f"load_module {module};"


def _realm(path: str) -> Peer:
    if "relay" not in subprocess.run([path, "--help"], capture_output=True, text=True, timeout=10, check=False).stdout:
        raise Failure(f"{path} is not the relay of that name (github.com/zhboner/realm)")

    def command(port: int, backend: int, _: Path) -> list[str]:
        return [path, "-l", f"127.0.0.1:{port}", "-r", f"127.0.0.1:{backend}"]

    return Peer("realm", path, _version([path, "--version"]), command, {"TOKIO_WORKER_THREADS": "1"}, descriptors=6)


def _socat(path: str) -> Peer:
    def command(port: int, backend: int, _: Path) -> list[str]:
        listen = f"TCP4-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,backlog=4096,nodelay"
        return [path, listen, f"TCP4:127.0.0.1:{backend},nodelay"]

    return Peer("socat", path, _version([path, "-V"]), command, forks=True)


KNOWN: dict[str, tuple[str, Callable[[str], Peer]]] = {
    "haproxy": ("haproxy", lambda path: _haproxy(path, splice=False)),
    "haproxy-splice": ("haproxy", lambda path: _haproxy(path, splice=True)),
    "nginx": ("nginx", _nginx),
    "realm": ("realm", _realm),
    "socat": ("socat", _socat),
}


def _search_path() -> str:
    """Returns PATH, extended by the directories of daemons and of our build of realm."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", str(OUR_REALM)])


def _version(command: list[str]) -> str:
    """Returns the first version number in a program's output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    found = re.search(r"\d+\.\d+\S*", done.stdout + done.stderr)
    return found[0] if found else "of unknown version"
