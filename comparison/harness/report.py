"""Turns samples into tables. Measures nothing."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.rows import TARGETS, Target

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"

Values = list[float]


@dataclass(frozen=True)
class Column:
    """A metric, its column's heading, and the divisor of its numbers."""

    metric: str
    title: str
    scale: float
    digits: int


_CPU_US = Column("cpu", "CPU, µs", 1e3, 1)
_ADDED = [Column("p50", "p50 added, µs", 1e3, 0), Column("p99", "p99 added, µs", 1e3, 0)]
_THREADS = Column("threads", "threads", 1, 0)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "stream": (Column("cpu", "CPU, s/GiB", 1e9, 3), Column("rate", "GiB/s", 1, 2), Column("syscalls", "system calls/GiB", 1, 0), _THREADS),
    "short": (_CPU_US, Column("rate", "connections/s", 1, 0), *_ADDED, Column("syscalls", "system calls", 1, 2), _THREADS),
    "trips": (_CPU_US, Column("rate", "round trips/s", 1, 0), *_ADDED, Column("p999", "p99.9 added, µs", 1e3, 0),
              Column("syscalls", "system calls per direction", 1, 2), _THREADS),
    "idle": (Column("rss_mib", "RSS when started, MiB", 1, 2), Column("anon_mib", "of which its own, MiB", 1, 2),
             Column("anon_per_connection", "user memory per connection, bytes", 1, 0),
             Column("rss_per_connection", "RSS per connection, bytes", 1, 0)),
}
HEADINGS = {"stream": "Streams", "short": "Short connections", "trips": "Round trips", "idle": "Idle connections"}


class Results:
    """The samples of a run, as `compare --json` writes them."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def by_round(self, row: str, peer: str, metric: str) -> dict[int, float]:
        """Returns a metric's values by round."""
        return {
            sample["round"]: sample["metrics"][metric]
            for sample in self.data["samples"]
            if sample["row"] == row and sample["peer"] == peer and metric in sample["metrics"]
        }

    def values(self, row: str, peer: str, metric: str) -> Values:
        """Returns a metric's values."""
        return list(self.by_round(row, peer, metric).values())

    def peers(self, row: str) -> list[str]:
        """Returns the peers that have samples, in the order of the run."""
        seen = {sample["peer"] for sample in self.data["samples"] if sample["row"] == row}
        return [name for name in ("coracle", *self.data["peers"], "direct") if name in seen]


def whole(results: Results) -> str:
    """Returns all results of a run as Markdown."""
    return "\n\n".join([_circumstances(results.data), _targets(results), *_sections(results)]) + "\n"


def write_between_markers(file: Path, text: str) -> None:
    """Replaces the text between the two markers of a document, which must have them."""
    head, rest = file.read_text().split(BEGIN)
    file.write_text(f"{head}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}")


def has_markers(file: Path) -> bool:
    """Returns whether a document has both markers, once each and in order."""
    document = file.read_text() if file.exists() else ""
    return document.count(BEGIN) == document.count(END) == 1 and document.index(BEGIN) < document.index(END)


def sample_line(kind: str, metrics: dict[str, float]) -> str:
    """Formats one measurement as a line of progress output."""
    shown = [column for column in COLUMNS[kind] if column.metric in metrics]
    return ", ".join(f"{column.title} {metrics[column.metric] / column.scale:,.{column.digits}f}" for column in shown)


def _circumstances(data: dict[str, Any]) -> str:
    rounds = f"{data['rounds']} round{'s' if data['rounds'] != 1 else ''}"
    lines = [
        f"- Command: `{data['command']}` ({rounds}, {data['minutes']:.0f} minutes), {data['date']}",
        f"- Machine: {data['machine']}; load average when it began: {data['load_average']:.1f}",
        f"- Kernel: {data['kernel']}",
        f"- Proxies: {', '.join(f'{name} {version}' for name, version in data['versions'].items())}",
    ]
    lines += [f"- Left out: {text}" for text in data["left_out"]]
    lines += [f"- **Failed**: {text}" for text in data["failures"]]
    if data["quick"]:
        lines.append("- **Sizes of a smoke test: the numbers say nothing**")
    return "\n".join(lines)


def _targets(results: Results) -> str:
    head = ["target", "row", "coracle", "best peer", "ratio", "at most", "reached"]
    lines = []
    for target in TARGETS:
        rows = [row for row in target.rows if results.values(row, "coracle", target.metric)]
        if target.together and rows:
            rows = [max(rows, key=lambda row: statistics.median(results.values(row, "coracle", target.metric)))]
        lines += [_target(results, target, row) for row in rows]
    return "### Targets\n\n" + table(head, lines, left=2) + _threads(results)


