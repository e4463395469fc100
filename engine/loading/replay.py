"""Replaying rejects: each kept row is loaded like any other row, under its old address.

    kept rejects ──► grouped by source and stage ──► mended (--set, --raw) ──► ingest ──► marked ``replayed``

A replayed row keeps its identity, because its values, provider and contract are the same. A row that fails again
becomes a new reject with the new reason, which names the reject that it replaces. The transaction that commits a row or
its new reject also settles the old reject: after a kill, the other rejects are still kept, and can be replayed again.
Of two concurrent replays the second finds a reject settled, and takes the others. A revision replaces its event's row
if it is newer and ``revisions`` is ``update``; otherwise it is skipped.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from typing import Any

import pyarrow as pa

from headrace.errors import HeadraceError, Interrupted, RetryableStoreError, SchemaError, SettledError, UsageError
from headrace.loading.agreement import in_stored_timezone
from headrace.loading.run import ingest
from headrace.observability.progress import Progress
from headrace.options.load import LoadOptions
from headrace.partitioning.contract import LogicalType
from headrace.reading.chunk import Chunk
from headrace.reading.inputs import Input, ReadOptions, open_inputs
from headrace.reading.types.value_text import restored
from headrace.report import Report
from headrace.storage.records import Counts
from headrace.storage.rejects import StoredReject
from headrace.storage.store import Store

__all__ = ["BATCH", "ReplayOutcome", "batches", "mended", "replay", "replay_all", "reread", "without_revisions"]

# one batch is one chunk
BATCH = 10_000
DELIMITERS = (",", "\t", ";", "|")


@dataclass(frozen=True, slots=True)
class _Reading:
    """How the run that kept a reject read its source: the source's own columns in order, with types, and the select."""

    columns: Mapping[str, LogicalType]
    select: str | None


@dataclass(slots=True)
class ReplayOutcome:
    """The outcome of a replay: the `reports` of the runs, the books of all runs, how many rejects somebody else
    `settled` meanwhile, the new rejects (`again`), and the `errors` that ended some batches.
    """

    reports: list[Report] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    settled: int = 0
    again: list[StoredReject] = field(default_factory=list)
    errors: list[HeadraceError] = field(default_factory=list)


def replay(
    store: Store,
    rejects: Sequence[StoredReject],
    options: LoadOptions,
    *,
    changes: Mapping[str, str | None] | None = None,
) -> list[Report]:
    """Load `rejects` again, with `changes` (column to text) applied to each; one report for each batch.

    A reject that could not be split into columns stays as it is (see `mended`); so does a reject that is already
    settled. Raises the first error that ended a batch, after the other batches.
    """
    outcome = replay_all(store, rejects, options, changes=changes)
    if outcome.errors:
        raise outcome.errors[0]
    return outcome.reports


def replay_all(
    store: Store,
    rejects: Sequence[StoredReject],
    options: LoadOptions,
    *,
    changes: Mapping[str, str | None] | None = None,
    progress: Progress | None = None,
) -> ReplayOutcome:
    """`replay`, with the whole outcome. An error in one batch does not stop the other batches.

    Raises `UsageError`, before anything is loaded, if a change names a column that a row does not have.
    """
    outcome, every = ReplayOutcome(), list(batches(rejects))
    for batch in every:
        _require_columns(store, batch, changes or {})
    for batch in every:
        try:
            _replay_batch(store, batch, options, changes or {}, outcome, progress)
        except (Interrupted, RetryableStoreError):
            raise  # of no use to go on
        except HeadraceError as error:
            _take_books(store, error.run_id, outcome)
            outcome.errors.append(error)
    return outcome


def batches(rejects: Sequence[StoredReject]) -> Iterator[list[StoredReject]]:
    """The `rejects` that have columns, in batches that were read alike, of 10,000 at most."""
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
            f"{_numbered(left)} of an event that is already in the table",
            hint="to replace the event's row by a newer one, add --revisions update --version-column COL "
            "(--set COL=… can change the version); or give the reject up: headrace rejects discard",
        )
    return [one for one in rejects if one.reject.stage != "revision"], len(left)


