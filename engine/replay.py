"""Rejects, run again: each kept row goes the way of any other row, under the address it had.

    kept rejects ──► grouped by source and stage ──► mended (--set, --raw) ──► ingest ──► marked ``replayed``

A replayed row keeps its identity, because its values, provider and contract are the same. One that fails again becomes
a new reject with the new reason, in the transaction that settles the old one: no reject is ever lost.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice

import pyarrow as pa

from headrace.config import LoadOptions
from headrace.errors import UsageError
from headrace.ingest import ingest
from headrace.report import Report
from headrace.source import Chunk, Input, ReadOptions, open_inputs
from headrace.storage.base import Reject, Store, StoredReject

__all__ = ["replay"]

# One batch is one chunk, so that it is settled in one transaction.
BATCH = 10_000


def replay(
    store: Store,
    rejects: Sequence[StoredReject],
    options: LoadOptions,
    *,
    changes: Mapping[str, str | None] | None = None,
) -> list[Report]:
    """Load `rejects` again, with `changes` (column to text) applied to each; one report for each batch.

    Raises `UsageError` for a reject that could not be split into columns and is not given as JSON either.
    """
    ordered = sorted(rejects, key=_group)
    return [
        _replay_batch(store, batch, options, changes or {})
        for _, group in groupby(ordered, key=_group)
        for batch in _batches(group)
    ]


def _group(stored: StoredReject) -> tuple[str, str, str, str]:
    return stored.table, stored.provider, stored.reject.source, stored.reject.stage


def _batches(group: Iterable[StoredReject]) -> Iterator[list[StoredReject]]:
    rows = iter(group)
    while batch := list(islice(rows, BATCH)):
        yield batch


def _replay_batch(
    store: Store, batch: Sequence[StoredReject], options: LoadOptions, changes: Mapping[str, str | None]
) -> Report:
    first = batch[0]
    select = options.read.select if first.reject.stage == "read" else None
    read = replace(options.read, select=select, chunk_rows=BATCH, chunk_bytes=1 << 40)
    options = replace(options, table=first.table, provider=first.provider, read=read)
    records = [{**_record(store, one), **changes} for one in batch]
    (inner,) = open_inputs([records], read, None)
    item = _Replayed(inner, [one.reject for one in batch])
    return ingest(store, [item], first.table, options, replayed=[one.reject_id for one in batch])


def _record(store: Store, stored: StoredReject) -> dict[str, str | None]:
    if stored.reject.record is not None:
        return {name: _text(value) for name, value in json.loads(stored.reject.record).items()}
    return _split(store, stored)


def _split(store: Store, stored: StoredReject) -> dict[str, str | None]:
    """A row that the reader could not split: JSON as it stands, else as one CSV line in the table's column order."""
    try:
        parsed = json.loads(stored.reject.raw)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        return {name: _text(value) for name, value in parsed.items()}
    columns = (store.table_schema(stored.table) or pa.schema([])).names
    fields = next(csv.reader([stored.reject.raw]), [])
    if len(fields) != len(columns):
        raise UsageError(
            f"reject {stored.reject_id} has {len(fields)} fields where the table has {len(columns)} columns",
            where=f"{stored.reject.source}, line {stored.reject.line}",
            hint=f"mend it: headrace rejects replay {stored.reject_id} --raw 'the line as it should be'",
        )
    return {name: value or None for name, value in zip(columns, fields, strict=True)}


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

    def infer(self, options: ReadOptions) -> pa.Schema:
        return self.inner.infer(options)

    def columns(self) -> list[str]:
        return self.inner.columns()

    def locate(self, rows: Sequence[int]) -> dict[int, tuple[int | None, str | None]]:
        return {row: (self.rejects[row].line, self.rejects[row].raw) for row in rows}

    def chunks(self, schema: pa.Schema, options: ReadOptions) -> Iterator[Chunk]:
        for chunk in self.inner.chunks(schema, options):
            address = replace(chunk.address, source=self.name)
            yield replace(chunk, address=address, rejects=[self._readdressed(one) for one in chunk.rejects])

    def _readdressed(self, again: Reject) -> Reject:
        before = self.rejects[again.row] if again.row is not None else self.rejects[0]
        return replace(again, source=before.source, row=before.row, line=before.line, raw=before.raw)
