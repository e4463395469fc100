"""The rows that loads have brought tell by which contract their IDs were made. Another contract brings each event a
second time.

a table with rows ──► some of them ──► their IDs once more, by the contract of this run
                                          ├─ an equal ID: it is the same contract
                                          └─ none, in all rows under a receipt: the load is refused

The ledger can be dropped, emptied or restored from another copy, and the events stay; or ``event_id`` is changed by
hand. So the stored contract is a belief too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

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

__all__ = ["SameIds"]

LOOKED_AT = 1_000
"""Rows. One equal ID of 128 bits is proof; the others are there because rows may have been changed by hand."""


class SameIds:
    """The contracts whose IDs were found in their tables. A process looks once for each, and again when events are
    gone that it knew (`forget`).
    """

    def __init__(self) -> None:
        self._found: set[tuple[str, str]] = set()

    def forget(self) -> None:
        """Look again before the next load."""
        self._found.clear()

    def require(
        self,
        store: Store,
        table: str,
        contract: Contract,
        present: pa.Schema,
        options: LoadOptions,
        *,
        stored: bool = True,
    ) -> None:
        """Raises `ContractError` where `table`, of the columns `present`, has rows of earlier loads, and none of them
        has the ID that it gets under `contract`; `UsageError` where the contract is not `stored`, they are other
        providers' rows, and nobody named a provider.
        """
        key = table, contract.to_json()
        if key in self._found:
            return
        names = dict.fromkeys([*dict(contract.identity), *([contract.time] if contract.time else [])])
        columns = pa.schema([(name, present.field(name).type) for name in names if name in present.names])
        columns = columns.append(pa.field(PROVIDER, pa.string()))
        whole = set(names) <= set(columns.names)
        brought, providers = False, Counter[str]()
        for rows in _first_few_then_all(store, table, columns):
            told = rows.where(_brought(contract, rows) if stored else rows.receipts != NO_RECEIPT)
            brought = brought or len(told.ids) > 0
            providers.update(told.columns[PROVIDER].values.to_pylist())
            if whole and _same(contract, rows if stored else told):
                self._found.add(key)
                break
        else:
            if brought:
                raise _refusal(table, contract, stored=stored)
        if not stored and contract.scope == "provider" and options.provider not in providers:
            require_named(table, options, providers)


def _first_few_then_all(store: Store, table: str, columns: pa.Schema) -> Iterator[HeldRows]:
    """Every row is asked for only if the first few tell nothing: it takes a scan."""
    few = 0
    for rows in store.events.rows(table, columns, limit=LOOKED_AT):
        few += len(rows.ids)
        yield rows
    if few == LOOKED_AT:
        yield from store.events.rows(table, columns)


def _refusal(table: str, contract: Contract, *, stored: bool) -> ContractError:
    identity = ", ".join(dict(contract.identity))
    if stored:
        return ContractError(
            "no event of an earlier load has the ID that the stored contract gives it, by the identity "
            f"{identity}: the events would come in a second time",
            where=table,
            hint="headrace_contracts does not belong to these events (a ledger restored from another copy?), or the "
            "column event_id was changed: put back the table's row in headrace_contracts, or the IDs; or load into "
            "another table",
        )
    return ContractError(
        "events of earlier loads are in the table, no contract is stored with it any more, and by the identity "
        f"{identity} these events have other IDs: they would come in a second time",
        where=table,
        hint="name the identity as the first load did (--id, --time, --hash, --scope, --timezone): that stores "
        "the contract anew; or put back the table's row in headrace_contracts; or load into another table",
    )


def _brought(contract: Contract, rows: HeldRows) -> NDArray[np.bool_]:
    """Which rows a load has brought under their identity: a row without one has the ID of its whole row."""
    named: NDArray[np.bool_] = np.zeros(len(rows.receipts), dtype=np.bool_)
    for name in dict(contract.identity):
        if name in rows.columns:
            named |= np.asarray(rows.columns[name].values.is_valid().to_numpy(zero_copy_only=False))
    brought: NDArray[np.bool_] = rows.receipts != NO_RECEIPT
    return brought & named


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