def _threads(results: Results) -> str:
    """Says which threads coracle's figure consists of, and how much each of them ran."""
    times: dict[str, int] = {}
    for sample in results.data["samples"]:
        for name, cpu in sample["threads"].items() if sample["peer"] == "coracle" else ():
            times[name] = times.get(name, 0) + cpu
    if not times:
        return ""
    shares = ", ".join(f"`{name}` {cpu / sum(times.values()):.3%} of the CPU time" for name, cpu in sorted(times.items(), key=lambda t: -t[1]))
    return f"\n\nThreads of coracle that ran while traffic flowed: {shares}."


def _target(results: Results, target: Target, row: str) -> list[str]:
    ours = results.by_round(row, "coracle", target.metric)
    where = f"all, at worst {row}" if target.together else row
    show = _shower(results, row, target.metric)
    if not target.peers:
        middle = statistics.median(ours.values())
        return [target.title, where, show(list(ours.values())), "", "", f"{target.limit:g}", _yes(middle <= target.limit)]
    rivals = {peer: values for peer in target.peers if (values := results.by_round(row, peer, target.metric))}
    if not rivals:
        return [target.title, where, show(list(ours.values())), "none was measured", "", f"{target.limit:.2f}", ""]
    best = min(rivals, key=lambda peer: statistics.median(rivals[peer].values()))
    # Samples of one round are close in time, so each round gives its own ratio.
    pairs = [ours[number] / rivals[best][number] for number in ours if rivals[best].get(number, 0) > 0]
    if not pairs:
        return [target.title, where, show(list(ours.values())), best, "the best peer adds nothing", f"{target.limit:.2f}", ""]
    theirs = f"{best} {show(list(rivals[best].values()))}"
    return [target.title, where, show(list(ours.values())), theirs, spread(pairs, 2), f"{target.limit:.2f}",
            _yes(statistics.median(pairs) <= target.limit)]


def _shower(results: Results, row: str, metric: str) -> Callable[[Values], str]:
    column = next(column for column in COLUMNS[results.data["rows"][row]["kind"]] if column.metric == metric)
    return lambda values: spread([value / column.scale for value in values], column.digits)


def _sections(results: Results) -> Iterable[str]:
    for kind, heading in HEADINGS.items():
        names = [name for name, row in results.data["rows"].items() if row["kind"] == kind and results.peers(name)]
        for place, name in enumerate(names):
            title = f"**{name}**: {results.data['rows'][name]['title']}"
            yield (f"### {heading}\n\n" if place == 0 else "") + f"{title}\n\n" + _section(results, name, kind)


def _section(results: Results, row: str, kind: str) -> str:
    peers = results.peers(row)
    columns = [column for column in COLUMNS[kind] if any(results.values(row, peer, column.metric) for peer in peers)]
    lines = [
        [peer, *(spread([value / column.scale for value in results.values(row, peer, column.metric)], column.digits) for column in columns)]
        for peer in peers
    ]
    return table(["", *(column.title for column in columns)], lines) + _calls(results, row)


def _calls(results: Results, row: str) -> str:
    """Says which system calls coracle's figure consists of."""
    for sample in results.data["samples"]:
        if sample["row"] == row and sample["peer"] == "coracle" and sample["calls"]:
            calls = sorted(sample["calls"].items(), key=lambda call: -call[1])
            total = sum(sample["calls"].values())
            named = ", ".join(f"{name} {count:,.{0 if total > 1000 else 2}f}" for name, count in calls if count >= total / 200)
            return f"\n\nSystem calls of coracle: {named}."
    return ""


def spread(values: Values, digits: int) -> str:
    """Formats values as `median (least..most)`, or as one value if all look the same rounded."""
    if not values:
        return ""
    low, middle, high = (f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return middle if low == high else f"{middle} ({low}..{high})"


def _yes(reached: bool) -> str:
    return "yes" if reached else "**no**"


def table(head: list[str], lines: list[list[str]], left: int = 1) -> str:
    """Formats a Markdown table. The first `left` columns are text, the others numbers."""
    widths = [max(3, *(len(line[i]) for line in [head, *lines])) for i in range(len(head))]
    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]

    def written(line: list[str]) -> str:
        cells = (cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths)))
        return "| " + " | ".join(cells) + " |"

    return "\n".join(map(written, [head, rule, *lines]))
