"""The task of reading a range of an input and identifying its rows, in a worker or in this process."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from headrace.errors import InputError
from headrace.events.prepare import Prepared, prepare
from headrace.execution.orders import RangeDone, RangeOrder
from headrace.reading.chunk import Chunk
from headrace.reading.ranges import RangeEnd
from headrace.runtime.parcel import Pack, packer
from headrace.runtime.worker_logs import about
from headrace.storage.spans import Span, Stopwatch

__all__ = ["read_range", "read_range_apart"]


def read_range_apart(order: RangeOrder) -> RangeDone:
    """`read_range`, with the result in parcels that can leave this process."""
    return read_range(order, packer(order.spool))


def read_range(order: RangeOrder, pack: Pack | None = None) -> RangeDone:
    """A range's chunks, identified: in this process's memory, or as parcels that `pack` makes.

    Raises `InputUnseen` where this process cannot open the input.
    """
    start = order.reader.start_of(order.part)
    chunks: list[Prepared] = []
    spans: list[Span] = []
    told = about(run=order.run_id, provider=order.provider, chunk=str(order))
    with told, closing(order.reader.read(order.part, start)) as items:
        while True:
            watch = Stopwatch(order.reader.name, 0)
            try:
                with watch.stage("read") as stage:
                    item = next(items)
                    if isinstance(item, Chunk):
                        watch.first_row = item.address.first_row
                        stage.rows, stage.size = item.address.rows, item.batch.nbytes
            except InputError as error:  # it means nothing if the range begins elsewhere
                return RangeDone(start, error=error)
            if isinstance(item, RangeEnd):
                return RangeDone(start, tuple(chunks), item, spans=(*spans, *watch.spans))
            chunks.append(_identified(order, item, pack, watch))
            spans += watch.spans


def _identified(order: RangeOrder, chunk: Chunk, pack: Pack | None, watch: Stopwatch) -> Prepared:
    with watch.stage("prepare", rows=chunk.address.rows) as stage:
        stage.size = chunk.batch.nbytes
        prepared = prepare(chunk, order.contract, order.provider, order.key, order.limits)
    if pack is None:
        return prepared
    with watch.stage("spool", rows=chunk.address.rows):
        return replace(prepared, events=pack(prepared.events.open()), identity=pack(prepared.identity.open()))
