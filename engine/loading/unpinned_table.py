"""A table whose contract is gone: the rows that loads have brought tell by which identity their IDs were made.

no contract is stored ──► rows under a receipt ──► their IDs once more, by the contract that this run would store
                                                      ├─ an equal ID: it is the same contract
                                                      └─ none: refused, for every event would come in a second time

The ledger can be dropped, emptied or restored from an older copy, and the events stay.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.errors import ContractError
from headrace.loading.ownership import require_named
from headrace.options.load import LoadOptions, hash_key
from headrace.partitioning.contract import Contract
from headrace.partitioning.encoding import unencodable
from headrace.partitioning.identity import event_ids, unplaceable
from headrace.storage.held import HeldRows
from headrace.storage.records import NO_RECEIPT, PROVIDER
from headrace.storage.store import Store

__all__ = ["require_same_ids"]

LOOKED_AT = 1_000
"""Rows. One equal ID of 128 bits is proof; the others are there because rows may have been changed by hand."""


def require_same_ids(store: Store, table: str, wanted: Contract, present: pa.Schema, options: LoadOptions) -> None:
    """Raises `ContractError` where `table`, of the columns `present` and without a stored contract, has rows of earlier
    loads, and none of them has the ID that it would get under the contract `wanted`; `UsageError` where they are other
    providers' rows, and nobody named one.
    """
    ids = _brought(store, table)
    if not ids:
        return
    names = [*dict(wanted.identity), *([wanted.time] if wanted.time else [])]
    columns = {name: present.field(name).type for name in names if name in present.names} | {PROVIDER: pa.string()}
    rows = list(store.events.rows(table, pa.schema(list(columns.items())), ids=ids))
    if not set(names) <= set(columns) or not any(_same(wanted, some) for some in rows):
        raise ContractError(
            "events of earlier loads are in the table, no contract is stored with it any more, and by the identity "
            f"{', '.join(dict(wanted.identity))} these events have other IDs: they would come in a second time",
            where=table,
            hint="name the identity as the first load did (--id, --time, --hash, --scope, --timezone): that stores "
            "the contract anew; or put back the table's row in headrace_contracts; or load into another table",
        )
    providers = Counter(name for some in rows for name in some.columns[PROVIDER].values.to_pylist())
    if wanted.scope == "provider" and options.provider not in providers:
        require_named(table, options, providers)


def _brought(store: Store, table: str) -> list[bytes]:
    """The IDs of some rows that are under a receipt."""
    ids: list[bytes] = []
    for held in store.events.holdings(table):
        packed = np.frombuffer(held.ids, dtype="V16")[held.receipts != NO_RECEIPT]
        ids += [one.tobytes() for one in packed[: LOOKED_AT - len(ids)]]
        if len(ids) >= LOOKED_AT:
            break
    return ids


def _same(contract: Contract, rows: HeldRows) -> bool:
    """Whether any of `rows` has the ID that it has under `contract`."""
    rows = rows.where(_identifiable(contract, rows))
    providers = rows.columns[PROVIDER].values
    for provider in providers.unique().to_pylist():
        own = rows.where(np.asarray(providers.to_numpy(zero_copy_only=False) == provider))
        columns = [own.columns[name].values for name in dict(contract.identity)]
        times = own.columns[contract.time].values if contract.time else None
        ids = event_ids(contract, columns, times, provider, hash_key())
        if np.any(np.all(ids == own.ids, axis=1)):
            return True
    return False


def _identifiable(contract: Contract, rows: HeldRows) -> NDArray[np.bool_]:
    """Which rows hold values that have an encoding."""
    good = np.asarray(rows.columns[PROVIDER].values.is_valid().to_numpy(zero_copy_only=False))
    for column in rows.columns.values():
        if column.odd is not None:
            good = good & np.asarray(column.odd.is_null().to_numpy(zero_copy_only=False))
    for name, kind in contract.identity:
        if kind == "float":
            good = good & ~unencodable(rows.columns[name].values)
    if contract.time is not None:
        times = rows.columns[contract.time].values
        good = good & np.asarray(times.is_valid().to_numpy(zero_copy_only=False))
        if contract.layout == "time":
            good = good & ~unplaceable(times)
    return good
