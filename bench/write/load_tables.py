"""The loads and their peers as tables: what was measured in the same session, over the same rounds, in the same way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.measure.harness import Run, median, medians
from bench.write.tables import BOUND, OURS, TAKEN, Content, markdown, ratio, shared_rounds, shown, taken

__all__ = ["common_size", "loads", "overview", "summary_rows"]

BY_HASH = "headrace, IDs by hash"
GROUP = ("dataset", "rows", "existing", "situation", "format")


def summary_rows(runs: Sequence[Run]) -> list[Run]:
    """For each group: headrace, the lower bound fresh at the same size, and the fastest peer that was right.

    Whole processes are compared with whole processes, inner time with inner time, over the rounds that both have.
    """
    done = _by_cell(_done(runs))
    rows = []
    for group in dict.fromkeys(tuple(run[name] for name in GROUP) for run in runs):
        cell = dict(zip(GROUP, group, strict=True))
        ours = done.get((OURS, *group))
        if ours is None:
            continue
        bound = done.get((BOUND, cell["dataset"], cell["rows"], cell["existing"], "fresh", "parquet"), [])
        times = {
            peer: found[1] / found[0]
            for peer in _names(runs)
            if peer not in {OURS, BY_HASH, BOUND}
            and _verdict(runs, peer, group) == "right"
            and (found := shared_rounds(ours, done.get((peer, *group), []), "seconds"))
        }
        best = min(times, key=lambda peer: times[peer], default=None)
        rows.append(
            cell
            | {
                "rounds": len(ours),
                "seconds": median(run["seconds"] for run in ours),
                "share of bound": _share(bound, ours, "seconds"),
                "alone": next(iter(medians(ours, (), "report_seconds").values()), None),
                "alone, share of bound": _share(bound, ours, "report_seconds"),
                "best": best,
                "times best": times[best] if best else None,
                "taken": taken(*ours, *(done.get((best, *group), []) if best else [])),
            }
        )
    return rows


def _by_cell(runs: Iterable[Run]) -> dict[tuple[Any, ...], list[Run]]:
    cells: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        cells.setdefault((run["peer"], *(run[name] for name in GROUP)), []).append(run)
    return cells


def _share(over: Sequence[Run], under: Sequence[Run], of: str) -> float | None:
    found = shared_rounds(over, under, of)
    return found[0] / found[1] if found else None


def loads(content: Content) -> str:
    """The summary, a table for each size of store and format, what was wrong, and who was measured how."""
    runs: list[Run] = content["runs"]
    head = [
        "input",
        "in the table before",
        "situation",
        "format",
        "rounds",
        "headrace",
        "rows/s",
        "speed ÷ raw COPY",
        "the load alone",
        "speed ÷ raw COPY alone",
        "fastest peer",
        "speed ÷ its",
        TAKEN,
    ]
    rows = [
        (
            f"{row['rows']:,} {row['dataset']}",
            f"{row['existing']:,}",
            shown(row["situation"]),
            row["format"],
            row["rounds"],
            f"{row['seconds']:.2f} s",
            f"{row['rows'] / row['seconds']:,.0f}",
            ratio(row["share of bound"]),
            f"{row['alone']:.2f} s" if row["alone"] else "",
            ratio(row["alone, share of bound"]),
            row["best"] or "none",
            ratio(row["times best"]),
            row["taken"],
        )
        for row in summary_rows(runs)
    ]
    parts = [markdown(head, rows), *_by_store(runs), _wrong(runs), _types(runs), _described(content.get("peers", {}))]
    return "\n\n".join(part for part in parts if part)


def common_size(runs: Sequence[Run]) -> int:
    """The rows of the input that most contenders took, the larger of two."""
    takers = {rows: len({run["peer"] for run in runs if run["rows"] == rows}) for rows in {run["rows"] for run in runs}}
    return max(takers, key=lambda rows: (takers[rows], rows))


def overview(content: Content) -> str:
    """Rows a second of every contender, for a README: fresh, and with everything already loaded."""
    runs = [run for run in content["runs"] if run["dataset"] == "fires"]
    size = common_size(runs)
    rates: dict[tuple[str, str], dict[str, str]] = {}
    order: dict[tuple[str, str], float] = {}
    counted: dict[tuple[str, str], list[Run]] = {}
    for situation in ("fresh", "all there"):
        here = [run for run in runs if run["situation"] == situation and run["rows"] == size]
        least = min((run["existing"] for run in here), default=0)
        done = _done(run for run in here if run["existing"] == least)
        for (peer, kind), took in medians(done, ("peer", "format"), "seconds").items():
            wrong = _verdict(runs, peer, ("fires", size, least, situation, kind)) != "right"
            rates.setdefault((peer, kind), {})[situation] = f"{size / took:,.0f}{' ✗' if wrong else ''}"
            order.setdefault((peer, kind), took)
            counted.setdefault((peer, kind), []).extend(
                run for run in done if (run["peer"], run["format"]) == (peer, kind)
            )
    rows = [
        (
            peer,
            kind,
            rates[peer, kind].get("fresh", ""),
            rates[peer, kind].get("all there", ""),
            len({run["round"] for run in counted[peer, kind]}),
            taken(*counted[peer, kind]),
        )
        for peer, kind in sorted(order, key=lambda one: order[one])
        if kind == "csv" or peer in {OURS, BOUND}
    ]
    head = ["contender", "from", "all new, rows/s", "all already loaded, rows/s", "rounds", TAKEN]
    return markdown(head, rows)


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
        yield f"{rows:,} {dataset} from {kind}, {existing:,} in the table before; seconds, whole process:"
        yield markdown(
            ["", *map(shown, situations), "rounds", TAKEN],
            [
                (
                    peer,
                    *(cell(peer, one) for one in situations),
                    len({run["round"] for run in here if run["peer"] == peer}),
                    taken(*(run for run in here if run["peer"] == peer)),
                )
                for peer in names
            ],
        )


def _wrong(runs: Sequence[Run]) -> str:
    """What was not right. ✗ stands for it in the tables."""
    found = dict.fromkeys(
        (run["peer"], run["situation"], run["format"], run["verdict"]) for run in runs if run["verdict"] != "right"
    )
    lines = [f"- {peer}, {shown(situation)}, {kind}: {verdict}" for peer, situation, kind, verdict in found]
    return "\n".join(["✗ Wrong results and failures:", "", *lines]) if lines else "Every result was right."


def _types(runs: Sequence[Run]) -> str:
    """Whose columns have other types than everybody's."""
    found = {
        run["peer"]: ", ".join(f"{name} {kind}" for name, kind in run["other types"].items())
        for run in runs
        if run.get("other types")
    }
    if not found:
        return ""
    lines = [f"- {peer}: {types}" for peer, types in found.items()]
    return "\n".join(["Columns that a contender makes of other types than the rest have:", "", *lines])


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
