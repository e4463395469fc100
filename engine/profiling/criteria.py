"""The four criteria for parallelism, each with its evidence from this data and this database.

    the unique key is there      a row of the table, inserted once more, is refused
    the IDs are deterministic    the sample in other chunks, and rows read back from the store, give them again
    the CPU is the bottleneck    the stages of the sequential run
    the tables are the same      both runs' digests and books

Three must hold for parallel mode to be safe to advise; the third says whether it can pay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headrace.checking.rereading import columns_of, identified
from headrace.events.prepare import prepare
from headrace.loading.agreement import stored_contract
from headrace.options.load import LoadOptions, hash_key
from headrace.partitioning.contract import Contract
from headrace.profiling.real_table import RealTable
from headrace.profiling.sample import Sample
from headrace.profiling.trials import Trialled
from headrace.reading.inputs import ReadOptions, open_inputs
from headrace.storage import open_store
from headrace.storage.records import EVENT_ID, PROVIDER, RESERVED_COLUMNS
from headrace.storage.store import Store
from headrace.storage.trial.evidence import refuses_again, some_rows
from headrace.storage.trial.place import Trial

__all__ = ["Criterion", "examine_processor", "examine_tables", "examine_trial"]

ROWS_READ_BACK = 2_000
MOSTLY = 0.5


@dataclass(frozen=True, slots=True)
class Criterion:
    """What was asked, whether it holds, and what shows it."""

    name: str
    holds: bool
    evidence: str

    def to_text(self) -> str:
        """A line."""
        return f"{'yes' if self.holds else 'NO ':<3} {self.name}: {self.evidence}"


def examine_trial(place: Trial, real: RealTable, sample: Sample, options: LoadOptions) -> list[Criterion]:
    """The two criteria that the trial's table shows once `sample` was loaded into it."""
    with open_store(place.url) as store:
        contract = stored_contract(store, real.name)
        return [
            _key(place.url, real.name, exists=real.exists),
            _same_ids(store, real.name, contract, sample, options),
        ]


def examine_processor(sequential: Trialled, workers: int, bound: float) -> Criterion:
    """Whether the sequential run spent its time on a core; `bound` is Amdahl's for `workers`."""
    share = sequential.share_on_a_core
    return Criterion(
        "the CPU is the bottleneck, and its work can be shared",
        share >= MOSTLY,
        f"{share:.0%} of the stages' time is spent on a core; Amdahl's bound for {workers} workers is {bound:.2f}",
    )


def examine_tables(sequential: Trialled, parallel: Trialled, workers: int) -> Criterion:
    """Whether both runs gave the same table and the same books."""
    same = sequential.held == parallel.held and sequential.report.counts.books == parallel.report.counts.books
    whole = sequential.held.whole
    told = f"{whole.count:,} events, digest {whole.xor:032x}"[:60]
    how = f"sequentially and with {workers} workers"
    return Criterion(
        "sequential and parallel give the same table",
        same,
        f"{how}: {told} and the same books" if same else f"{how} the digests or the books differ",
    )


def _key(url: str, table: str, *, exists: bool) -> Criterion:
    """Whether the database itself refuses an event that the table holds."""
    which = "a copy of the table with its keys" if exists else "the table as a first load makes it"
    refused = refuses_again(url, table)
    told = {
        True: f"{which} refuses a row that it holds",
        False: f"{which} accepts a second copy of a row that it holds",
        None: f"{which} has a unique key; no row was loaded that could prove it",
    }[refused]
    return Criterion("the database resolves duplicates", refused is not False, told)


def _same_ids(store: Store, table: str, contract: Contract, sample: Sample, options: LoadOptions) -> Criterion:
    """Whether the sample's IDs are the same cut into other chunks, and made again from what the store holds."""
    rows = options.read.chunk_rows
    cut = [_ids(store, table, contract, sample, options, size) for size in (rows, max(1, rows * 2 // 5 + 1))]
    length = min(map(len, cut))
    differ = int((cut[0][:length] != cut[1][:length]).any(axis=1).sum())
    again, changed = _round_trip(store, table, contract, options)
    evidence = (
        f"{length:,} IDs in other chunks, {again:,} from rows read back"
        if not (differ or changed)
        else f"{differ:,} of {length:,} IDs differ in other chunks, {changed:,} of {again:,} when read back"
    )
    return Criterion("IDs are deterministic", not (differ or changed), evidence)


def _ids(
    store: Store, table: str, contract: Contract, sample: Sample, options: LoadOptions, chunk_rows: int
) -> NDArray[np.uint8]:
    """The sample's IDs in input order, (rows, 16)."""
    cut = replace(options, read=replace(options.read, chunk_rows=chunk_rows))
    parts = [one.ids for one in identified(store, table, contract, sample.inputs(), cut)]
    return np.concatenate(parts) if parts else np.empty((0, 16), np.uint8)


def _round_trip(store: Store, table: str, contract: Contract, options: LoadOptions) -> tuple[int, int]:
    """How many rows of the table were read back, and how many of those do not have the ID that they make."""
    held = some_rows(store, table, ROWS_READ_BACK)
    read = changed = 0
    for provider, rows in _by_provider(held):
        made = _made(store, table, contract, options, provider, rows)
        read += len(rows)
        changed += sum(bytes(one) != row[EVENT_ID] for one, row in zip(made, rows, strict=False))
        changed += len(rows) - len(made)
    return read, changed


def _by_provider(held: list[dict[str, object]]) -> Iterator[tuple[str, list[dict[str, object]]]]:
    providers = dict.fromkeys(str(row[PROVIDER]) for row in held)
    for provider in providers:
        yield provider, [row for row in held if str(row[PROVIDER]) == provider]


def _made(
    store: Store,
    table: str,
    contract: Contract,
    options: LoadOptions,
    provider: str,
    rows: list[dict[str, object]],
) -> NDArray[np.uint8]:
    """The IDs that rows from the store make, by the way that an input takes: (rows, 16), fewer where one is refused."""
    schema = columns_of(store, table)
    data = [{name: value for name, value in row.items() if name not in RESERVED_COLUMNS} for row in rows]
    reading = ReadOptions(timezone="UTC", threads=options.read.threads)
    key = hash_key() if contract.hash == "blake2b" else None
    parts = [
        prepare(chunk, contract, provider, key).ids
        for item in open_inputs([data], reading, None)
        for chunk in item.chunks(schema, reading)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 16), np.uint8)
