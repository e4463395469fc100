"""The model's predictions beside what was measured, and what follows for other machines, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.measure.harness import medians
from bench.questions.model import Case, Costs, Machine, calibrated, cases, outlook, seconds_of
from bench.write.tables import markdown, taken

__all__ = ["model"]


def model(content: Mapping[str, Any]) -> str:
    """What a row costs, the loads that were predicted from that, and 16 and 64 cores."""
    costs, machine = calibrated(content["runs"])
    beside = content["beside"]
    parts = [*_costs(costs), *_predicted(costs, machine, cases(beside))]
    if gain := _gain(beside):
        parts += _outlook(costs, gain)
    parts += [f"The costs: {taken(*content['runs'])}. The loads beside them: as the tables of their questions say."]
    return "\n\n".join(parts)


def _costs(costs: Costs) -> list[str]:
    each = [
        ("reading", costs.reader),
        ("preparing: cast, encode, hash, ID", costs.prepare),
        ("deciding what is new", costs.decider),
        ("carrying to the table", costs.carry),
        ("of that: the database", costs.database),
        ("on cores, all processes together", costs.processor),
    ]
    return [
        markdown(["a row", "µs"], [(name, f"{seconds * 1e6:.2f}") for name, seconds in each]),
        f"Besides: {costs.commit * 1e3:.1f} ms for each commit, {costs.agree * 1e3:.0f} ms for each run.",
    ]


def _predicted(costs: Costs, machine: Machine, measured: Iterable[Case]) -> list[str]:
    rows, errors = [], []
    for case in measured:
        expected, bound = seconds_of(costs, machine, case)
        off = expected / case.measured - 1
        errors.append(abs(off))
        rows.append((case.name, f"{expected:.2f}", f"{case.measured:.2f}", f"{off:+.0%}", bound))
    return [
        markdown(["load", "the model, s", "it took, s", "off", "bound by"], rows),
        f"Median error {sorted(errors)[len(errors) // 2]:.0%}, largest {max(errors):.0%}.",
    ]


def _outlook(costs: Costs, gain: float) -> list[str]:
    head = ["cores", "enrich, µs a row", "sequential, rows/s", "best", "rows/s", "speed-up", "bound by"]
    rows = [
        (
            cores,
            f"{enrich * 1e6:.0f}",
            f"{alone:,.0f}",
            f"{workers} workers",
            f"{together:,.0f}",
            f"{together / alone:.1f}",
            bound,
        )
        for cores, enrich, workers, alone, together, bound in outlook(costs, gain)
    ]
    return [
        f"With the database on a machine of its own, {gain:.2f} times as fast over two connections as over one "
        "(raw COPY, above), 100 M rows:",
        markdown(head, rows),
    ]


def _gain(beside: Mapping[str, Any]) -> float | None:
    """What raw COPY over two connections gained."""
    if "parallel" not in beside:
        return None
    runs = [run for run in beside["parallel"]["runs"] if run["case"] == "cheap" and "report_seconds" in run]
    took = medians(runs, ("way",), "report_seconds")
    one, two = took.get(("raw COPY, 1 connection",)), took.get(("raw COPY, 2 connections",))
    return min(2.0, one / two) if one and two else None
