"""The figures of each question as a table in Markdown, from the runs of its JSON file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from harness import Run, median, medians

__all__ = ["TABLES", "common_size", "facts_line", "markdown", "overview", "summary_rows"]

Content = Mapping[str, Any]
MIB = 1 << 20
BOUND = "raw COPY"
OURS = "headrace"
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
        f"{facts['date']}: {machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, "
        f"{machine['system']}, Python {machine['python']}; {versions}. "
        f"PostgreSQL {server.get('server_version', '')} from the wheel, on the same machine: {settings}.{busy}"
    )


# Loads -------------------------------------------------------------------------------------------------------------

GROUP = ("dataset", "rows", "existing", "situation", "format")


def summary_rows(runs: Sequence[Run]) -> list[Run]:
    """For each group: headrace, the lower bound fresh at the same size, and the fastest peer that was right."""
    seconds = medians(_done(runs), ("peer", *GROUP), "seconds")
    inner = medians(_done(runs), ("peer", *GROUP), "report_seconds")
    rows = []
    for group in dict.fromkeys(tuple(run[name] for name in GROUP) for run in runs):
        cell = dict(zip(GROUP, group, strict=True))
        peers = {
            peer: seconds[peer, *group]
            for peer in _names(runs)
            if (peer, *group) in seconds and _verdict(runs, peer, group) == "right" and peer not in {OURS, BOUND}
        }
        if (OURS, *group) not in seconds:
            continue
        limit = (BOUND, cell["dataset"], cell["rows"], cell["existing"], "fresh", "parquet")
        bound, inner_bound = seconds.get(limit), inner.get(limit)
        best = min(peers, key=lambda peer: peers[peer], default=None)
        ours, alone = seconds[OURS, *group], inner.get((OURS, *group))
        rows.append(
            cell
            | {
                "seconds": ours,
                "share of bound": bound / ours if bound else None,
                "alone": alone,
                "alone, share of bound": inner_bound / alone if inner_bound and alone else None,
                "best": best,
                "times best": peers[best] / ours if best else None,
            }
        )
    return rows


def loads(content: Content) -> str:
    """The summary, a table for each size of store and format, what was wrong, and who was measured how."""
    runs: list[Run] = content["runs"]
    head = [
        "input",
        "there before",
        "situation",
        "format",
        "headrace",
        "rows/s",
        "speed ÷ raw COPY",
        "the load alone",
        "speed ÷ raw COPY alone",
        "fastest peer",
        "speed ÷ its",
    ]
    rows = [
        (
            f"{row['rows']:,} {row['dataset']}",
            f"{row['existing']:,}",
            row["situation"],
            row["format"],
            f"{row['seconds']:.2f} s",
            f"{row['rows'] / row['seconds']:,.0f}",
            _ratio(row["share of bound"]),
            f"{row['alone']:.2f} s" if row["alone"] else "",
            _ratio(row["alone, share of bound"]),
            row["best"] or "none",
            _ratio(row["times best"]),
        )
        for row in summary_rows(runs)
    ]
    parts = [markdown(head, rows), *_by_store(runs), _wrong(runs), _described(content.get("peers", {}))]
    return "\n\n".join(part for part in parts if part)


def common_size(runs: Sequence[Run]) -> int:
    """The rows of the input that most contenders took, the larger of two."""
    takers = {rows: len({run["peer"] for run in runs if run["rows"] == rows}) for rows in {run["rows"] for run in runs}}
    return max(takers, key=lambda rows: (takers[rows], rows))


def overview(content: Content) -> str:
    """Rows a second of every contender, for a README: fresh, and where everything is there."""
    runs = [run for run in content["runs"] if run["dataset"] == "fires"]
    size = common_size(runs)
    rates: dict[tuple[str, str], dict[str, str]] = {}
    order: dict[tuple[str, str], float] = {}
    for situation in ("fresh", "all there"):
        here = [run for run in runs if run["situation"] == situation and run["rows"] == size]
        least = min((run["existing"] for run in here), default=0)
        for (peer, kind), took in medians(
            _done(run for run in here if run["existing"] == least), ("peer", "format"), "seconds"
        ).items():
            wrong = _verdict(runs, peer, ("fires", size, least, situation, kind)) != "right"
            rates.setdefault((peer, kind), {})[situation] = f"{size / took:,.0f}{' ✗' if wrong else ''}"
            order.setdefault((peer, kind), took)
    rows = [
        (peer, kind, rates[peer, kind].get("fresh", ""), rates[peer, kind].get("all there", ""))
        for peer, kind in sorted(order, key=lambda one: order[one])
        if kind == "csv" or peer in {OURS, BOUND}
    ]
    return markdown(["contender", "from", "all new, rows/s", "all there already, rows/s"], rows)


def _by_store(runs: Sequence[Run]) -> Iterable[str]:
    seconds = medians(_done(runs), ("peer", *GROUP), "seconds")
    for key in dict.fromkeys((run["dataset"], run["rows"], run["existing"], run["format"]) for run in runs):
        dataset, rows, existing, kind = key
        here = [run for run in runs if (run["dataset"], run["rows"], run["existing"], run["format"]) == key]
        situations = list(dict.fromkeys(run["situation"] for run in here))

        def cell(peer: str, situation: str, key: tuple[Any, ...] = key) -> str:
            group = (*key[:3], situation, key[3])
            verdict = _verdict(runs, peer, group)
            if verdict is None:
                return ""
            took = seconds.get((peer, *group))
            return "failed" if took is None else f"{took:.2f}" if verdict == "right" else f"{took:.2f} ✗"

        first = (*key[:3], situations[0], kind)
        names = sorted(_names(here), key=lambda peer: seconds.get((peer, *first), float("inf")))
        yield f"{rows:,} {dataset} from {kind}, {existing:,} there before; seconds, whole process:"
        yield markdown(["", *situations], [(peer, *(cell(peer, one) for one in situations)) for peer in names])


def _wrong(runs: Sequence[Run]) -> str:
    """What was not right. ✗ stands for it in the tables."""
    found = dict.fromkeys(
        (run["peer"], run["situation"], run["format"], run["verdict"]) for run in runs if run["verdict"] != "right"
    )
    lines = [f"- {peer}, {situation}, {kind}: {verdict}" for peer, situation, kind, verdict in found]
    return "\n".join(["✗ Wrong results and failures:", "", *lines]) if lines else "Every result was right."


def _described(peers: Mapping[str, Run]) -> str:
    rows = [
        (
            name,
            ", ".join(f"{package} {found}" for package, found in peer["versions"].items() if found)
            or peer.get("lacking", ""),
            peer["settings"],
            f"<{peer['documentation']}>" if peer["documentation"].startswith("http") else peer["documentation"],
        )
        for name, peer in peers.items()
    ]
    return markdown(["contender", "versions", "settings", "by its documentation"], rows)


def _done(runs: Iterable[Run]) -> Iterable[Run]:
    return [run for run in runs if run["exit_code"] == 0]


def _names(runs: Iterable[Run]) -> list[str]:
    return list(dict.fromkeys(run["peer"] for run in runs))


def _verdict(runs: Iterable[Run], peer: str, group: Sequence[object]) -> str | None:
    """``right`` if it was so in every round, or the first other word."""
    words = [run["verdict"] for run in runs if run["peer"] == peer and [run[name] for name in GROUP] == list(group)]
    return next((word for word in words if word != "right"), words[0] if words else None)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


# The other questions -----------------------------------------------------------------------------------------------


def kernels(content: Content) -> str:
    """Nanoseconds a row."""
    rows = [
        (
            run["kernel"],
            run["of"],
            f"{run['seconds'] / run['rows'] * 1e9:,.1f}",
            f"{run['rows'] / run['seconds'] / 1e6:,.1f}",
        )
        for run in content["runs"]
    ]
    return markdown(["kernel", "of", "ns a row", "M rows/s"], rows)


def startup(content: Content) -> str:
    """Milliseconds of a whole process."""
    runs = content["runs"]
    bare = medians(runs, ("command",), "seconds").get(("python -c pass",), 0.0)
    rows = [
        (f"`{command}`", f"{took * 1e3:.0f}", f"{(took - bare) * 1e3:.0f}")
        for (command,), took in medians(runs, ("command",), "seconds").items()
    ]
    return markdown(["process", "ms", "ms beyond Python's own"], sorted(rows))


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
                _ratio(whole[case, size, "sequential"] / took),
                _ratio(limit / took if limit else None),
            )
        )
    head = ["situation", "way", "report, s", "process, s", "rows/s", "÷ sequential", "÷ raw COPY over 2 connections"]
    return markdown(head, rows)


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
                _ratio(inner["empty",] / inner["grown",]),
                _ratio(whole["empty",] / whole["grown",]),
                f"{medians(here, ('table',), 'peak_bytes')['grown',] / MIB:,.0f} MiB",
            )
        )
    return markdown(["IDs", "rows there", "rows/s at none", "rows/s", "÷ none", "÷ none, whole process", "peak"], rows)


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
        )
        for (ids, way), took in figures["snapshot_seconds"].items()
    ]
    kept_where = "bytes kept an ID (files and heap)"
    return markdown(["IDs", "fetched", "IDs/s, fetched", "IDs/s, into the snapshot", kept_where, "peak"], rows)


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
            )
        )
    return markdown(
        ["rows in the table", "first poll, ms", "later polls, median, ms", "99th percentile, ms", "polls"], rows
    )


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
                cells += [f"{speed:,.0f}", f"{peak / MIB:,.0f} MiB", _ratio(peak / base)]
        rows.append((kind, f"{size:,}", *cells))
    columns = [f"{load}{figure}" for load in ("fresh", "repeated") for figure in (", rows/s", ", peak", " ÷ smallest")]
    return markdown(["input", "rows", *columns], rows)


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
            _ratio(inner[size, "plain", "fresh"] / took if (size, "plain", "fresh") in inner else None),
        )
        for (size, way, load), took in inner.items()
    ]
    return markdown(["load", "", "rows", "seconds", "process, s", "rows/s", "÷ plain `executemany`"], rows)


# Predictions -------------------------------------------------------------------------------------------------------


TABLES: dict[str, Callable[[Content], str]] = {
    "loads": loads,
    "kernels": kernels,
    "startup": startup,
    "parallel": parallel,
    "growth": growth,
    "snapshot": snapshot,
    "poll": poll,
    "memory": memory,
    "sqlite": sqlite,
}
