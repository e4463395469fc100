"""``--prove``: at its end, a load looks up every event of its input in the table, whatever said that the event is
there.

    IDs met ──► their sum, the stretches of time they lie in
                        │
    table ──► the sum of the IDs in those stretches, or in all of it ──► the same? ──► proven: what a fresh load takes
          └─► the IDs there: each looked for among those met ──► as many found as were met? ──► proven
                    └──► far more than were met ──► each of those met is looked up by itself

The met events are the first occurrences in the input: inserted events, duplicates in the store, and events skipped
because of a receipt. The table is queried after the last commit, with one statement for each stretch of time, so that
each event is looked up at one moment at which it must be in the table. Memory is bounded: IDs are read in blocks, and
kept in files once there are many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.errors import StaleReceiptsError, VerificationError
from headrace.loading.agreement import Agreement
from headrace.loading.known_ids import KnownIds
from headrace.loading.met_chunk import MetChunk
from headrace.loading.open_run import OpenRun
from headrace.observability.stages import Stages
from headrace.partitioning.dedup import SortedIds, among
from headrace.partitioning.identity import id_text
from headrace.partitioning.snapshot import IdRuns, Snapshot, gathered
from headrace.partitioning.snapshot.coverage import stretches
from headrace.storage.id_sums import IdSum
from headrace.storage.records import Committed, IdRange
from headrace.storage.store import Store

__all__ = ["Met", "Proof", "require_proven"]

Ids = NDArray[np.uint8]
BLOCK_MS = 30 * 86_400_000
LOOKED_UP = 20_000  # so few are looked up by themselves
SPARSE = 4  # so many times as many IDs read as were met, and they are looked up by themselves
SPARE = 100_000
SHOWN = 10
_BITS = 16  # below the milliseconds, in the first half of an ID of layout time


@dataclass(slots=True)
class Met:
    """The met IDs in summary: their sum, their blocks of 30 days, the least and greatest
    first half.
    """

    timed: bool
    total: IdSum = field(default_factory=IdSum)
    blocks: set[int] = field(default_factory=set)
    least: int = 2**64 - 1
    greatest: int = 0

    def add(self, ids: Ids) -> None:
        """Note `ids` (rows, 16), each for the first time."""
        if len(ids) == 0:
            return
        self.total += IdSum.of(ids)
        if self.timed:
            high = np.ascontiguousarray(ids[:, :8]).view(">u8").reshape(-1).astype(np.uint64)
            self.least, self.greatest = min(self.least, int(high.min())), max(self.greatest, int(high.max()))
            first, last = (one >> _BITS for one in (int(high.min()), int(high.max())))
            if first // BLOCK_MS == last // BLOCK_MS:  # as in most chunks
                self.blocks.add(first // BLOCK_MS)
            else:
                self.blocks.update(np.unique((high >> np.uint64(_BITS)) // np.uint64(BLOCK_MS)).tolist())

    def ranges(self) -> list[IdRange | None]:
        """The ranges of the IDs, disjoint, or the whole table."""
        if not self.timed:
            return [None]
        found = []
        for first, last in stretches(np.array(sorted(self.blocks), dtype=np.int64)):
            low = max(first * BLOCK_MS << _BITS, self.least)
            high = min((last + 1) * BLOCK_MS << _BITS, self.greatest + 1)
            found.append(IdRange(_edge(low), _edge(high)))
        return list(found)


@dataclass(frozen=True, slots=True)
class Missing:
    """How many of the events met are not in the table, and some of their IDs, shape (rows, 16)."""

    count: int
    some: Ids


class Proof:
    """The proof that the events of a run's input are in the table at its end.

    It is carried out if it is `wanted`, and if a connection was lost meanwhile: a server that comes back may have
    lost commits that it had confirmed, to this command or to another.
    """

    def __init__(self, store: Store, agreement: Agreement, folder: Path, stages: Stages, *, wanted: bool) -> None:
        self._store = store
        self._table = agreement.table
        self._timed = agreement.contract.layout == "time"
        self._folder = folder
        self._stages = stages
        self._wanted = wanted
        self._met = Met(self._timed) if wanted else None

    def meet(self, chunk: MetChunk) -> None:
        """Note the events that `chunk` has for the first time."""
        if self._met is not None:
            self._met.add(chunk.first_ids())

    def hear(self, done: Committed) -> None:
        """Note that a slice is committed."""
        self._wanted = self._wanted or done.server_was_away

    def carried_out(self, known: KnownIds, going: OpenRun, sources: Sequence[str]) -> int | None:
        """The number of events proven to be in the table: all met events except the refused, which are rejects;
        ``None`` if no proof was requested.

        Raises `StaleReceiptsError` if events are missing that a new run can load, otherwise `VerificationError`.
        """
        if not self._wanted:
            return None
        seen, refused = known.seen, known.refused
        with self._stages.stage("prove", rows=len(seen)):
            missing = self._missing(seen, refused)
        self._stages.tell()
        require_proven(missing, going, sources)
        return len(seen) - len(refused)

    def _missing(self, seen: IdRuns, refused: Ids) -> Missing:
        """What is not there, in bounded memory."""
        if len(seen) <= LOOKED_UP:
            return self._by_id(seen, refused)
        met = self._met or self._noted(seen)
        if len(refused) == 0 and self._same(met):
            return Missing(0, _NONE)
        found = self._found(seen, refused, met, keep=None)
        if found is None:
            return self._by_id(seen, refused)
        if found == len(seen) - len(refused):
            return Missing(0, _NONE)
        with Snapshot(self._folder) as kept:
            self._found(seen, refused, met, keep=kept)
            return _left((ids[~kept.known(ids)] for ids in seen.blocks()), refused)

    def _noted(self, seen: IdRuns) -> Met:
        met = Met(self._timed)
        for ids in seen.blocks():
            met.add(ids)
        return met

    def _same(self, met: Met) -> bool:
        """Whether the table holds exactly these events where they lie: a sum is all it takes."""
        told = self._store.events.id_sum(self._table, met.ranges())
        if told is None:
            read = (IdSum.of(ids) for ids in self._read(met, met.total.count + 1))
            told = sum(read, IdSum())
        return told == met.total

    def _found(self, seen: IdRuns, refused: Ids, met: Met, *, keep: Snapshot | None) -> int | None:
        """How many of those met the table holds; ``None`` if it holds far too many others."""
        limit = SPARSE * len(seen) + SPARE
        found = read = 0
        for ids in self._read(met, limit):
            read += len(ids)
            ordered = SortedIds.of(ids)
            there = ordered.where(seen.contains_sorted(ordered) & ordered.first()).packed()
            there = there[~among(there, refused)] if len(refused) else there
            found += len(there)
            if keep is not None:
                keep.add(there)
        return None if read >= limit else found

    def _read(self, met: Met, limit: int) -> Iterator[Ids]:
        """The table's IDs where those met lie, at most `limit`."""
        left = limit
        for where in met.ranges():
            for packed in gathered(self._store.events.fetch_ids(self._table, where, limit=left)):
                left -= len(packed) // 16
                yield np.frombuffer(packed, dtype=np.uint8).reshape(-1, 16)
            if left <= 0:
                return

    def _by_id(self, seen: IdRuns, refused: Ids) -> Missing:
        return _left((self._absent(ids) for ids in seen.blocks()), refused)

    def _absent(self, ids: Ids) -> Ids:
        held = b"".join(self._store.events.held(self._table, ids.tobytes()))
        return ids[~among(ids, np.frombuffer(held, dtype=np.uint8).reshape(-1, 16))]


