"""A chunk: a bounded run of typed rows in input order, with its address."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.storage.records import Address
from headrace.storage.rejects import Reject

__all__ = ["Chunk", "one_batch", "without_absent"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A bounded run of rows in input order. `address` spans the good rows and the rejects; `batch` has the good rows in
    the schema asked for; `rows` is each one's 0-based number in the input, ``None`` when a select was applied.
    """

    address: Address
    batch: pa.RecordBatch
    rows: NDArray[np.int64] | None
    rejects: list[Reject]


def without_absent(chunk: Chunk, own: Collection[str]) -> Chunk:
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


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """The table's rows as one batch."""
    batches = table.combine_chunks().to_batches()
    return (
        batches[0]
        if batches
        else pa.RecordBatch.from_arrays([pa.array([], field.type) for field in table.schema], schema=table.schema)
    )
