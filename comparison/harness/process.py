"""Starts, watches and ends the processes of a comparison. Everything it starts dies with it."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
CPUCLOCK_SCHED = 2  # linux/posix-timers.h: a process's clock is its inverted pid and this
START_SECONDS = 10.0
STOP_SECONDS = 5.0
PROBE = b"E" + bytes(range(1, 64))

_libc = ctypes.CDLL(None)


class Failure(Exception):
    """A process did not do what it should. The text is one line."""


def spawn(command: list[str], cpus: Iterable[int] | None = None, **options: object) -> subprocess.Popen[str]:
    """Starts a process in its own session, bound to `cpus`. The kernel kills it with this one."""

    def prepare() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if cpus is not None:
            os.sched_setaffinity(0, cpus)

    return subprocess.Popen(command, preexec_fn=prepare, start_new_session=True, text=True, **options)  # type: ignore[call-overload]


def last_line(path: Path) -> str:
    """Returns the last line that a process wrote."""
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"


@dataclass
class Task:
    """A thread: its name and its CPU time in nanoseconds."""

    name: str
    cpu: int


def tasks(pid: int) -> dict[int, Task]:
    """Returns the threads of a process."""
    found = {}
    for directory in Path(f"/proc/{pid}/task").iterdir():
        try:
            cpu = int((directory / "schedstat").read_text().split()[0])
            found[int(directory.name)] = Task((directory / "comm").read_text().strip(), cpu)
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has ended meanwhile.
    return found


def children(pid: int) -> list[int]:
    """Returns the children of a process that have not ended."""
    return [int(child) for directory in Path(f"/proc/{pid}/task").iterdir() for child in (directory / "children").read_text().split()]


def cpu_ns(pid: int) -> int:
    """Returns the CPU time of a process in nanoseconds: the sum over the schedstat of its threads,
    including threads that have ended."""
    return time.clock_gettime_ns(~pid << 3 | CPUCLOCK_SCHED)


def memory(pid: int) -> dict[str, int]:
    """Returns `VmRSS`, `RssAnon` and the like, in bytes."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}


class Proxy:
    """A running proxy. As a context manager, it always stops the proxy."""

    def __init__(self, command: list[str], port: int, directory: Path, cpus: Iterable[int] | None = None,
                 environment: dict[str, str] | None = None) -> None:
        self.port = port
        self.usage_ns = 0
        """The CPU time of the process and its reaped children; known once it is stopped."""
        self._said = directory / "said"
        with self._said.open("w") as said:
            self._process = spawn(command, cpus, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                  env={**os.environ, **(environment or {})})
        self.pid = self._process.pid

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_until_up(self) -> None:
        """Waits until a message comes back through it. If none does, raises `Failure` with its last
        line of output."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            status = self._process.poll()
            if status is not None:
                raise Failure(f"it ended at once with code {status}: {last_line(self._said)}")
            try:
                self._try_once()
                return
            except OSError as why:
                if time.monotonic() > deadline:
                    raise Failure(f"no message comes through it ({why}): {last_line(self._said)}") from why
            time.sleep(0.02)

    def _try_once(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as client:
            client.sendall(PROBE)
            answer = b""
            while len(answer) < len(PROBE):
                part = client.recv(len(PROBE) - len(answer))
                if not part:
                    raise OSError("the connection was closed")
                answer += part
            if answer != PROBE:
                raise Failure("the answer to the first message is not the message")

    def settle(self) -> tuple[int, dict[int, Task]]:
        """Returns its CPU time and its threads once it has been idle for a moment."""
        before = cpu_ns(self.pid)
        for _ in range(100):
            time.sleep(0.03)
            after = cpu_ns(self.pid)
            if after == before:
                return after, tasks(self.pid)
            before = after
        raise Failure("it goes on running without traffic")

    def check_alive(self) -> None:
        """Raises `Failure` if the process has ended."""
        if self._process.poll() is not None:
            raise Failure(f"it ended with code {self._process.returncode}: {last_line(self._said)}")

    def stop(self) -> None:
        """Ends it and its children."""
        if self._process.returncode is not None:
            return
        os.killpg(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
            time.sleep(0.01)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.usage_ns = round((usage.ru_utime + usage.ru_stime) * 1e9)
        try:
            os.killpg(self.pid, signal.SIGKILL)  # Whatever it left behind.
        except ProcessLookupError:
            pass


class Load:
    """The load generator: the server behind the proxies, and one client per measurement."""

    def __init__(self, program: Path, directory: Path, seconds: int, cpus: Iterable[int] | None = None) -> None:
        self._program, self._seconds, self._cpus = program, seconds, cpus
        self._server: subprocess.Popen[str] | None = None
        self._said = directory / "server-said"
        self._said_before = 0

    def serve(self, ports: int) -> list[int]:
        """Starts the server, with one port per proxy so that connections in TIME-WAIT do not burden
        other proxies."""
        a_day = str(24 * 60 * 60)
        with self._said.open("w") as said:
            self._server = spawn([str(self._program), a_day, "serve", str(ports)], self._cpus, stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=said)
        assert self._server.stdout
        words = self._server.stdout.readline().split()
        if len(words) != ports:
            raise Failure("the server of the load generator does not start")
        return [int(word) for word in words]

    def give_way(self) -> None:
        """Makes the server stand for another machine, which does not compete for the processor."""
        assert self._server
        os.setpriority(os.PRIO_PROCESS, self._server.pid, 19)

    def server_complaints(self) -> list[str]:
        """Returns what the server found wrong since the last call."""
        lines = self._said.read_text().splitlines()
        new, self._said_before = lines[self._said_before:], len(lines)
        return new

    def stop(self) -> None:
        """Ends the server."""
        if self._server:
            self._server.kill()
            self._server.wait()

    def client(self, arguments: tuple[str, ...], port: int) -> Client:
        """Returns a client that is set up and waits for the signal to begin."""
        mode, *rest = arguments
        return Client([str(self._program), str(self._seconds), mode, str(port), *rest], self._cpus)


class Client:
    """One run of the load generator's client. As a context manager, it always ends the client."""

    def __init__(self, command: list[str], cpus: Iterable[int] | None) -> None:
        self._process = spawn(command, cpus, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if self._line() != "ready\n":
            self._fail()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()

    def run(self) -> dict[str, int]:
        """Does the work. Its connections stay open until `close`, unless the work closes them."""
        assert self._process.stdin
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        line = self._line()
        if not line:
            self._fail()
        return json.loads(line)

    def give_way(self) -> None:
        """Makes it stand for another machine, which does not compete for the processor."""
        os.setpriority(os.PRIO_PROCESS, self._process.pid, 19)

    def close(self) -> None:
        """Closes the connections."""
        _, said = self._process.communicate()
        if self._process.returncode != 0:
            raise Failure(f"the load generator: {said.strip()}")

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def _fail(self) -> None:
        _, said = self._process.communicate()
        raise Failure(f"broken transfer: {said.strip() or f'the load generator ended with code {self._process.returncode}'}")
