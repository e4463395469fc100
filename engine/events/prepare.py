"""Preparing a chunk: typed rows in, identified events out. Pure and stateless, so that any worker may run it.

    chunk ──► refuse what no event can be made of ──► encode, hash ──► event IDs
              (no identity, NaN or infinity in it,
               no event time, NUL in a text, years
               that no database holds)

Whole columns at a time; the only per-row step is the hash call inside `headrace.partitioning.identity`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.errors import SchemaError
from headrace.partitioning.contract import Contract, LogicalType, logical_type
from headrace.partitioning.encoding import blank, unencodable
from headrace.partitioning.identity import (
    digest_of,
    event_ids,
    ids_from_arrow,
    ids_to_arrow,
    times_us,
    unplaceable,
    whole_row_ids,
)
from headrace.reading.chunk import Chunk
from headrace.reading.types.value_text import kept
from headrace.runtime.parcel import MemoryParcel, Parcel
from headrace.storage.records import Address
from headrace.storage.rejects import Reject
from headrace.storage.spans import Span
from headrace.storage.sql.limits import Limits, beyond

__all__ = ["Prepared", "moment_of", "numbers_of", "prepare"]

Mask = NDArray[np.bool_]
# days since 1970: the first of the year -4712, a month after PostgreSQL's calendar begins, and the last of 32767
_FIRST_DAY, _LAST_DAY = -2_440_550, 11_248_737
_US_PER_DAY = 86_400_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The identified events of one chunk in input order.

    `events` are the rows that can be identified. `identity` has their IDs, their times, and their numbers within the
    chunk unless each row of the chunk is there; with a select, rows are not `numbered`. `digest` identifies the
    content, so that a resumed run notices changes; `spans` are the times of its stages.
    """

    address: Address
    events: Parcel
    identity: Parcel
    numbered: bool
    rejects: list[Reject]
    read: int
    digest: str
    spans: tuple[Span, ...] = field(default=(), repr=False, compare=False)

    @property
    def ids(self) -> NDArray[np.uint8]:
        """The event IDs, shape (rows, 16): a view where the parcel is one."""
        return ids_from_arrow(self.identity.open().column("id"))

    @property
    def times_us(self) -> NDArray[np.int64] | None:
        """The event times in microseconds since 1970 UTC, ``None`` without a time column."""
        identity = self.identity.open()
        return identity.column("time_us").to_numpy() if "time_us" in identity.schema.names else None

    @property
    def rows(self) -> NDArray[np.int64] | None:
        """The 0-based numbers in the input of the rows, ``None`` if a select was applied."""
        return numbers_of(self.identity.open(), self.address) if self.numbered else None

    def behind(self, rows: int, lines: int) -> Prepared:
        """The same chunk `rows` rows and `lines` lines further on in the input."""
        address = replace(self.address, first_row=self.address.first_row + rows)
        return replace(self, address=address, rejects=[reject.behind(rows, lines) for reject in self.rejects])

    def discard(self) -> None:
        """Give back the chunk's rows."""
        self.events.discard()
        self.identity.discard()


def prepare(
    chunk: Chunk, contract: Contract, provider: str, key: bytes | None = None, limits: Limits | None = None
) -> Prepared:
    """Identify the events of `chunk` under `contract`; rows without a possible identity become rejects, and so do those
    with a value that exceeds the `limits` of the table's column.
    """
    refused, rejects = _refuse(chunk, contract, limits or {})
    events, rows = chunk.batch, chunk.rows
    if rejects:
        events = events.filter(pa.array(~refused))
        rows = None if rows is None else rows[~refused]
    columns = [_of_pinned_type(events.column(name), name, kind) for name, kind in contract.identity]
    times = events.column(contract.time) if contract.time else None
    ids = event_ids(contract, columns, times, provider, key)
    if contract.others:
        _tell_by_whole_row(ids, events, contract, provider, key)
    identity = {"id": ids_to_arrow(ids)}
    if times is not None:
        identity["time_us"] = pa.array(times_us(times))
    if rows is not None and len(rows) != chunk.address.rows:
        identity["row"] = pa.array(rows - chunk.address.first_row)
    every = sorted([*chunk.rejects, *rejects], key=lambda reject: reject.row or 0)
    return Prepared(
        address=chunk.address,
        events=MemoryParcel(events),
        identity=MemoryParcel(pa.RecordBatch.from_pydict(identity)),
        numbered=rows is not None,
        rejects=every,
        read=len(ids) + len(every),
        digest=digest_of(ids),
    )


def numbers_of(identity: pa.RecordBatch, address: Address) -> NDArray[np.int64]:
    """The 0-based numbers in the input of the rows of a chunk at `address` that have this `identity`."""
    if "row" not in identity.schema.names:
        return np.arange(address.first_row, address.first_row + identity.num_rows, dtype=np.int64)
    numbers: NDArray[np.int64] = identity.column("row").to_numpy() + address.first_row
    return numbers


def moment_of(us: int | None) -> datetime | None:
    """Microseconds since 1970 UTC as an aware time; ``None`` also for what Python's calendar does not hold."""
    try:
        return None if us is None else EPOCH + timedelta(microseconds=us)
    except OverflowError:
        return None


def _tell_by_whole_row(
    ids: NDArray[np.uint8], events: pa.RecordBatch, contract: Contract, provider: str, key: bytes | None
) -> None:
    """Give the events without identity, in place, the IDs that their whole rows have."""
    missing = blank(_identity(events, contract))
    if missing is not None:
        rows = events.filter(pa.array(missing))
        ids[missing] = whole_row_ids(contract, _others(rows, contract), provider, key)


