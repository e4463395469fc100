"""``headrace profile``: print what the profile found, and write the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headrace.cli.load import options
from headrace.errors import UsageError
from headrace.observability.page import write_page
from headrace.observability.perfetto import write_trace
from headrace.observability.recorder_files import require_writable
from headrace.profiling.profile import profile as profile_inputs
from headrace.runtime.interrupt import stopping
from headrace.runtime.scratch import sweep

__all__ = ["How", "profile"]

FAILED = 1


@dataclass(frozen=True, slots=True)
class How:
    """How a profile is made: rows of the sample (0: all), the workers to consider (``None``: any), where, and whether
    its prediction is checked.
    """

    rows: int
    workers: int | None
    in_place: bool
    check: bool


def profile(inputs: Sequence[str], how: How, told: Mapping[str, Any]) -> int:
    """``headrace profile``. 4 if both ways did not give the same table. Raises `UsageError` without inputs."""
    if not inputs:
        raise UsageError("there is nothing to profile", hint="name the inputs, or --history for what was loaded")
    load_options, page, trace = options(told), told["report"], told["trace"]
    for file in filter(None, (page, trace)):
        require_writable(Path(file))
    with stopping(sweep):
        result = profile_inputs(
            load_options,
            inputs,
            rows=how.rows,
            workers=how.workers,
            in_place=how.in_place,
            check=how.check,
        )
    if trace is not None:
        write_trace(Path(trace), result.sequential.recorded)
    if page is not None:
        recorded = result.sequential.recorded
        recorded.remarks = result.remarks
        if recorded.facts is not None:
            recorded.facts = replace(recorded.facts, database=result.database)  # not the trial's
        write_page(Path(page), recorded, beside=result.parallel.recorded)
    print(
        json.dumps(result.to_dict(), ensure_ascii=False, default=str) if told["output"] == "json" else result.to_text()
    )
    return 0 if result.trustworthy else 4
