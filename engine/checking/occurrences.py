"""Occurrences of an event in inputs, receipts and rejects: what `headrace explain` shows beyond the event's row.

    inputs, read again ──► rows that have the ID ──► runs over exactly that content ──► receipts that cover the row
    rejects, identified again ──► those that have the ID

A receipt covers a row if one of its chunks spans it and its partition is the event's. The ledger keeps no list of
repeated IDs: without the inputs it can only tell which later receipts counted duplicates in the event's partition.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.checking.rereading import columns_of, identified
from headrace.checking.row_addresses import Places, RowAddress
from headrace.events.prepare import prepare
from headrace.loading.agreement import contract_for
from headrace.loading.contract_drift import in_pinned_types
from headrace.loading.replay import batches, reread
from headrace.options.load import LoadOptions, hash_key
from headrace.options.shape import Shape
from headrace.partitioning.contract import Contract
from headrace.partitioning.identity import ids_from_packed
from headrace.partitioning.partition import partition_of
from headrace.reading.inputs import Input
from headrace.storage.records import Address, Receipt, RunRecord
from headrace.storage.rejects import StoredReject
from headrace.storage.store import Store

__all__ = ["Occurrence", "Reading", "occurrences", "receipts_with_duplicates", "rejects_of"]

MOST_RUNS = 10_000


@dataclass(frozen=True, slots=True)
class Reading:
    """A run that read this row's input. `receipt` is ``None`` if the run did not reach the row."""

    run: RunRecord
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A row of the event in an input, and the runs that read that input, the oldest first."""

    place: RowAddress
    readings: Sequence[Reading]


def occurrences(
    store: Store, table: str, event_id: bytes, inputs: Sequence[Input], options: LoadOptions
) -> list[Occurrence]:
    """Find the event's rows in `inputs`, in input order. Reads all inputs."""
    contract = contract_for(store, table, options)
    places = Places(inputs)
    addresses = [
        places.of(int(tag))
        for prepared in identified(store, table, contract, inputs, options)
        for tag in places.tags(prepared)[_equal(prepared.ids, event_id)]
    ]
    runs = sorted(store.ledger.runs(table=table, limit=MOST_RUNS), key=lambda run: str(run.started_at))
    fingerprints = {item.name: item.fingerprint for item in inputs}
    return [
        Occurrence(place, list(_readings(store, runs, fingerprints[place.chunk.source], place, event_id)))
        for place in places.with_lines(addresses)
    ]


def receipts_with_duplicates(store: Store, table: str, event_id: bytes, since: Receipt) -> list[Reading]:
    """The receipts from `since` on whose duplicates may include the event, the oldest first."""
    readings = [
        Reading(run, receipt)
        for run in store.ledger.runs(table=table, limit=MOST_RUNS)
        if run.counts.duplicate_in_input or run.counts.duplicate_in_store or run.status != "done"
        for receipt in store.ledger.receipts(run.run_id)
        if receipt.receipt_id >= since.receipt_id
        and (receipt.counts.duplicate_in_input or receipt.counts.duplicate_in_store)
        and _is_partition(receipt, run, event_id)
    ]
    return sorted(readings, key=lambda reading: reading.receipt.receipt_id if reading.receipt else 0)


def rejects_of(store: Store, table: str, event_id: bytes, options: LoadOptions) -> tuple[list[StoredReject], int]:
    """Find the event among the rejects of `table`, settled ones too; also count unidentifiable rejects."""
    contract = contract_for(store, table, options)
    kept = store.rejects.find(table=table, state=None)
    matching: list[StoredReject] = []
    identified_rows = 0
    for batch in batches(kept):
        ids, rows = _identities(store, batch, contract, options)
        identified_rows += len(ids)
        matching += [batch[int(row)] for row in rows[_equal(ids, event_id)]]
    return matching, len(kept) - identified_rows


def _identities(
    store: Store, batch: Sequence[StoredReject], contract: Contract, options: LoadOptions
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The IDs of those rejects whose identity columns are sound, whatever is wrong with the others, and their places in
    the batch.
    """
    item, read = reread(store, batch, options, {})
    needed = dict.fromkeys([*dict(contract.identity), *([contract.time] if contract.time else [])])
    every = in_pinned_types(contract, columns_of(store, batch[0].table))
    schema = pa.schema([field for field in every if field.name in needed])
    if read.read.select is not None or not set(needed) <= set(item.columns()):
        return np.empty((0, 16), np.uint8), np.empty(0, np.int64)
    key = hash_key() if contract.hash == "blake2b" else None
    chunks = [prepare(chunk, contract, batch[0].provider, key) for chunk in item.chunks(schema, read.read)]
    return (
        np.concatenate([prepared.ids for prepared in chunks] or [np.empty((0, 16), np.uint8)]),
        np.concatenate([prepared.rows for prepared in chunks if prepared.rows is not None] or [np.empty(0, np.int64)]),
    )


def _readings(
    store: Store, runs: Sequence[RunRecord], fingerprint: str, place: RowAddress, event_id: bytes
) -> Iterator[Reading]:
    for run in runs:
        for described in json.loads(run.inputs):
            if described.get("fingerprint") == fingerprint:
                here = replace(place, chunk=replace(place.chunk, source=described["name"]))
                covering = [
                    receipt
                    for receipt in store.ledger.receipts(run.run_id)
                    if any(_spans(chunk, here) for chunk in receipt.chunks) and _is_partition(receipt, run, event_id)
                ]
                yield Reading(run, covering[0] if covering else None)


def _spans(chunk: Address, place: RowAddress) -> bool:
    """Whether the chunk has the row or, where only the row's chunk is known, a part of that."""
    first = place.chunk.first_row if place.row is None else place.row
    last = first + (place.chunk.rows if place.row is None else 1)
    return chunk.source == place.chunk.source and chunk.first_row < last and first < chunk.first_row + chunk.rows


def _is_partition(receipt: Receipt, run: RunRecord, event_id: bytes) -> bool:
    partitions = Shape.from_json(run.shape).partitions
    return receipt.partition == int(partition_of(ids_from_packed(event_id), partitions)[0])


def _equal(ids: NDArray[np.uint8], event_id: bytes) -> NDArray[np.bool_]:
    halves = np.frombuffer(event_id, dtype=np.uint64)
    words = np.ascontiguousarray(ids).view(np.uint64).reshape(-1, 2)
    return np.asarray((words[:, 0] == halves[0]) & (words[:, 1] == halves[1]), dtype=np.bool_)