def _identity(batch: pa.RecordBatch, contract: Contract) -> list[pa.Array]:
    return [batch.column(name) for name, _ in contract.identity]


def _others(batch: pa.RecordBatch, contract: Contract) -> list[tuple[str, pa.Array]]:
    """The columns that tell an event without identity from others, as far as the input has them."""
    here = [(name, kind) for name, kind in contract.others if name in batch.schema.names]
    return [(name, _of_pinned_type(batch.column(name), name, kind)) for name, kind in here]


def _of_pinned_type(column: pa.Array, name: str, kind: LogicalType) -> pa.Array:
    """`column`, which must have been cast to the contract's type: another one would give the event another ID."""
    found = logical_type(column.type)
    if found != kind:
        raise SchemaError(
            f"the input has the column as {found}, but the contract has it as {kind}",
            where=f"column {name}",
            hint="change the table's column back to its type, which `headrace doctor` names",
        )
    return column


def _refuse(chunk: Chunk, contract: Contract, limits: Limits) -> tuple[Mask, list[Reject]]:
    refused: Mask = np.zeros(chunk.batch.num_rows, dtype=np.bool_)
    rejects: list[Reject] = []
    for column, reason, bad in _objections(chunk.batch, contract, limits):
        fresh = bad & ~refused
        refused |= fresh
        rejects += [_reject(chunk, int(at), column, reason) for at in np.flatnonzero(fresh)]
    return refused, rejects


def _objections(batch: pa.RecordBatch, contract: Contract, limits: Limits) -> Iterator[tuple[str | None, str, Mask]]:
    """Each rule that a row can break: the column, the reason, and which rows break it (only where any does)."""
    yield from _against_missing(batch, contract)
    if contract.time is not None:
        yield from _against_times(contract.time, batch.column(contract.time), contract.layout)
    for name, kind in contract.identity:
        if kind == "float":
            yield from _found(name, "NaN or infinity cannot identify an event", unencodable(batch.column(name)))
    yield from beyond(batch, limits)
    for name in batch.schema.names:
        column = batch.column(name)
        if pa.types.is_temporal(column.type):
            yield from _found(name, "the year is outside -4712 to 32767, which databases can hold", _beyond(column))
        if pa.types.is_string(column.type):
            holds_nul = _mask(pc.match_substring(column, "\0"))
            yield from _found(name, "the text holds a NUL character, which databases refuse", holds_nul)


def _against_missing(batch: pa.RecordBatch, contract: Contract) -> Iterator[tuple[str | None, str, Mask]]:
    """Rows without identity. Where the whole row stands for a missing identity, only empty rows are refused."""
    missing = blank(_identity(batch, contract))
    if missing is None:
        return
    names = list(dict(contract.identity))
    column, are = (names[0], f"{names[0]} is empty") if len(names) == 1 else (None, f"{', '.join(names)} are empty")
    others = _others(batch, contract)
    if not others:
        yield column, f"no identity: {are}", missing
        return
    nothing = blank([values for _, values in others])
    if nothing is not None:
        yield from _found(column, f"no identity: {are}, and so is the rest of the row", missing & nothing)
    for name, values in others:
        strange = missing & unencodable(values)
        yield from _found(
            name, "NaN or infinity cannot identify an event, and the event has no other identity", strange
        )


def _beyond(column: pa.Array) -> Mask:
    """Which dates or times are before PostgreSQL's calendar, or in a year that Arrow cannot write for SQLite."""
    first, last, values = (
        _FIRST_DAY,
        _LAST_DAY,
        column.view(pa.int32() if pa.types.is_date(column.type) else pa.int64()),
    )
    if not pa.types.is_date(column.type):
        first, last = first * _US_PER_DAY, (last + 1) * _US_PER_DAY - 1
    return _mask(pc.or_(pc.less(values, first), pc.greater(values, last)))


def _against_times(name: str, times: pa.Array, layout: str) -> Iterator[tuple[str | None, str, Mask]]:
    yield from _found(name, "no event time: the time column is null", _mask(times.is_null()))
    if layout == "time":
        beyond = "the event time is outside the years 1 to 8920, which an ID can hold"
        yield from _found(name, beyond, unplaceable(times))


def _found(column: str | None, reason: str, bad: Mask) -> Iterator[tuple[str | None, str, Mask]]:
    if bad.any():
        yield column, reason, bad


def _mask(array: pa.BooleanArray) -> Mask:
    filled: Mask = pc.fill_null(array, False).to_numpy(zero_copy_only=False)
    return filled


def _reject(chunk: Chunk, at: int, column: str | None, reason: str) -> Reject:
    record = json.dumps(_as_text(chunk.batch.slice(at, 1)), ensure_ascii=False)
    row = None if chunk.rows is None else int(chunk.rows[at])
    return Reject(chunk.address.source, row, None, column, reason, record, record, "prepare")


def _as_text(row: pa.RecordBatch) -> dict[str, str | dict[str, str] | None]:
    return {name: _text(row.column(name)[0]) for name in row.schema.names}


def _text(value: pa.Scalar) -> str | dict[str, str] | None:
    if not value.is_valid:
        return None
    if pa.types.is_binary(value.type):
        return kept(value)
    if pa.types.is_floating(value.type):
        return str(value.as_py())
    try:
        return str(value.cast(pa.string()).as_py())
    except pa.ArrowInvalid:  # a year beyond those that Arrow writes
        return kept(value)
