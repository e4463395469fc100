"""Enrichment: the user's function `enrich` adds columns to new events, in the process that commits them.

new events ──► enrich(batch) ──► the same rows, with columns added ──► the table, widened where it lacks them
│ raises
└─► the run fails with the user's own traceback; or, with on_error="reject", the batch is halved
until the rows that make it fail are found: they become rejects, the others go on
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar, get_args

import pyarrow as pa

from headrace.errors import ConfigurationError, HeadraceError, WorkerError, no_room
from headrace.events.choices import OnError
from headrace.events.user_code import require_sendable
from headrace.partitioning.contract import arrow_type, logical_type
from headrace.reading.types.value_text import kept
from headrace.storage.records import EVENT_ID, RESERVED_COLUMNS
from headrace.storage.rejects import Reject

__all__ = [
    "Enrich",
    "Enriched",
    "Enrichment",
    "guarded",
    "halved",
    "load_function",
    "parts_of",
    "rejects_of",
]

Enrich = Callable[[pa.RecordBatch], pa.RecordBatch]
Result = TypeVar("Result")
# so few rows are tried one by one: among them halving saves no calls
FEW = 4


@dataclass(frozen=True, slots=True)
class Enrichment:
    """A function, given itself or as ``module:function``, and the treatment of rows that make it fail."""

    function: Enrich | str
    on_error: OnError = "fail"

    def __post_init__(self) -> None:
        if self.on_error not in get_args(OnError):
            raise ConfigurationError(f"--on-error cannot be {self.on_error!r}", hint="choose fail or reject")

    @property
    def name(self) -> str:
        """The function's name, as the user knows it."""
        if isinstance(self.function, str):
            return self.function
        return f"{self.function.__module__}:{getattr(self.function, '__qualname__', repr(self.function))}"

    def require_sendable(self) -> None:
        """Raises `ConfigurationError` for a function that cannot be sent to another process."""
        require_sendable(self.function, self.name)

    def resolve(self) -> Enrich:
        """The function itself. Raises `ConfigurationError` if it does not exist."""
        return load_function(self.function) if isinstance(self.function, str) else self.function


@dataclass(frozen=True, slots=True)
class Enriched:
    """The events with their new columns, and the positions of the rows that `failed`, with the reason.

    `without_value` are columns that were added without a type, because no event has a value in them.
    """

    events: pa.RecordBatch
    failed: Sequence[tuple[int, str]]
    without_value: Sequence[str] = ()


def load_function(spec: str) -> Callable[..., Any]:
    """Load the function named by ``module:function``. Raises `ConfigurationError`, which says what is missing."""
    module, colon, name = spec.partition(":")
    if not colon or not module or not name:
        raise ConfigurationError(f"{spec!r} is not MODULE:FUNCTION", hint="for example --enrich geo.lookup:add_country")
    try:
        found: object = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"{spec!r} cannot be imported ({error})",
            hint="the module must be importable: in this folder, on PYTHONPATH, or installed",
        ) from error
    if not callable(found):
        raise ConfigurationError(f"{spec!r} is a {type(found).__name__}, not a function")
    return found


def parts_of(
    enrichment: Enrichment, events: pa.RecordBatch, where: str
) -> tuple[list[pa.RecordBatch], list[tuple[int, str]]]:
    """`events` as the function returns them, in one or several batches, and the rows on which it fails.

    Raises `WorkerError` with its traceback if it fails and failures are not allowed.
    """
    function = enrichment.resolve()
    rejecting = enrichment.on_error == "reject"

    def enriched(part: pa.RecordBatch) -> pa.RecordBatch:
        return guarded(lambda: _with_added(part, function(part)), enrichment.name, where, traced=not rejecting)

    if not rejecting:
        return [enriched(events)], []
    parts = list(halved(enriched, events))
    failed = [(row, reason) for at, batch, reason in parts if batch is None for row in at]
    return [batch for _, batch, _ in parts if batch is not None], failed