def mended(store: Store, stored: StoredReject, raw: str) -> StoredReject:
    """`stored` with the row `raw` in its place: a JSON object, or a line of the file it came from.

    Raises `UsageError` if `raw` does not have the file's columns, so that no value gets into a wrong column.
    """
    return replace(stored, reject=replace(stored.reject, raw=raw, record=json.dumps(_split(store, stored, raw))))


def _numbered(rejects: Sequence[int]) -> str:
    if len(rejects) == 1:
        return f"reject {rejects[0]} is a revision"
    return f"{len(rejects)} of these rejects (the first is {rejects[0]}) are revisions"


def _group(stored: StoredReject) -> tuple[str, str, str, str, str]:
    return stored.table, stored.provider, stored.run_id, stored.reject.source, stored.reject.stage


def _replay_batch(
    store: Store,
    batch: Sequence[StoredReject],
    options: LoadOptions,
    changes: Mapping[str, str | None],
    outcome: ReplayOutcome,
    progress: Progress | None,
) -> None:
    """Replay those of a batch that are still kept, until none is left that somebody else settles meanwhile."""
    while kept := _still_kept(store, batch):
        item, wanted = reread(store, kept, options, changes)
        try:
            replayed = dict(enumerate(kept))
            report = ingest(store, [item], batch[0].table, wanted, replayed=replayed, progress=progress)
        except SettledError as error:
            # slices of ours that were in before have settled as many as they have rows
            outcome.settled += len(batch) - len(kept) - _take_books(store, error.run_id, outcome)
            batch = kept
        else:
            outcome.reports.append(report)
            _take_books(store, report.run_id, outcome)
            break
    outcome.settled += len(batch) - len(kept)


def _still_kept(store: Store, batch: Sequence[StoredReject]) -> list[StoredReject]:
    kept = {one.reject_id for one in store.rejects.find(ids=[one.reject_id for one in batch], state="kept")}
    return [one for one in batch if one.reject_id in kept]


def _take_books(store: Store, run_id: str | None, outcome: ReplayOutcome) -> int:
    """Count what a run has committed, though it may have failed later; returns how many rows it read."""
    run = None if run_id is None else store.ledger.run(run_id)
    if run is None:
        return 0
    outcome.counts += run.counts
    outcome.again += store.rejects.find(run_id=run.run_id, state="kept")
    return run.counts.read


def _require_columns(store: Store, batch: Sequence[StoredReject], changes: Mapping[str, str | None]) -> None:
    """Raises `UsageError` for a change of a column that neither the row nor, without a select, the table has."""
    first = batch[0]
    known = set(_reading(store, first).columns) if first.reject.stage == "read" else set()
    if not _selected(store, first):
        known |= _columns_of(store, first.table)
    for one in batch if changes else ():
        own = json.loads(one.reject.record or "{}")
        if unknown := sorted(set(changes) - known - set(own)):
            raise UsageError(
                f"its row has no column {unknown[0]!r}",
                where=f"reject {one.reject_id}, {one.reject.source}, table {one.table}",
                hint=f"its columns are {', '.join(dict.fromkeys([*own, *sorted(known)]))}; name the rejects to change",
            )


def reread(
    store: Store, batch: Sequence[StoredReject], options: LoadOptions, changes: Mapping[str, str | None]
) -> tuple[Input, LoadOptions]:
    """A batch (of `batches`) as an input in the order of its rejects, with the options with which it was read."""
    first = batch[0]
    reading = _reading(store, first)
    select = (options.read.select or reading.select) if first.reject.stage == "read" else None
    # the types are those of the source's own columns, which the table may have by the same names in other types
    types = reading.columns if select else {}
    # behind a select nobody knows whose row it was: one transaction takes all
    mode = "sequential" if select else options.mode
    read = replace(options.read, select=select, types={}, chunk_rows=BATCH, chunk_bytes=1 << 40)
    options = replace(options, table=first.table, provider=first.provider, provider_named=True, read=read, mode=mode)
    options = in_stored_timezone(store, first.table, options)
    empty = dict.fromkeys(types)
    records = [{**empty, **_values(json.loads(one.reject.record or "{}")), **changes} for one in batch]
    if select is None:
        records = _without_nothing(records, store.tables.schema(first.table, keyed=False))
    (inner,) = open_inputs([records], replace(options.read, types=types), None)
    return _Replayed(inner, first.reject.source, types), options


