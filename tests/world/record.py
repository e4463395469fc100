"""What histories have tried and found: acts, pairs of acts, rules judged, refusals in their own words, violations.

`Tally` sums histories. With ``HEADRACE_EVIDENCE`` set to a file, `keep_world` adds a line of JSON to it, and
`support.evidence` writes `page` into ``docs/reliability.md``.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["BEGIN", "END", "Tally", "keep_world", "page", "plain_words"]

BEGIN, END = "<!-- world: begin -->", "<!-- world: end -->"
LONGEST = 150
NAMED = 40


@dataclass
class Tally:
    """Of one store: `histories`, `acts` by name and end, `inside` by name of the acts in the middle of commands."""

    store: str
    seeds: list[int] = field(default_factory=list)
    histories: int = 0
    acts: Counter[str] = field(default_factory=Counter)
    rules: int = 0
    pairs: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    violations: int = 0

    def add(
        self,
        ended: Iterable[tuple[str, str, str]],
        pairs: Iterable[tuple[str, str]],
        rules: int,
        wrong: Sequence[str],
    ) -> None:
        """Count a history."""
        self.histories += 1
        self.rules += rules
        self.violations += len(wrong)
        self.pairs.update(" → ".join(pair) for pair in pairs)
        for name, how, words in ended:
            self.acts[f"{name}: {how}"] += 1
            if how == "refused":
                self.refusals[plain_words(words)] += 1


def plain_words(text: str) -> str:
    """The first line of a refusal, without what differs from history to history."""
    text = text.split("\n", 1)[0]
    text = re.sub(r"(sqlite|postgresql)://\S*?(?=[,:]? |$)", "the database", text)
    text = re.sub(r"/\S*/(f\d\.\w+)", r"\1", text)
    text = re.sub(r"/\S+", "…", text)
    text = re.sub(r"\b[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}\b", "…", text)
    text = re.sub(r"(…, )+…", "…", text)
    return re.sub(r"\d+(\.\d+)?", "N", text)[:LONGEST]


def keep_world(tally: Tally, commit: str) -> None:
    """Print the tally in a line, and add it to the file of evidence if there is one."""
    line = json.dumps({"world": {**vars(tally), "commit": commit}}, ensure_ascii=False)
    print(f"{tally.store}: {tally.histories} histories, {sum(tally.acts.values())} acts, {tally.rules} rules judged, ")
    print(f"  {len(tally.pairs)} pairs of acts, {sum(tally.refusals.values())} refusals, {tally.violations} violations")
    if path := os.environ.get("HEADRACE_EVIDENCE"):
        with Path(path).open("a") as file:
            file.write(line + "\n")


def page(lines: Sequence[Mapping[str, Any]]) -> str:
    """The lines as Markdown: sums by store, acts, pairs that were never tried, refusals."""
    text = [
        "| store | commit | seeds | histories | acts | pairs of acts | rules judged | refusals | violations |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    stores = sorted({one["store"] for one in lines})
    for store in stores:
        of_store = [one for one in lines if one["store"] == store]
        seeds = sorted(seed for one in of_store for seed in one["seeds"])
        pairs = _sum(of_store, "pairs")
        cells = [
            store,
            ", ".join(sorted({one["commit"] for one in of_store})),
            f"{seeds[0]} to {seeds[-1]}" if seeds else "",
            *(f"{sum(one[name] for one in of_store):,}" for name in ("histories",)),
            f"{sum(_sum(of_store, 'acts').values()):,}",
            f"{len(pairs)}",
            *(f"{sum(one['rules'] for one in of_store):,}",),
            f"{sum(_sum(of_store, 'refusals').values()):,}",
            f"{sum(one['violations'] for one in of_store):,}",
        ]
        text.append(f"| {' | '.join(cells)} |")
    text += ["", "| act | how it ended |", "|---|---|"]
    ended: dict[str, Counter[str]] = {}
    for name, count in sorted(_sum(lines, "acts").items()):
        act, _, how = name.partition(": ")
        ended.setdefault(act, Counter())[how] += count
    text += [
        f"| {act} | {', '.join(f'{how} {count:,}' for how, count in hows.most_common())} |"
        for act, hows in sorted(ended.items())
    ]
    for store in stores:
        untried = _untried([one for one in lines if one["store"] == store])
        text += ["", f"Pairs of acts that were never tried on {store}, of those that could be: {untried}."]
    text += ["", "| refusal, in its own words | times |", "|---|--:|"]
    text += [f"| {words.replace('|', '¦')} | {count:,} |" for words, count in _sum(lines, "refusals").most_common()]
    return "\n".join(text)


def _sum(lines: Sequence[Mapping[str, Any]], name: str) -> Counter[str]:
    return sum((Counter(one[name]) for one in lines), Counter())


def _untried(lines: Sequence[Mapping[str, Any]]) -> str:
    """How many pairs there are of the acts that were tried, and which of them were not; the first few are named."""
    pairs = _sum(lines, "pairs")
    acts = sorted({name.partition(": ")[0] for name in _sum(lines, "acts")})
    missing = [f"{one} → {other}" for one in acts for other in acts if f"{one} → {other}" not in pairs]
    named = f": {'; '.join(missing[:NAMED])}{' …' if len(missing) > NAMED else ''}" if missing else ""
    return f"{len(missing)} of {len(acts) ** 2}{named}"
