"""Inputs that were loaded before, read and identified anew under the contract that is stored with their table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from headrace.errors import SchemaError
from headrace.events.prepare import Prepared, prepare
from headrace.loading.agreement import require_identity
from headrace.loading.contract_drift import in_pinned_types
from headrace.options.load import LoadOptions, hash_key
from headrace.partitioning.contract import Contract
from headrace.reading.inputs import Input
from headrace.storage.store import Store

__all__ = ["columns_of", "identified"]


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