def rejects_of(
    events: pa.RecordBatch, failed: Sequence[tuple[int, str]], places: Sequence[tuple[str, int | None]]
) -> list[Reject]:
    """The failed rows of `events` as rejects; `places` are the source and the row number of each."""
    return [_reject(events, at, reason, place) for (at, reason), place in zip(failed, places, strict=True)]


def _reject(events: pa.RecordBatch, at: int, reason: str, place: tuple[str, int | None]) -> Reject:
    names = [name for name in events.schema.names if name not in RESERVED_COLUMNS]
    record = json.dumps({name: kept(events.column(name)[at]) for name in names}, ensure_ascii=False)
    source, row = place
    return Reject(source, row, None, None, reason, record, record, "prepare")


def halved(
    work: Callable[[pa.RecordBatch], Result], events: pa.RecordBatch
) -> Iterator[tuple[range, Result | None, str]]:
    """The results of `work` for the parts of the batch on which it succeeds, and the single rows on which it fails, in
    row order.

    Only rows that fail by themselves are given up. If b of n rows fail, `work` is called about 2 b log2(n / b) times;
    if every row fails, some 1.5 times for each row.
    """
    left = [range(events.num_rows)]
    while left:
        rows = left.pop()
        try:
            yield rows, work(events.slice(rows.start, len(rows))), ""
        except WorkerError as error:
            if len(rows) == 1:
                yield rows, None, error.what
            else:
                left += reversed(_parts(rows))


def _parts(rows: range) -> list[range]:
    """What is tried where `rows` fail together: the halves, or each of a few."""
    size = (len(rows) + 1) // 2 if len(rows) > FEW else 1
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def guarded(work: Callable[[], Result], name: str, where: str, *, traced: bool = True) -> Result:
    """Return the result of `work`, which calls the user's code `name`. Raises `WorkerError` for every error in it.

    With `traced` the error has the user's traceback, which takes longer than most such functions.
    """
    try:
        return work()
    except HeadraceError as error:
        raise WorkerError(f"{name} {error.what}", where=where, hint=_HINT) from None
    except KeyboardInterrupt:
        raise  # somebody wants this to end, whatever it does just now
    except BaseException as error:  # sys.exit(0) in a function must not end a load as if it were done
        if no_room(error):
            raise  # says something about the worker, not about the rows
        failure = WorkerError(f"{name} raised {type(error).__name__}: {error}", where=where, hint=_HINT)
        if traced:
            failure.add_note("".join(traceback.format_exception(error)))
        raise failure from None


_HINT = (
    "correct the function and run the same command again to resume, or keep such rows as rejects with --on-error reject"
)


def _with_added(events: pa.RecordBatch, result: object) -> pa.RecordBatch:
    """`events` with the columns that `result` adds, in canonical types. Raises `WorkerError` for anything else."""
    if not isinstance(result, pa.RecordBatch):
        raise WorkerError(f"returned a {type(result).__name__}, not a pyarrow.RecordBatch")
    if result.num_rows != events.num_rows:
        raise WorkerError(f"returned {result.num_rows} rows for {events.num_rows}: it may add columns, not rows")
    if EVENT_ID in result.schema.names and not result.column(EVENT_ID).equals(events.column(EVENT_ID)):
        raise WorkerError("returned the rows in another order")
    added = [name for name in result.schema.names if name not in events.schema.names]
    every = dict(zip(events.schema.names, events.columns, strict=True))
    return pa.RecordBatch.from_pydict(every | {name: _canonical(result.column(name)) for name in added})


def _canonical(column: pa.Array) -> pa.Array:
    if pa.types.is_null(column.type):
        return column
    name = logical_type(column.type)
    wanted = pa.decimal128(38, column.type.scale) if name == "decimal" else arrow_type(name)
    return column if column.type.equals(wanted) else column.cast(wanted)
