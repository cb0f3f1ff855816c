"""Makes one measurement: a fresh proxy, one workload, and its cost. Does not decide which
measurements are made, or in which order."""

from __future__ import annotations

import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness.peers import Peer
from harness.process import Failure, Load, Proxy, children, memory, spawn
from harness.rows import Row

IDLE_SECONDS = 0.5
"""How long a process is left alone before its memory is read."""
THREAD_SHARE = 0.001
"""A thread with a smaller share of the process's CPU time has ticked, but carried no traffic."""
REAP_SECONDS = 0.3
"""How long a process that forks may take to reap its children."""
TRACE_SECONDS = 10.0
"""How long strace may take to attach, or to write its summary."""

Metrics = dict[str, float]


@dataclass
class Sample:
    """The result of one measurement. Times are in nanoseconds and memory in bytes, unless the name
    says otherwise."""

    metrics: Metrics = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)
    """The CPU time of the threads that ran, by name."""
    calls: dict[str, float] = field(default_factory=dict)
    """System calls by name, per unit."""


@dataclass
class Bench:
    """The setup in which measurements are made."""

    load: Load
    directory: Path
    proxy_cpus: Iterable[int] | None = None

    def start(self, peer: Peer, backend: int) -> Proxy:
        """Starts a proxy and waits until it is ready."""
        port = _free_port()
        proxy = Proxy(peer.command(port, backend, self.directory), port, self.directory, self.proxy_cpus, peer.environment)
        try:
            proxy.wait_until_up()
        except BaseException:
            proxy.stop()
            raise
        return proxy

    def direct(self, row: Row, backend: int) -> Sample:
        """Measures a workload without a proxy."""
        with self.load.client(row.load, backend) as client:
            result = client.run()
            client.close()
        return Sample(_client_metrics(row, result))

    def traffic(self, peer: Peer, row: Row, backend: int) -> Sample:
        """Measures CPU time, rate, latency and running threads under a workload."""
        with self.start(peer, backend) as proxy, self.load.client(row.load, proxy.port) as client:
            cpu_before, before = proxy.settle()
            result = client.run()
            cpu_after, after = proxy.settle()
            client.close()
            proxy.check_alive()
            if peer.forks:
                time.sleep(REAP_SECONDS)
        metrics = _client_metrics(row, result)
        if peer.forks:
            # Its children have ended and been reaped, so their time is known.
            metrics["cpu"] = (proxy.usage_ns - cpu_before) / row.units
            return Sample(metrics)
        metrics["cpu"] = (cpu_after - cpu_before) / row.units
        moved = [(task.name, task.cpu - (before[number].cpu if number in before else 0)) for number, task in after.items()]
        ran = [(name, cpu) for name, cpu in moved if cpu > 0]
        metrics["threads"] = sum(cpu >= THREAD_SHARE * (cpu_after - cpu_before) for _, cpu in ran)
        return Sample(metrics, {name: sum(cpu for other, cpu in ran if other == name) for name, _ in ran})

    def idle(self, peer: Peer, row: Row, backend: int) -> Sample:
        """Measures memory after the start, and what idle connections add to it."""
        with self.start(peer, backend) as proxy:
            time.sleep(IDLE_SECONDS)
            started = memory(proxy.pid)
            with self.load.client(row.load, proxy.port) as client:
                time.sleep(IDLE_SECONDS)
                held = memory(proxy.pid)
                client.run()
                client.close()
            proxy.check_alive()
        return Sample({
            "rss_mib": started["VmRSS"] / (1 << 20),
            "anon_mib": started["RssAnon"] / (1 << 20),
            "anon_per_connection": (held["RssAnon"] - started["RssAnon"]) / row.connections,
            "rss_per_connection": (held["VmRSS"] - started["VmRSS"]) / row.connections,
        })

    def system_calls(self, peer: Peer, row: Row, backend: int) -> Sample:
        """Counts system calls per unit. Nothing else, because a traced proxy is slow."""
        assert row.traced
        with self.start(peer, backend) as proxy, self.load.client(row.traced, proxy.port) as client:
            with _Trace(proxy.pid, self.directory) as trace:
                client.run()
                time.sleep(0.1)
                calls = trace.finish()
            client.close()
        per_unit = {name: count / row.traced_units for name, count in calls.items()}
        return Sample({"syscalls": sum(per_unit.values())}, calls=per_unit)


class _Trace:
    """strace, attached to a process with its children and threads."""

    def __init__(self, pid: int, directory: Path) -> None:
        self._summary, self._said = directory / "strace", directory / "strace-said"
        # -f follows threads, and children that start from now on.
        attach = [word for number in (pid, *children(pid)) for word in ("-p", str(number))]
        with self._said.open("w") as said:
            self._process = spawn(["strace", "-f", "-c", "-o", str(self._summary), *attach],
                                  stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        deadline = time.monotonic() + TRACE_SECONDS
        while self._said.read_text().count("attached") < len(attach) / 2:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise Failure(f"strace cannot attach: {self._said.read_text().strip()}")
            time.sleep(0.02)

    def __enter__(self) -> _Trace:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def finish(self) -> dict[str, int]:
        """Detaches, and returns the number of calls by name."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(TRACE_SECONDS)
        # % time, seconds, usecs/call, calls, optional errors, name
        lines = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)(?:\s+\d+)?\s+(\w+)$", self._summary.read_text(), re.MULTILINE)
        calls = {name: int(count) for count, name in lines if name != "total"}
        if not calls:
            raise Failure("strace has counted nothing")
        return calls


def _client_metrics(row: Row, result: dict[str, int]) -> Metrics:
    """Returns the rate and the latencies that the load generator measured."""
    metrics: Metrics = {"rate": row.units / (result["ns"] / 1e9)}
    metrics.update({f"{name}_seen": float(result[name]) for name in ("p50", "p99", "p999") if name in result})
    return metrics


def add_latency(sample: Sample, direct: Sample) -> None:
    """Computes what the proxy added to the latency of the same round's direct connection."""
    for name in ("p50", "p99", "p999"):
        if f"{name}_seen" in direct.metrics:
            sample.metrics[name] = sample.metrics[f"{name}_seen"] - direct.metrics[f"{name}_seen"]


def _free_port() -> int:
    """Returns a free port below the range from which the kernel assigns ports to clients."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
