"""The options of a load, recorded with its run: the same inputs with other options do not begin anew in silence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from headrace.reading.inputs import Input
from headrace.storage.records import RunRecord

__all__ = ["asked_text", "left_unfinished"]

_APART = ("table", "inputs")  # these say which load it is, not how it was told to go about it


def asked_text(job: Mapping[str, object]) -> str:
    """The options that define a job, without its table and inputs, as JSON text."""
    return json.dumps({name: one for name, one in job.items() if name not in _APART}, sort_keys=True, default=str)


def left_unfinished(runs: Iterable[RunRecord], inputs: Sequence[Input], asked: str) -> str | None:
    """A sentence about the newest of the unfinished `runs` over the same `inputs` with other options."""
    same = sorted([item.name, item.fingerprint] for item in inputs)
    for run in runs:
        if sorted([one.get("name"), one.get("fingerprint")] for one in json.loads(run.inputs)) == same:
            told = ", ".join(_differences(json.loads(run.asked), json.loads(asked))) if run.asked else "other options"
            return (
                f"run {run.run_id} of the same inputs is unfinished or still running, and is left unchanged "
                f"({told or 'it has another contract'}); a load with the same options resumes it"
            )
    return None


def _differences(then: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """What was told otherwise then."""
    before, after = _flat(then), _flat(now)
    return [
        f"{name} was {_shown(before.get(name))}, now {_shown(after.get(name))}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _flat(told: Mapping[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, one in told.items():
        value = json.loads(one) if name == "contract" and isinstance(one, str) else one
        if isinstance(value, dict):
            flat |= {str(inner): each for inner, each in value.items()}
        else:
            flat[name] = value
    return flat


def _shown(value: object) -> str:
    return "not said" if value in (None, [], {}) else json.dumps(value, ensure_ascii=False)
