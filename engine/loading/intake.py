"""From input to prepared chunks: a thread reads ahead, workers prepare, and the coordinator takes the chunks in input
order.

    waiting inputs ──► columns the table lacks? ──► read ──► room in memory? ──► prepare ──► in input order
                        └ widen, while nothing       in a     the allowance       by the      rejects get
                          is being read              thread                       workers     their lines

The end of a chunk depends on the input and the options alone, so that a resumed run finds its earlier slices.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from headrace.events.prepare import Prepared
from headrace.execution.orders import PrepareOrder, RangeDone, RangeOrder
from headrace.execution.workers import Task, Workers
from headrace.loading.agreement import Agreement
from headrace.loading.read_ahead import Allowance, ahead
from headrace.observability.stages import Stages
from headrace.options.load import LoadOptions, hash_key
from headrace.options.shape import SEQUENTIAL, Shape
from headrace.reading.chunk import Chunk, without_absent
from headrace.reading.inputs import Input, ReadOptions
from headrace.reading.ranges import FIRST_ROWS, Range, Ranges
from headrace.storage.records import Address
from headrace.storage.rejects import Reject

__all__ = ["FIRST_ROWS", "Intake", "first_rows"]

# while the snapshot is fetched, this many chunks can be prepared
CHUNKS_AHEAD = 3


@dataclass(frozen=True, slots=True)
class _Read:
    """A chunk that was read and given out to be prepared."""

    item: Input
    task: Task[Prepared]
    size: int


@dataclass(frozen=True, slots=True)
class _Range:
    """A range that was given out to be read and prepared."""

    item: Input
    ranges: Ranges
    order: RangeOrder
    task: Task[RangeDone]
    size: int


class Intake:
    """The inputs of the run `run_id`, which has this `shape`.

    `widen` is called between two inputs, while nothing is being read: it adds the columns of the next input to the
    table, and returns the new agreement. `offer` gets every order to prepare, before the workers do. `workers` may be
    replaced at any time; the new workers get the later chunks.
    """

    def __init__(
        self,
        run_id: str,
        agreement: Agreement,
        options: LoadOptions,
        shape: Shape,
        workers: Workers,
        stages: Stages,
        *,
        widen: Callable[[Input], Agreement],
        offer: Callable[[PrepareOrder], None],
    ) -> None:
        self.workers = workers
        self._run_id = run_id
        self._agreement = agreement
        self._options = options
        self._shape = shape
        self._stages = stages
        self._widen = widen
        self._offer = offer
        self._key = hash_key() if agreement.contract.hash == "blake2b" else None
        self._allowance = Allowance(options.parallel.memory)
        self._first_rows = first_rows(options.read, shape)
        self._sizes: dict[Address, float] = {}

    def prepared(self, inputs: Sequence[Input]) -> Generator[Prepared, None, None]:
        """The prepared chunks in input order; `landed` gives back the memory of each."""
        for read in self._read_ahead(inputs):
            self._allowance.claim()
            if isinstance(read, _Range):
                yield from self._chunks_of(read)
                continue
            with self._stages.stage("wait.chunk"):
                prepared = read.task.result()
            self._stages.take(prepared.spans)
            self._sizes[prepared.address] = read.size
            yield _located(read.item, prepared)

    def _chunks_of(self, read: _Range) -> Iterator[Prepared]:
        """The prepared chunks of a range, with their places in the whole input."""
        with self._stages.stage("wait.chunk"):
            done, wanted = read.task.result(), read.ranges.wanted(read.order.part)
            if wanted is not None and wanted.start not in (None, done.start):  # its beginning was a wrong guess
                _discard(done)
                done = self.workers.read(replace(read.order, part=wanted)).result()
        if wanted is None:
            _discard(done)
            self._allowance.give_back(read.size)
            return
        if done.error is not None:
            raise done.error
        if done.end is None:
            raise ValueError(f"the result of {read.order!s} has neither an end nor an error")
        rows, lines = read.ranges.take(read.order.part, done.end)
        self._stages.take(replace(span, first_row=span.first_row + rows) for span in done.spans)
        for prepared in done.chunks:
            chunk = _located(read.item, prepared.behind(rows, lines))
            self._sizes[chunk.address] = read.size / len(done.chunks)
            yield chunk
        if not done.chunks:
            self._allowance.give_back(read.size)

    def landed(self, chunk: Prepared) -> None:
        """Note that `chunk` is committed: its memory is free again."""
        self._allowance.give_back(self._sizes.pop(chunk.address))

    def close(self) -> None:
        """Stop reading: a reader that waits for memory stops waiting."""
        self._allowance.close()

    def _read_ahead(self, inputs: Sequence[Input]) -> Iterator[_Read | _Range]:
        """The chunks or ranges of all inputs; the table is widened between two inputs, while nothing is being read."""
        waiting = deque(inputs)
        while waiting:
            if not self._fits(waiting[0]):
                self._agreement = self._widen(waiting[0])
            yield from ahead(self._read(waiting), CHUNKS_AHEAD if self.workers.count == 1 else self.workers.count + 1)

    def _read(self, waiting: deque[Input]) -> Iterator[_Read | _Range]:
        """The chunks or ranges of the inputs up to the first that brings columns which the table lacks. In a thread."""
        while waiting and self._fits(waiting[0]):
            item = waiting.popleft()
            columns = self._columns_for(item)
            ranges = item.ranges(columns, self._options.read) if self._shape.ranges else None
            if ranges is not None:
                yield from self._given_out(item, ranges)
                continue
            options = replace(self._options.read, first_rows=self._first_rows)
            own = frozenset(item.columns())
            for read in self._stages.reading(item.chunks(columns, options)):
                chunk = without_absent(read, own)
                self._first_rows = None
                with self._stages.stage("wait.memory"):
                    self._allowance.take(chunk.batch.nbytes)
                order = self._order(chunk)
                self._offer(order)
                yield _Read(item, self.workers.prepare(order), chunk.batch.nbytes)

    def _given_out(self, item: Input, ranges: Ranges) -> Iterator[_Range]:
        for part in ranges.parts:
            with self._stages.stage("wait.memory"):
                self._allowance.take(part.size)
            order = self._range_order(ranges, part)
            yield _Range(item, ranges, order, self.workers.read(order), part.size)

    def _fits(self, item: Input) -> bool:
        return self._agreement.fits(item.columns())

    def _columns_for(self, item: Input) -> pa.Schema:
        """The table's columns; before an enrichment only the input's own, so that it can add the others again, and
        where revisions are looked at, so that a column it does not have is not compared.
        """
        schema = self._agreement.schema
        if self._options.enrichment is None and self._options.revisions == "ignore":
            return schema
        own = set(item.columns())
        return pa.schema([column for column in schema if column.name in own])

    def _range_order(self, ranges: Ranges, part: Range) -> RangeOrder:
        return RangeOrder(
            reader=ranges.reader,
            part=part,
            contract=self._agreement.contract,
            limits=self._agreement.limits,
            provider=self._options.provider,
            key=self._key,
            run_id=self._run_id,
        )

    def _order(self, chunk: Chunk) -> PrepareOrder:
        with self._stages.stage("spool", rows=chunk.address.rows, about=chunk.address):
            parcel = self.workers.pack(chunk.batch)
        return PrepareOrder(
            address=chunk.address,
            chunk=parcel,
            rows=chunk.rows,
            rejects=chunk.rejects,
            contract=self._agreement.contract,
            limits=self._agreement.limits,
            provider=self._options.provider,
            key=self._key,
            run_id=self._run_id,
        )


def first_rows(read: ReadOptions, shape: Shape) -> int | None:
    """The number of rows of a run's first chunk, ``None`` for the usual number.

    A select may tell rows of one chunk from those of the next.
    """
    smaller = shape == SEQUENTIAL and read.select is None and read.chunk_rows > FIRST_ROWS and not read.even
    return FIRST_ROWS if smaller else None


def _discard(done: RangeDone) -> None:
    for prepared in done.chunks:
        prepared.discard()


def _located(item: Input, prepared: Prepared) -> Prepared:
    """The chunk with the physical line and raw text of its rejects, where the input has lines."""
    wanted = [reject.row for reject in prepared.rejects if reject.line is None and reject.row is not None]
    if not wanted:
        return prepared
    places = item.locate(wanted)
    return replace(prepared, rejects=[_placed(reject, places) for reject in prepared.rejects])


def _placed(reject: Reject, places: dict[int, tuple[int | None, str | None]]) -> Reject:
    if reject.line is not None or reject.row is None or reject.row not in places:
        return reject
    line, raw = places[reject.row]
    return replace(reject, line=line, raw=reject.raw if raw is None else raw)
