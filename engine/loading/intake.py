"""From input to micro-batch: a thread reads chunks ahead, workers prepare them, and the coordinator gathers them in
input order.

    waiting inputs ──► columns the table lacks? ──► read ──► room in memory? ──► prepare ──► gather ──► micro-batch
                        └ widen, while nothing       in a     the allowance       by the      rejects get
                          is being read              thread                       workers     their lines

The end of a micro-batch depends on the input and the options alone, so that a resumed run finds its earlier slices.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from headrace.events.prepare import Prepared
from headrace.execution.orders import PrepareOrder
from headrace.execution.workers import Task, Workers
from headrace.loading.agreement import Agreement
from headrace.loading.read_ahead import Allowance, ahead
from headrace.observability.stages import Stages
from headrace.options.load import LoadOptions, hash_key
from headrace.options.shape import SEQUENTIAL, Shape
from headrace.reading.chunk import Chunk
from headrace.reading.inputs import Input, ReadOptions
from headrace.storage.rejects import Reject

__all__ = ["FIRST_ROWS", "Intake", "first_rows"]

# while the snapshot is fetched, this many chunks can be prepared
CHUNKS_AHEAD = 3
# of a sequential run's first chunk, at most: nothing can be written while that is read and prepared (decision 28)
FIRST_ROWS = 32_768


@dataclass(frozen=True, slots=True)
class _Read:
    """A chunk that was read and given out to be prepared."""

    item: Input
    task: Task[Prepared]
    size: int


class Intake:
    """The inputs of the run `run_id`, as micro-batches of `shape`.

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

    def micro_batches(self, inputs: Sequence[Input]) -> Generator[tuple[list[Prepared], int], None, None]:
        """Prepared chunks in input order, as many as commit together, and their bytes, which `landed` gives back."""
        chunks: list[Prepared] = []
        rows = size = 0
        for read in self._read_ahead(inputs):
            self._allowance.claim()
            with self._stages.stage("wait.chunk"):
                prepared = read.task.result()
            self._stages.take(prepared.spans)
            prepared = _located(read.item, prepared)
            chunks.append(prepared)
            rows, size = rows + prepared.address.rows, size + read.size
            if rows >= self._shape.rows or size >= self._shape.bytes:
                yield chunks, size
                chunks, rows, size = [], 0, 0
        if chunks:
            yield chunks, size

    def landed(self, size: int) -> None:
        """Note that a micro-batch of `size` bytes is committed: its memory is free again."""
        self._allowance.give_back(size)

    def close(self) -> None:
        """Stop reading: a reader that waits for memory stops waiting."""
        self._allowance.close()

    def _read_ahead(self, inputs: Sequence[Input]) -> Iterator[_Read]:
        """The chunks of all inputs; the table is widened between two inputs, while nothing is being read."""
        waiting = deque(inputs)
        while waiting:
            if not self._fits(waiting[0]):
                self._agreement = self._widen(waiting[0])
            yield from ahead(self._read(waiting), CHUNKS_AHEAD if self.workers.count == 1 else self.workers.count + 1)

    def _read(self, waiting: deque[Input]) -> Iterator[_Read]:
        """The chunks of the inputs up to the first that brings columns which the table lacks. Runs in a thread."""
        while waiting and self._fits(waiting[0]):
            item = waiting.popleft()
            options = replace(self._options.read, first_rows=self._first_rows)
            own = frozenset(item.columns())
            for read in self._stages.reading(item.chunks(self._columns_for(item), options)):
                chunk = _without_absent(read, own)
                self._first_rows = None
                with self._stages.stage("wait.memory"):
                    self._allowance.take(chunk.batch.nbytes)
                order = self._order(chunk)
                self._offer(order)
                yield _Read(item, self.workers.prepare(order), chunk.batch.nbytes)

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


def _without_absent(chunk: Chunk, own: Collection[str]) -> Chunk:
    """The chunk without columns that its input does not have: what they hold is the database's to say.

    One that came up behind the sample may have values all the same.
    """
    batch = chunk.batch
    absent = [
        field.name
        for field, column in zip(batch.schema, batch.columns, strict=True)
        if field.name not in own and column.null_count == batch.num_rows
    ]
    # a batch without columns has no rows
    return replace(chunk, batch=batch.drop_columns(absent)) if 0 < len(absent) < batch.num_columns else chunk


def first_rows(read: ReadOptions, shape: Shape) -> int | None:
    """The number of rows of a run's first chunk, ``None`` for the usual number.

    A select may tell rows of one chunk from those of the next; and the chunks of a micro-batch should be of one size.
    """
    smaller = shape == SEQUENTIAL and read.select is None and read.chunk_rows > FIRST_ROWS and not read.even
    return FIRST_ROWS if smaller else None


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
