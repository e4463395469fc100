"""The figures of each question as a table in Markdown, from the runs of its JSON file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bench.measure.harness import Run, median, medians

__all__ = [
    "BOUND",
    "OURS",
    "TABLES",
    "TAKEN",
    "facts_line",
    "markdown",
    "parallel_overview",
    "ratio",
    "shared_rounds",
    "shown",
    "taken",
]

Content = Mapping[str, Any]
MIB = 1 << 20
BOUND = "raw COPY"
OURS = "headrace"
TAKEN = "date, commit"
IDS_OF = {"time": "by time", "hash": "random"}


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def facts_line(content: Content) -> str:
    """Where, when and with what the figures were taken."""
    facts = content["facts"]
    machine, packages, server = facts["machine"], facts["packages"], facts["server"]
    versions = ", ".join(f"{name} {found}" for name, found in packages.items())
    settings = ", ".join(f"{name} {value}" for name, value in server.items() if name != "server_version")
    loads = [run["busy"] for run in content["runs"] if "busy" in run]
    busy = f" Load average as the runs began: median {median(loads):.1f}, highest {max(loads):.1f}." if loads else ""
    return (
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, "
        f"{machine['system']}, Python {machine['python']}; {versions}. "
        f"PostgreSQL {server.get('server_version', '')} from the wheel, on the same machine: {settings}.{busy}"
    )


def taken(*runs: Run) -> str:
    """When, and of which commit, runs were taken."""
    return ", ".join(sorted({run["taken"] for run in runs}))


def shared_rounds(one: Iterable[Run], other: Iterable[Run], of: str) -> tuple[float, float] | None:
    """The medians of a figure for two contenders over the rounds that both have: neither gets more tries.

    ``None`` if they share no round.
    """
    first, second = ({run["round"]: run[of] for run in runs if run.get(of) is not None} for runs in (one, other))
    both = first.keys() & second.keys()
    if not both:
        return None
    return median(first[number] for number in both), median(second[number] for number in both)


def shown(situation: str) -> str:
    """A situation's name as pages show it: results keep the short one."""
    return situation.replace("there", "already loaded")


def ratio(value: float | None) -> str:
    """A ratio as tables show it; nothing for none."""
    return "" if value is None else f"{value:.2f}"


def kernels(content: Content) -> str:
    """Nanoseconds a row."""
    rows = [
        (
            run["kernel"],
            shown(run["of"]),
            f"{run['seconds'] / run['rows'] * 1e9:,.1f}",
            f"{run['rows'] / run['seconds'] / 1e6:,.1f}",
            taken(run),
        )
        for run in content["runs"]
    ]
    return markdown(["kernel", "of", "ns a row", "M rows/s", TAKEN], rows)


def startup(content: Content) -> str:
    """Milliseconds of a whole process."""
    runs = content["runs"]
    bare = medians(runs, ("command",), "seconds").get(("python -c pass",), 0.0)
    rows = [
        (
            f"`{command}`",
            f"{took * 1e3:.0f}",
            f"{(took - bare) * 1e3:.0f}",
            taken(*(run for run in runs if run["command"] == command)),
        )
        for (command,), took in medians(runs, ("command",), "seconds").items()
    ]
    return markdown(["process", "ms", "ms beyond Python's own", TAKEN], sorted(rows))


def parallel(content: Content) -> str:
    """Seconds of the report and of the whole process; ratios of whole processes."""
    runs = content["runs"]
    whole = medians(runs, ("case", "rows", "way"), "seconds")
    inner = medians(runs, ("case", "rows", "way"), "report_seconds")
    workers = {run["case"]: run["workers"] for run in runs}
    rows = []
    for (case, size, way), took in whole.items():
        said = inner.get((case, size, way))
        limit = whole.get((case, size, "raw COPY, 2 connections"))
        name = way if way == "sequential" or way.startswith(BOUND) else f"{way}, {workers[case]} workers"
        rows.append(
            (
                f"{case}, {size:,} rows",
                name,
                "" if said is None else f"{said:.2f}",
                f"{took:.2f}",
                f"{size / took:,.0f}",
                ratio(whole[case, size, "sequential"] / took),
                ratio(limit / took if limit else None),
                taken(*(run for run in runs if (run["case"], run["rows"], run["way"]) == (case, size, way))),
            )
        )
    head = ["situation", "way", "report, s", "process, s", "rows/s", "÷ sequential", "÷ raw COPY over 2 connections"]
    return markdown([*head, TAKEN], rows)


def parallel_overview(content: Content) -> str:
    """How many times as fast as sequential each case is, for a README: the load alone."""
    inner = medians(content["runs"], ("case", "rows", "way", "workers"), "report_seconds")
    rows = []
    for (case, size, way, workers), took in inner.items():
        if way == "partitioned":
            runs = [run for run in content["runs"] if (run["case"], run["rows"], run["way"]) == (case, size, way)]
            gain = inner[case, size, "sequential", workers] / took
            rows.append((CASES[case], f"{size:,}", workers, f"{gain:.2f}", taken(*runs)))
    return markdown(["load", "events", "workers", "times as fast as sequential", TAKEN], rows)


CASES = {
    "cheap": "cheap, the database on the same cores",
    "costly": "an `enrich` of 20 µs an event",
    "far away": "small files, the database 20 ms away",
}