def require_proven(missing: Missing, going: OpenRun, sources: Sequence[str]) -> None:
    """Raises `StaleReceiptsError` if a new run can load the missing events, otherwise `VerificationError`."""
    if not missing.count:
        return
    named = ", ".join(id_text(one.tobytes()) for one in missing.some)
    more = f" and {missing.count - len(missing.some):,} more" if missing.count > len(missing.some) else ""
    what = f"{missing.count:,} of the input's events are not in the table at the end of the load: {named}{more}"
    where = ", ".join(sources[:SHOWN])
    if going.job is not None:
        raise StaleReceiptsError(what, where=where)
    raise VerificationError(
        what,
        where=where,
        hint="they were deleted meanwhile, or something in the database keeps them out; load the same input again: "
        "events in the table are found as duplicates",
    )


_NONE = np.empty((0, 16), dtype=np.uint8)


def _left(absent: Iterator[Ids], refused: Ids) -> Missing:
    """What is absent though nobody refused it."""
    count, some = 0, _NONE
    for ids in absent:
        wrong = ids[~among(ids, refused)] if len(refused) else ids
        count += len(wrong)
        some = np.concatenate([some, wrong[: max(SHOWN - len(some), 0)]])
    return Missing(count, some)


def _edge(high: int) -> bytes | None:
    return None if high >> 64 else high.to_bytes(8, "big") + bytes(8)
