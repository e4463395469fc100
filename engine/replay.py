"""Rejects, run again: each kept row goes the way of any other row, under the address it had.

    kept rejects ──► grouped by source and stage ──► mended (--set, --raw) ──► ingest ──► marked ``replayed``

A replayed row keeps its identity, because its values, provider and contract are the same. One that fails again becomes
a new reject with the new reason, in the transaction that settles the old one: no reject is ever lost. A revision takes
its event's row if it is newer, where ``revisions`` is ``update``; otherwise it is left alone.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Any

import pyarrow as pa

from headrace.agreement import in_stored_timezone
from headrace.chunk import Chunk
from headrace.config import LoadOptions
from headrace.errors import UsageError
from headrace.ingest import ingest
from headrace.partitioning.contract import LogicalType
from headrace.reasons import restored
from headrace.report import Report
from headrace.source import Input, ReadOptions, open_inputs
from headrace.storage.base import Store
from headrace.storage.rejects import Reject, StoredReject

__all__ = ["BATCH", "batches", "mended", "replay", "reread", "without_revisions"]

# One batch is one chunk, so that it is settled in one transaction.
BATCH = 10_000
DELIMITERS = (",", "\t", ";", "|")


@dataclass(frozen=True, slots=True)
class _Reading:
    """How the run that kept a reject read its source: the source's own columns in order, with types, and the select."""

    columns: Mapping[str, LogicalType]
    select: str | None


def replay(
    store: Store,
    rejects: Sequence[StoredReject],
    options: LoadOptions,
    *,
    changes: Mapping[str, str | None] | None = None,
) -> list[Report]:
    """Load `rejects` again, with `changes` (column to text) applied to each; one report for each batch.

    A reject that could not be split into columns stays as it is: see `mended`.
    """
    return [_replay_batch(store, batch, options, changes or {}) for batch in batches(rejects)]


def batches(rejects: Sequence[StoredReject]) -> Iterator[list[StoredReject]]:
    """Those of `rejects` that have columns, in batches that were read alike, of 10,000 at most."""
    ordered = sorted((one for one in rejects if one.reject.record is not None), key=_group)
    for _, group in groupby(ordered, key=_group):
        rows = iter(group)
        while batch := list(islice(rows, BATCH)):
            yield batch


def without_revisions(
    rejects: Sequence[StoredReject], options: LoadOptions, *, named: bool
) -> tuple[list[StoredReject], int]:
    """The rejects that can be replayed under `options`, and how many are left: a revision has its event in the table,
    and can only take its row, if it is newer. Raises `UsageError` for one that was `named`.
    """
    if options.revisions == "update":
        return list(rejects), 0
    left = [one.reject_id for one in rejects if one.reject.stage == "revision"]
    if left and named:
        raise UsageError(
            f"{_numbered(left)} of an event that is in the table already",
            hint="let it take the event's row, if it is newer, with --revisions update --version-column COL "
            "(--set COL=… can make it so); or let it go: headrace rejects discard",
        )
    return [one for one in rejects if one.reject.stage != "revision"], len(left)


def mended(store: Store, stored: StoredReject, raw: str) -> StoredReject:
    """`stored` with the row `raw` in its place: a JSON object, or a line of the file it came from.

    Raises `UsageError` if `raw` does not have the file's columns: no value goes to a column it was not meant for.
    """
    return replace(stored, reject=replace(stored.reject, raw=raw, record=json.dumps(_split(store, stored, raw))))


def _numbered(rejects: Sequence[int]) -> str:
    if len(rejects) == 1:
        return f"reject {rejects[0]} is a revision"
    return f"{len(rejects)} of these rejects (the first is {rejects[0]}) are revisions"


def _group(stored: StoredReject) -> tuple[str, str, str, str, str]:
    return stored.table, stored.provider, stored.run_id, stored.reject.source, stored.reject.stage


def _replay_batch(
    store: Store, batch: Sequence[StoredReject], options: LoadOptions, changes: Mapping[str, str | None]
) -> Report:
    item, options = reread(store, batch, options, changes)
    return ingest(store, [item], batch[0].table, options, replayed=[one.reject_id for one in batch])