def _selected(store: Store, stored: StoredReject) -> bool:
    return stored.reject.stage == "read" and _reading(store, stored).select is not None


def _without_nothing(records: list[dict[str, object]], present: pa.Schema | None) -> list[dict[str, object]]:
    """`records` without the columns that the table lacks and in which none of them has a value: they say nothing."""
    names = {name for record in records for name in record} - set(() if present is None else present.names)
    empty = {name for name in names if all(record.get(name) is None for record in records)}
    return [{name: value for name, value in record.items() if name not in empty} for record in records]


def _reading(store: Store, stored: StoredReject) -> _Reading:
    """How the row was read when it was rejected for the first time."""
    while stored.reject.replaces is not None:
        earlier = store.rejects.find(ids=[stored.reject.replaces], state=None)
        if not earlier:
            break
        stored = earlier[0]
    run = store.ledger.run(stored.run_id)
    inputs = [] if run is None else json.loads(run.inputs)
    found: dict[str, Any] = next((one for one in inputs if one["name"] == stored.reject.source), {})
    return _Reading(found.get("columns", {}), found.get("select"))


def _columns_of(store: Store, table: str) -> set[str]:
    """The table's columns; none where it is no table of events any more, which loading into it says better."""
    try:
        present = store.tables.schema(table, keyed=False)
    except SchemaError:
        present = None
    return set() if present is None else set(present.names)


def _split(store: Store, stored: StoredReject, raw: str) -> dict[str, str | None]:
    try:
        parsed = json.loads(raw)
    except ValueError:
        parsed = None
    columns = _reading(store, stored).columns
    if isinstance(parsed, dict):
        _require_known(store, stored, parsed, columns)
        return _texts(parsed)
    for delimiter in DELIMITERS:
        fields = next(csv.reader([raw], delimiter=delimiter), [])
        if columns and len(fields) == len(columns):
            return {name: value or None for name, value in zip(columns, fields, strict=True)}
    raise UsageError(
        f"this is not a row of {', '.join(columns)}" if columns else "the columns of the file are no longer known",
        where=f"reject {stored.reject_id}, {stored.reject.source}",
        hint='give a field for each of them, or a JSON object: --raw \'{"column": "value", …}\'',
    )


def _require_known(
    store: Store, stored: StoredReject, row: Mapping[str, object], columns: Mapping[str, LogicalType]
) -> None:
    """Raises `UsageError` for a member that is no column of the source, nor, without a select, of the table."""
    known = {*columns, *json.loads(stored.reject.record or "{}")}
    if not _selected(store, stored):
        known |= _columns_of(store, stored.table)
    unknown = sorted(set(row) - known)
    if unknown and known:
        raise UsageError(
            f"its row has no column {unknown[0]!r}",
            where=f"reject {stored.reject_id}, {stored.reject.source}",
            hint=f"its columns are {', '.join(sorted(known))}",
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
    """Kept rows as an input under the name of the source they came from, its own columns of known `types`.

    A row's number is its position in the batch: the store puts what is rejected again in its old place.
    """

    inner: Input
    name: str
    types: Mapping[str, LogicalType]
    durable: bool = False

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
        return self.inner.infer(replace(options, types=self.types))

    def columns(self) -> list[str]:
        return self.inner.columns()

    def is_empty(self) -> bool:
        return self.inner.is_empty()

    def ranges(self, schema: pa.Schema, options: ReadOptions) -> None:
        """None: the rows are in this process."""

    def locate(self, rows: Sequence[int]) -> dict[int, tuple[int | None, str | None]]:  # noqa: ARG002 - see above
        return {}

    def chunks(self, schema: pa.Schema, options: ReadOptions) -> Iterator[Chunk]:
        for chunk in self.inner.chunks(schema, replace(options, types=self.types)):
            address = replace(chunk.address, source=self.name)
            yield replace(chunk, address=address, rejects=[replace(one, source=self.name) for one in chunk.rejects])
