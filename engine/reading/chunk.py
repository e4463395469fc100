"""A chunk: a bounded run of typed rows in input order, with its address."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.storage.records import Address
from headrace.storage.rejects import Reject

__all__ = ["Chunk"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A bounded run of rows in input order. `address` spans the good rows and the rejects; `batch` has the good rows in
    the schema asked for; `rows` is each one's 0-based number in the input, ``None`` when a select was applied.
    """

    address: Address
    batch: pa.RecordBatch
    rows: NDArray[np.int64] | None
    rejects: list[Reject]
