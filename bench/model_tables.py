"""The model's predictions beside what was measured, and what follows for other machines, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness import medians
from model import calibrated, cases, outlook, seconds_of
from tables import markdown

__all__ = ["model"]


def model(content: Mapping[str, Any]) -> str:
    """What a row costs, the loads that were predicted from that, and 16 and 64 cores."""
    costs, machine = calibrated(content["runs"])
    beside = content["beside"]
    each = [
        ("reading", costs.reader),
        ("preparing: cast, encode, hash, ID", costs.prepare),
        ("deciding what is new", costs.decider),
        ("carrying to the table", costs.carry),
        ("of that: the database", costs.database),
        ("on cores, all processes together", costs.processor),
    ]
    parts = [
        markdown(["a row", "µs"], [(name, f"{seconds * 1e6:.2f}") for name, seconds in each]),
        f"Besides: {costs.commit * 1e3:.1f} ms for each commit, {costs.agree * 1e3:.0f} ms for each run.",
    ]
    rows, errors = [], []
    for case in cases(beside):
        expected, bound = seconds_of(costs, machine, case)
        errors.append(abs(expected / case.measured - 1))
        rows.append(
            (case.name, f"{expected:.2f}", f"{case.measured:.2f}", f"{expected / case.measured - 1:+.0%}", bound)
        )
    parts.append(markdown(["load", "the model, s", "it took, s", "off", "bound by"], rows))
    parts.append(f"Median error {sorted(errors)[len(errors) // 2]:.0%}, largest {max(errors):.0%}.")
    if gain := _gain(beside):
        parts.append(
            f"With the database on a machine of its own, {gain:.2f} times as fast over two connections as over one "
            "(raw COPY, above), 100 M rows:"
        )
        head = ["cores", "enrich, µs a row", "sequential, rows/s", "best", "rows/s", "speed-up", "bound by"]
        parts.append(
            markdown(
                head,
                [
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
                ],
            )
        )
    return "\n\n".join(parts)


def _gain(beside: Mapping[str, Any]) -> float | None:
    """What raw COPY over two connections gained."""
    if "parallel" not in beside:
        return None
    runs = [run for run in beside["parallel"]["runs"] if run["case"] == "cheap" and "report_seconds" in run]
    took = medians(runs, ("way",), "report_seconds")
    one, two = took.get(("raw COPY, 1 connection",)), took.get(("raw COPY, 2 connections",))
    return min(2.0, one / two) if one and two else None
