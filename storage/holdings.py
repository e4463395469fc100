"""What a store tells a verification: which IDs the table holds under which receipt, and what each receipt claims."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_RECEIPT", "Holdings", "LedgerEntry"]

NO_RECEIPT = 0
"""Stands for a null: receipts are numbered from 1."""


class LedgerEntry(NamedTuple):
    """What a receipt says about the table: how many events it inserted, and their digest.

    `digest` is as `headrace.storage.digest.Digest.to_bytes` wrote it, ``None`` under receipts of early versions.
    """

    receipt_id: int
    inputs_key: str
    inserted: int
    digest: bytes | None


class Holdings(NamedTuple):
    """Some rows of an event table: packed 16-byte IDs, and the receipt of each, `NO_RECEIPT` where it is null."""

    ids: bytes
    receipts: NDArray[np.int64]