def reread(
    store: Store, batch: Sequence[StoredReject], options: LoadOptions, changes: Mapping[str, str | None]
) -> tuple[Input, LoadOptions]:
    """A batch (of `batches`) as an input in the order of its rejects, with the options with which it was read."""
    first = batch[0]
    reading = _reading(store, first)
    select = (options.read.select or reading.select) if first.reject.stage == "read" else None
    types = reading.columns if select else {}
    read = replace(options.read, select=select, types=types, chunk_rows=BATCH, chunk_bytes=1 << 40)
    options = replace(options, table=first.table, provider=first.provider, read=read)
    options = in_stored_timezone(store, first.table, options)
    records = [{**_values(json.loads(one.reject.record or "{}")), **changes} for one in batch]
    if select is None:
        records = _without_nothing(records, store.table_schema(first.table, keyed=False))
    (inner,) = open_inputs([records], options.read, None)
    return _Replayed(inner, [one.reject for one in batch]), options


def _without_nothing(records: list[dict[str, object]], present: pa.Schema | None) -> list[dict[str, object]]:
    """`records` without the columns that the table lacks and in which none of them has a value: they say nothing."""
    names = {name for record in records for name in record} - set(() if present is None else present.names)
    empty = {name for name in names if all(record.get(name) is None for record in records)}
    return [{name: value for name, value in record.items() if name not in empty} for record in records]


def _reading(store: Store, stored: StoredReject) -> _Reading:
    run = store.run(stored.run_id)
    inputs = [] if run is None else json.loads(run.inputs)
    found: dict[str, Any] = next((one for one in inputs if one["name"] == stored.reject.source), {})
    return _Reading(found.get("columns", {}), found.get("select"))


def _split(store: Store, stored: StoredReject, raw: str) -> dict[str, str | None]:
    try:
        parsed = json.loads(raw)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        return _texts(parsed)
    columns = _reading(store, stored).columns
    for delimiter in DELIMITERS:
        fields = next(csv.reader([raw], delimiter=delimiter), [])
        if columns and len(fields) == len(columns):
            return {name: value or None for name, value in zip(columns, fields, strict=True)}
    raise UsageError(
        f"this is no row of {', '.join(columns)}" if columns else "the columns of the file are not known any more",
        where=f"reject {stored.reject_id}, {stored.reject.source}",
        hint='give a field for each of them, or a JSON object: --raw \'{"column": "value", …}\'',
    )


def _texts(record: Mapping[str, object]) -> dict[str, str | None]:
    return {name: _text(value) for name, value in record.items()}


def _values(record: Mapping[str, object]) -> dict[str, object]:
    """A record's texts, and bytes where it holds some."""
    return {name: restored(value) for name, value in record.items()}


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


@dataclass(slots=True)
class _Replayed:
    """Kept rows as an input under the name of the source they came from."""

    inner: Input
    rejects: list[Reject]
    durable: bool = False

    @property
    def name(self) -> str:
        return self.rejects[0].source

    @property
    def fingerprint(self) -> str:
        return self.inner.fingerprint

    @property
    def size(self) -> int | None:
        return None

    @property
    def share_read(self) -> float:
        return 0.0

    @property
    def count(self) -> int | None:
        return self.inner.count

    def infer(self, options: ReadOptions) -> pa.Schema:
        return self.inner.infer(options)

    def columns(self) -> list[str]:
        return self.inner.columns()

    def is_empty(self) -> bool:
        return self.inner.is_empty()

    def locate(self, rows: Sequence[int]) -> dict[int, tuple[int | None, str | None]]:
        return {row: (self.rejects[row].line, self.rejects[row].raw) for row in rows}

    def chunks(self, schema: pa.Schema, options: ReadOptions) -> Iterator[Chunk]:
        for chunk in self.inner.chunks(schema, options):
            address = replace(chunk.address, source=self.name)
            yield replace(chunk, address=address, rejects=[self._readdressed(one) for one in chunk.rejects])

    def _readdressed(self, again: Reject) -> Reject:
        before = self.rejects[again.row] if again.row is not None else self.rejects[0]
        return replace(again, source=before.source, row=before.row, line=before.line, raw=before.raw)
