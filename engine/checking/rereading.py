"""Inputs that were loaded before, read and identified anew under the contract that is stored with their table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.checking.row_addresses import Places
from headrace.errors import SchemaError
from headrace.events.prepare import Prepared, prepare
from headrace.loading.agreement import contract_for, require_identity
from headrace.loading.contract_drift import in_pinned_types, require_same_row
from headrace.loading.ownership import require_own_events
from headrace.options.load import LoadOptions, hash_key
from headrace.partitioning.contract import Contract
from headrace.reading.inputs import Input
from headrace.storage.store import Store

__all__ = ["Rereading", "columns_of", "identified"]


class Rereading:
    """The inputs of a verification, which can be read as often as needed; `places` numbers their rows."""

    def __init__(self, store: Store, inputs: Sequence[Input], table: str, options: LoadOptions) -> None:
        """Raise `ContractError` if the table has no stored contract, or the contract is not for these inputs."""
        self.inputs = inputs
        self.options = options
        self.contract = contract_for(store, table, options)
        self.places = Places(inputs)
        self._store = store
        self._table = table
        require_own_events(store, table, self.contract, options)
        if options.identity is None and self.contract.whole_row:
            for item in inputs:
                require_same_row(item.name, item.columns(), self.contract)

    def chunks(self) -> Iterator[tuple[int, Input, Prepared, NDArray[np.int64]]]:
        """Read the inputs, chunk by chunk: the input's number, it, its events, and the numbers of their places."""
        for number, item in enumerate(self.inputs):
            for prepared in identified(self._store, self._table, self.contract, [item], self.options):
                yield number, item, prepared, self.places.tags(prepared)


def identified(
    store: Store, table: str, contract: Contract, inputs: Sequence[Input], options: LoadOptions
) -> Iterator[Prepared]:
    """The inputs read and identified anew under `contract`, chunk by chunk."""
    schema, limits = in_pinned_types(contract, columns_of(store, table)), store.tables.limits(table)
    key = hash_key() if contract.hash == "blake2b" else None
    for item in inputs:
        require_identity(item, contract)
        for chunk in item.chunks(schema, options.read):
            yield prepare(chunk, contract, options.provider, key, limits)


def columns_of(store: Store, table: str) -> pa.Schema:
    """The table's data columns, also if the table has lost its key. Raises `SchemaError` if there is no table."""
    schema = store.tables.schema(table, keyed=False)
    if schema is None:
        raise SchemaError(
            "the table does not exist, although its contract does", where=table, hint="load its inputs again"
        )
    return schema
