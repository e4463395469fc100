"""Bars as SVG, drawn by hand: readable on light and on dark pages, without a library or a font of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from bench.measure.harness import Run, medians
from bench.write.load_tables import common_size
from bench.write.tables import shown

__all__ = ["Bar", "bars", "pictures"]

Bar = tuple[str, float, str]  # label, value, class: ours, bound, peer or wrong
WIDTH, LABEL, ROW, BAR, TOP = 720, 150, 26, 17, 40
CLASSES = {"headrace": "ours", "raw COPY": "bound"}
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-weight: 600; font-size: 14px }
.ours { fill: #0969da } .bound { fill: #8c959f } .peer { fill: #afb8c1 } .wrong { fill: #cf222e }
@media (prefers-color-scheme: dark) {
 text { fill: #e6edf3 } .ours { fill: #58a6ff } .bound { fill: #6e7681 }
 .peer { fill: #484f58 } .wrong { fill: #f85149 } }
"""


def bars(title: str, rows: Sequence[Bar]) -> str:
    """A bar for each of `rows`, as long as its value; the value stands behind it."""
    most = max(value for _, value, _ in rows)
    room = WIDTH - LABEL - 110
    parts = [f'<text class="title" x="8" y="20">{escape(title)}</text>']
    for number, (label, value, kind) in enumerate(rows):
        y = TOP + number * ROW
        length = max(1.0, value / most * room)
        parts += [
            f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>',
            f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>',
            f'<text x="{LABEL + length + 6:.1f}" y="{y + 13}">{value:,.0f}</text>',
        ]
    height = TOP + len(rows) * ROW + 8
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">\n<style>{STYLE}</style>\n{body}\n</svg>\n'
    )


def pictures(contents: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The pictures that the results are enough for, by file name."""
    drawn = {}
    if "loads" in contents:
        fires = [run for run in contents["loads"]["runs"] if run["dataset"] == "fires"]
        runs = [run for run in fires if run["format"] == "csv" or run["peer"] == "raw COPY"]
        for name, situation in (("loads-fresh.svg", "fresh"), ("loads-all-already-loaded.svg", "all there")):
            if rows := [run for run in runs if run["situation"] == situation and run["exit_code"] == 0]:
                drawn[name] = _loads(rows, situation)
    return drawn


def _loads(runs: Sequence[Run], situation: str) -> str:
    """Rows a second from CSV, which every peer reads; the smallest store that it happens at."""
    size = common_size(runs)
    existing = min(run["existing"] for run in runs if run["rows"] == size)
    here = [run for run in runs if run["rows"] == size and run["existing"] == existing]
    wrong = {run["peer"] for run in here if run["verdict"] != "right"}
    rates = {peer: size / took for (peer,), took in medians(here, ("peer",), "seconds").items()}
    rows = [
        (peer, rate, "wrong" if peer in wrong else CLASSES.get(peer, "peer"))
        for peer, rate in sorted(rates.items(), key=lambda one: -one[1])
    ]
    return bars(f"{size:,} events from CSV, {shown(situation)}, {existing:,} in the table before: rows a second", rows)
