"""The rows of the comparison, their sizes, and the targets for coracle. Starts nothing."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30
MIB = 1 << 20

# The kinds of rows, and the name of one unit of each.
UNITS = {"stream": "GiB", "short": "connection", "trips": "round trip", "idle": "connection"}


@dataclass(frozen=True)
class Row:
    """One workload. `load` is the load generator's mode and its arguments after the port."""

    name: str
    kind: str
    title: str
    load: tuple[str, ...]
    units: float
    connections: int
    """How many connections are open at the same time."""
    traced: tuple[str, ...] | None = None
    """The workload of the run that counts system calls; None if there is no such run."""
    traced_units: float = 0
    """The number of units by which the counted calls are divided."""
    coracle_only: bool = False


@dataclass(frozen=True)
class Sizes:
    """The sizes of all workloads."""

    stream_bytes: int
    stream_bytes_of_8: int
    """For each of eight streams. Less than for a single stream: with the same size a round would
    take twice as long, and no result would change."""
    short: int
    trips: int
    trips_alone: int
    connections: int
    idle: int
    many: int
    traced_stream_bytes: int
    traced_short: int
    traced_trips: int


# 2 * 5,000 short connections stay below the 14,116 ports that the kernel tries first in `connect`,
# so that finding a free one stays cheap.
FULL = Sizes(GIB, 256 * MIB, 5_000, 100_000, 20_000, 2_000, 4_000, 8_000, 256 * MIB, 1_000, 5_000)
QUICK = Sizes(16 * MIB, 4 * MIB, 300, 2_000, 500, 200, 400, 800, 8 * MIB, 100, 200)


def rows(sizes: Sizes) -> list[Row]:
    """Returns all rows, in the order of a round. Their names do not depend on the sizes."""
    streams = [_stream(sizes, count, way) for count in (1, 8) for way in ("up", "down")]
    shorts = [_short(sizes, 1, "one at a time"), _short(sizes, 8, "8 at a time")]
    trips = [
        _trips(sizes, "trips-1", 1, 1, sizes.trips_alone),
        _trips(sizes, "trips-64", 64, 64, sizes.trips),
        _trips(sizes, "trips-2000", sizes.connections, sizes.connections, sizes.trips),
        _trips(sizes, "trips-8000", sizes.many, 64, sizes.trips),
    ]
    idle = Row("idle-4000", "idle", f"{sizes.idle:,} idle connections", ("idle", str(sizes.idle)), sizes.idle, sizes.idle)
    return [*streams, *shorts, *trips, idle]


def _stream(sizes: Sizes, count: int, way: str) -> Row:
    direction = {"up": "client to server", "down": "server to client"}[way]
    size = sizes.stream_bytes if count == 1 else sizes.stream_bytes_of_8
    each = f"{size // MIB:,} MiB"
    title = f"{count} streams of {each} at once, {direction}" if count > 1 else f"1 stream of {each}, {direction}"
    return Row(
        f"stream-{count}-{way}", "stream", title,
        ("stream", way, str(count), str(size)), count * size / GIB, count,
        ("stream", way, str(count), str(sizes.traced_stream_bytes // count)), sizes.traced_stream_bytes / GIB,
    )


def _short(sizes: Sizes, at_once: int, words: str) -> Row:
    return Row(
        f"short-{at_once}", "short", f"{sizes.short:,} short connections, {words}",
        ("short", str(sizes.short), str(at_once)), sizes.short, at_once,
        ("short", str(sizes.traced_short), str(at_once)), sizes.traced_short,
    )


def _trips(sizes: Sizes, name: str, connections: int, active: int, trips: int) -> Row:
    words = "1 connection" if connections == 1 else f"{connections:,} connections"
    if active < connections:
        words += f", {active} of them active"
    traced = ("trips", str(connections), str(active), str(sizes.traced_trips)) if connections <= 64 else None
    return Row(
        name, "trips", f"{trips:,} round trips of 64 bytes on {words}",
        ("trips", str(connections), str(active), str(trips)), trips, connections,
        # System calls are counted per direction, and a round trip has two.
        traced, 2 * sizes.traced_trips, coracle_only=active < connections,
    )


@dataclass(frozen=True)
class Target:
    """A target for coracle in some rows: at most `limit`, as a ratio to the best of `peers`, or as
    an absolute value if there are none."""

    title: str
    rows: tuple[str, ...]
    metric: str
    limit: float
    peers: tuple[str, ...] = ()
    together: bool = False
    """Whether there is one verdict, on the worst of the rows."""


RIVALS = ("haproxy", "haproxy-splice", "nginx", "realm")
STREAMS = ("stream-1-up", "stream-1-down", "stream-8-up", "stream-8-down")
TRAFFIC = (*STREAMS, "short-1", "short-8", "trips-1", "trips-64", "trips-2000", "trips-8000")

TARGETS = (
    Target("CPU per GiB", STREAMS, "cpu", 0.55, RIVALS),
    Target("CPU per short connection", ("short-1", "short-8"), "cpu", 0.90, RIVALS),
    Target("CPU per round trip", ("trips-64", "trips-2000"), "cpu", 0.90, RIVALS),
    Target("added latency, p99", ("trips-64",), "p99", 1.0, RIVALS),
    Target("user memory per idle connection", ("idle-4000",), "anon_per_connection", 0.30, ("haproxy", "haproxy-splice")),
    Target("user memory per idle connection, bytes", ("idle-4000",), "anon_per_connection", 1024),
    Target("RSS when started, MiB", ("idle-4000",), "rss_mib", 2.5),
    Target("system calls per direction of a round trip", ("trips-1",), "syscalls", 3.1),
    Target("system calls per short connection", ("short-1",), "syscalls", 18),
    Target("system calls per short connection", ("short-8",), "syscalls", 15),
    Target("OS threads that run while traffic flows", TRAFFIC, "threads", 1, together=True),
)