def growth(content: Content) -> str:
    """Rows a second into the grown table by those into an empty one; peak memory of the load."""
    rows = []
    for layout, existing, size in medians(content["runs"], ("layout", "existing", "rows"), "seconds"):
        here = [
            run for run in content["runs"] if (run["layout"], run["existing"], run["rows"]) == (layout, existing, size)
        ]
        inner = medians(here, ("table",), "report_seconds")
        whole = medians(here, ("table",), "seconds")
        if ("grown",) not in inner:
            continue
        rows.append(
            (
                IDS_OF[layout],
                f"{existing:,}",
                f"{size / inner['empty',]:,.0f}",
                f"{size / inner['grown',]:,.0f}",
                ratio(inner["empty",] / inner["grown",]),
                ratio(whole["empty",] / whole["grown",]),
                f"{medians(here, ('table',), 'peak_bytes')['grown',] / MIB:,.0f} MiB",
                taken(*here),
            )
        )
    head = ["IDs", "rows in the table", "rows/s, empty", "rows/s", "÷ empty", "÷ empty, whole process", "peak"]
    return markdown([*head, TAKEN], rows)


def snapshot(content: Content) -> str:
    """IDs a second, bytes an ID."""
    runs = content["runs"]
    cell = ("ids", "way")
    figures = {name: medians(runs, cell, name) for name in ("fetch_seconds", "snapshot_seconds", "peak_bytes")}
    kept = medians([{**run, "kept": run["file_bytes"] + run["heap_bytes"]} for run in runs], cell, "kept")
    rows = [
        (
            f"{ids:,}",
            way,
            f"{ids / figures['fetch_seconds'][ids, way]:,.0f}",
            f"{ids / took:,.0f}",
            f"{kept[ids, way] / ids:.1f}",
            f"{figures['peak_bytes'][ids, way] / MIB:,.0f} MiB",
            taken(*(run for run in runs if (run["ids"], run["way"]) == (ids, way))),
        )
        for (ids, way), took in figures["snapshot_seconds"].items()
    ]
    kept_where = "bytes kept an ID (files and heap)"
    return markdown(["IDs", "fetched", "IDs/s, fetched", "IDs/s, into the snapshot", kept_where, "peak", TAKEN], rows)


def poll(content: Content) -> str:
    """The first poll, and the median and the slowest of those after it."""
    rows = []
    for existing in dict.fromkeys(run["existing"] for run in content["runs"]):
        here = [run for run in content["runs"] if run["existing"] == existing]
        later = sorted(one for run in here for one in run["polls"])
        rows.append(
            (
                f"{existing:,}",
                f"{median(run['first_seconds'] for run in here) * 1e3:,.0f}",
                f"{median(later) * 1e3:,.1f}",
                f"{later[round(0.99 * (len(later) - 1))] * 1e3:,.1f}",
                len(later),
                taken(*here),
            )
        )
    head = ["rows in the table", "first poll, ms", "later polls, median, ms", "99th percentile, ms", "polls", TAKEN]
    return markdown(head, rows)


def memory(content: Content) -> str:
    """Rows a second, peaks, and each peak by that of the smallest input."""
    peaks = medians(content["runs"], ("format", "load", "rows"), "peak_bytes")
    took = medians(content["runs"], ("format", "load", "rows"), "seconds")
    rows = []
    for kind, size in dict.fromkeys((kind, size) for kind, _, size in peaks):
        first = min(other for found, _, other in peaks if found == kind)
        cells = []
        for load in ("fresh", "repeated"):
            peak, base = peaks.get((kind, load, size)), peaks.get((kind, load, first))
            if peak is None or base is None:
                cells += ["", "", ""]
            else:
                speed = size / took[kind, load, size]
                cells += [f"{speed:,.0f}", f"{peak / MIB:,.0f} MiB", ratio(peak / base)]
        here = [run for run in content["runs"] if (run["format"], run["rows"]) == (kind, size)]
        rows.append((kind, f"{size:,}", *cells, taken(*here)))
    columns = [f"{load}{figure}" for load in ("fresh", "repeated") for figure in (", rows/s", ", peak", " ÷ smallest")]
    return markdown(["input", "rows", *columns, TAKEN], rows)


def sqlite(content: Content) -> str:
    """Seconds of the report, and of `executemany` with its commit."""
    inner = medians(content["runs"], ("rows", "way", "load"), "report_seconds")
    whole = medians(content["runs"], ("rows", "way", "load"), "seconds")
    names = {
        "headrace": "headrace",
        "plain": "`executemany`, rows ready, no key",
        "keyed": "`executemany`, rows ready, natural key, ON CONFLICT",
    }
    rows = [
        (
            names[way],
            load,
            f"{size:,}",
            f"{took:.2f}",
            f"{whole[size, way, load]:.2f}",
            f"{size / took:,.0f}",
            ratio(inner[size, "plain", "fresh"] / took if (size, "plain", "fresh") in inner else None),
            taken(*(run for run in content["runs"] if (run["rows"], run["way"], run["load"]) == (size, way, load))),
        )
        for (size, way, load), took in inner.items()
    ]
    return markdown(["load", "", "rows", "seconds", "process, s", "rows/s", "÷ plain `executemany`", TAKEN], rows)


TABLES: dict[str, Callable[[Content], str]] = {
    "kernels": kernels,
    "startup": startup,
    "parallel": parallel,
    "growth": growth,
    "snapshot": snapshot,
    "poll": poll,
    "memory": memory,
    "sqlite": sqlite,
}
