"""Does the table hold exactly the events of this input? Asked without snapshot or ledger of the load.

    table ──► its IDs, each once? ──────────────┐
                                                ├─► missing · unexpected · duplicated
    input ──► read again, identified again ─────┘

Missing: an event of the input that is not in the table. Unexpected: an event that a load of these very inputs brought,
although the input does not have it. Duplicated: an ID that the table holds twice. Events from other inputs are not of
concern. Both ID sets lie in memory-mapped files, so that memory stays bounded whatever the size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.agreement import require_identity, stored_contract
from headrace.config import LoadOptions, hash_key
from headrace.errors import SchemaError
from headrace.ledger import inputs_key
from headrace.partitioning.contract import Contract
from headrace.partitioning.dedup import first_occurrences
from headrace.partitioning.identity import id_text
from headrace.partitioning.snapshot import IdRuns
from headrace.prepare import Prepared, prepare
from headrace.progress import Progress, Quiet
from headrace.scratch import scratch_folder
from headrace.source import Input
from headrace.storage.base import Counts, Store

__all__ = ["Verification", "verify"]

SAMPLE = 10


@dataclass(slots=True)
class Verification:
    """What `verify` found.

    `expected` is the number of distinct events in the input; the samples hold up to ten IDs, those of missing events
    with the address of their chunk.
    """

    table: str
    read: int = 0
    rejected: int = 0
    expected: int = 0
    stored: int = 0
    missing: int = 0
    unexpected: int = 0
    duplicated: int = 0
    missing_sample: list[str] = field(default_factory=list)
    unexpected_sample: list[str] = field(default_factory=list)
    duplicated_sample: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the table holds exactly the expected events."""
        return not (self.missing or self.unexpected or self.duplicated)

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON."""
        return {"ok": self.ok, **asdict(self)}

    def to_text(self) -> str:
        """One screen for people."""
        lines = [
            f"{'VERIFIED' if self.ok else 'DIFFERENCE FOUND'}: {self.table}",
            f"  rows read again     {self.read:>12,}   ({self.rejected:,} of them rejects)",
            f"  distinct events     {self.expected:>12,}",
            f"  missing             {self.missing:>12,}",
            f"  unexpected          {self.unexpected:>12,}",
            f"  duplicated          {self.duplicated:>12,}",
            f"  events in the table {self.stored:>12,}   (other inputs' included)",
        ]
        for title, sample in (
            ("missing", self.missing_sample),
            ("unexpected", self.unexpected_sample),
            ("duplicated", self.duplicated_sample),
        ):
            lines += [f"    {title}: {one}" for one in sample]
        if self.missing:
            lines.append("  load the input again to bring in what is missing; nothing will be written twice")
        return "\n".join(lines)


def verify(
    store: Store, inputs: Sequence[Input], table: str, options: LoadOptions, *, progress: Progress | None = None
) -> Verification:
    """Compare `table` with `inputs`. Raises `ContractError` if the table has no stored contract, or an input lacks
    a column of the identity; `SchemaError` if the table is gone.
    """
    contract = stored_contract(store, table)
    schema = _columns(store, table)
    found = Verification(table)
    with scratch_folder() as folder:
        stored, expected = IdRuns(folder), IdRuns(folder)
        try:
            _read_table(store.fetch_ids(table), stored, found)
            with (progress or Quiet()).over(inputs):
                for prepared in _identified(schema, contract, inputs, options):
                    _expect(prepared, stored, expected, found)
                    if progress:
                        progress.advance(Counts(read=prepared.read, rejected=len(prepared.rejects)))
            _read_own(store.fetch_ids_of_inputs(table, inputs_key(inputs, options)), expected, found)
        finally:
            stored.close()
            expected.close()
    return found


def _identified(
    schema: pa.Schema, contract: Contract, inputs: Sequence[Input], options: LoadOptions
) -> Iterator[Prepared]:
    key = hash_key() if contract.hash == "blake2b" else None
    for item in inputs:
        require_identity(item, contract)
        for chunk in item.chunks(schema, options.read):
            yield prepare(chunk, contract, options.provider, key)


def _columns(store: Store, table: str) -> pa.Schema:
    schema = store.table_schema(table)
    if schema is None:
        raise SchemaError("the table is gone, though its contract is there", where=table, hint="load its inputs again")
    return schema


def _read_table(blocks: Iterator[bytes], stored: IdRuns, found: Verification) -> None:
    for ids in map(_unpacked, blocks):
        once = first_occurrences(ids) & ~stored.contains(ids)
        stored.add(ids[once])
        found.stored += len(ids)
        found.duplicated += int((~once).sum())
        _sample(found.duplicated_sample, ids[~once])


def _expect(prepared: Prepared, stored: IdRuns, expected: IdRuns, found: Verification) -> None:
    found.read += prepared.read
    found.rejected += len(prepared.rejects)
    ids = prepared.ids
    distinct = ids[first_occurrences(ids)]
    distinct = distinct[~expected.contains(distinct)]
    expected.add(distinct)
    found.expected += len(distinct)
    absent = distinct[~stored.contains(distinct)]
    found.missing += len(absent)
    _sample(found.missing_sample, absent, f" from {prepared.address}")


def _read_own(blocks: Iterator[bytes], expected: IdRuns, found: Verification) -> None:
    for ids in map(_unpacked, blocks):
        strange = ids[~expected.contains(ids)]
        found.unexpected += len(strange)
        _sample(found.unexpected_sample, strange)


def _unpacked(block: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(block, dtype=np.uint8).reshape(-1, 16)


def _sample(into: list[str], ids: NDArray[np.uint8], where: str = "") -> None:
    room = SAMPLE - len(into)
    into += [id_text(one.tobytes()) + where for one in ids[: max(room, 0)]]
