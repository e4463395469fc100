"""Agreement before loading: columns, types and contract, between the input, the table and what was asked for.

    inferred from a sample ─┐
    --type                  ├─► one schema ─► contract (stored one wins, or is refused) ─► table created or widened
    the table, if it exists ┘

Types are inferred on the first load and pinned afterwards by the table and its contract, so that a file in which
``brightness`` looks like integers gives the same IDs as one in which it looks like floats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from headrace.config import LoadOptions, hash_key
from headrace.errors import ContractError, SchemaError
from headrace.partitioning.contract import Contract, LogicalType, arrow_type, key_check, logical_type
from headrace.source import Input
from headrace.storage.base import RESERVED_COLUMNS, Store

__all__ = ["Agreement", "agree", "agree_on_input", "stored_contract"]

# A first load looks into this many files to agree on types; each further file is looked into when its turn comes.
SAMPLED_INPUTS = 8


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a run holds to: the table's data columns in canonical types, the contract, and whether the table was
    created just now (its snapshot is then known to be empty).
    """

    table: str
    schema: pa.Schema
    contract: Contract
    created: bool


def agree(store: Store, table: str, inputs: Sequence[Input], options: LoadOptions) -> Agreement:
    """Settle schema and contract, and create or widen the table.

    Raises `ContractError` when the stored contract differs from what was asked for, `SchemaError` when types clash.
    """
    present = store.table_schema(table)
    inferred = _inferred(_with_news(inputs[:SAMPLED_INPUTS], present), options)
    schema = _settle_types(table, present, inferred, options.read.types)
    contract = _settle_contract(store, table, schema, options)
    for item in inputs[:SAMPLED_INPUTS]:
        _require_identity(item, contract)
    index = contract.time if contract.layout == "hash" else None
    created = store.create_or_widen(table, schema, time_index=index)
    return Agreement(table, schema, contract, created)


def agree_on_input(store: Store, agreement: Agreement, item: Input, options: LoadOptions) -> Agreement:
    """Widen the agreement by the columns that `item` alone brings."""
    _require_identity(item, agreement.contract)
    if set(item.columns()) <= set(agreement.schema.names):
        return agreement
    wider = _settle_types(agreement.table, agreement.schema, item.infer(options.read), options.read.types)
    store.create_or_widen(agreement.table, wider, time_index=None)
    return Agreement(agreement.table, wider, agreement.contract, agreement.created)


def stored_contract(store: Store, table: str) -> Contract:
    """The contract stored with `table`. Raises `ContractError` if there is none."""
    text = store.pinned_contract(table)
    if text is None:
        known = ", ".join(store.tables()) or "none"
        raise ContractError(
            f"no contract is stored for the table {table!r}",
            hint=f"load something into it first, or name another with --table; tables with a contract: {known}",
        )
    return Contract.from_json(text)


# Types ----------------------------------------------------------------------------------------------------------


def _with_news(inputs: Iterable[Input], present: pa.Schema | None) -> list[Input]:
    """The inputs that bring columns the table lacks: only their types need to be inferred."""
    known = set() if present is None else set(present.names)
    return [item for item in inputs if not set(item.columns()) <= known]


def _inferred(inputs: Iterable[Input], options: LoadOptions) -> pa.Schema:
    merged: dict[str, pa.DataType] = {}
    for item in inputs:
        for field in item.infer(options.read):
            merged[field.name] = _common(merged.get(field.name), field.type)
    return pa.schema(list(merged.items()))


def _common(one: pa.DataType | None, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of both: equal types, numbers as the wider, date and timestamp, else text."""
    if one is None or one.equals(other):
        return other
    kinds = {logical_type(one), logical_type(other)}
    for wider in ("float", "decimal", "timestamp"):
        if wider in kinds and kinds <= _NARROWER[wider]:
            return one if logical_type(one) == wider else other
    return pa.string()


_NARROWER: dict[str, set[LogicalType]] = {
    "float": {"float", "integer"},
    "decimal": {"decimal", "integer"},
    "timestamp": {"timestamp", "date"},
}


def _settle_types(
    table: str, present: pa.Schema | None, inferred: pa.Schema, asked: Mapping[str, LogicalType]
) -> pa.Schema:
    """The table's types, then what was asked for, then what was inferred; every column of either, the table's first."""
    _refuse_reserved(inferred.names)
    types: dict[str, pa.DataType] = {} if present is None else {field.name: field.type for field in present}
    for name, kind in asked.items():
        held = types.get(name)
        if held is not None and logical_type(held) != kind:
            raise SchemaError(
                f"--type asks for {kind}, but the table holds {logical_type(held)}",
                where=f"{table}, column {name}",
                hint=f"leave out --type {name}=…, or load into another table",
            )
    for field in inferred:
        wanted = asked.get(field.name)
        types.setdefault(field.name, field.type if wanted is None else arrow_type(wanted))
    return pa.schema(list(types.items()))


def _refuse_reserved(names: Iterable[str]) -> None:
    for name in names:
        if name.lower() in RESERVED_COLUMNS:
            raise SchemaError(
                f"the input has a column {name!r}, a name that Headrace keeps for itself",
                # S608 sees SQL being built; this is advice for a person to read
                hint=f"rename it: --select 'SELECT * RENAME (\"{name}\" AS source_{name}) FROM source'",  # noqa: S608
            )


# Contract -------------------------------------------------------------------------------------------------------


def _settle_contract(store: Store, table: str, schema: pa.Schema, options: LoadOptions) -> Contract:
    stored = store.pinned_contract(table)
    if stored is None:
        wanted = _asked(options, schema, _by_default(options, schema))
        stored = store.pin_contract(table, wanted.to_json())
    held = Contract.from_json(stored)
    _refuse_difference(table, held, _asked(options, schema, held))
    return held


def _by_default(options: LoadOptions, schema: pa.Schema) -> Contract:
    """What a first load pins where the user said nothing: every column is identity."""
    everything = tuple((field.name, logical_type(field.type)) for field in schema)
    return Contract(identity=everything, time=options.time, timezone=options.read.timezone)


def _asked(options: LoadOptions, schema: pa.Schema, base: Contract) -> Contract:
    """`base`, overridden by every part of the contract that the user named."""
    key = hash_key() if (options.hash or base.hash) == "blake2b" else None
    return Contract(
        identity=base.identity if options.identity is None else _typed(options.identity, schema),
        time=_known(options.time, schema) or base.time,
        hash=options.hash or base.hash,
        scope=options.scope or base.scope,
        timezone=base.timezone if options.read.timezone == "UTC" else options.read.timezone,
        key_check=None if key is None else key_check(key),
        version=base.version,
    )


def _typed(names: Sequence[str], schema: pa.Schema) -> tuple[tuple[str, LogicalType], ...]:
    return tuple((name, logical_type(schema.field(_known(name, schema)).type)) for name in names)


def _known(name: str | None, schema: pa.Schema) -> str | None:
    if name is not None and name not in schema.names:
        raise ContractError(
            f"the input has no column {name!r}", hint=f"its columns are {', '.join(schema.names)}; names match exactly"
        )
    return name


def _refuse_difference(table: str, held: Contract, asked: Contract) -> None:
    differences = held.differences(asked)
    if differences:
        listed = "\n    ".join(differences)
        raise ContractError(
            f"this run's contract differs from the one stored with the table:\n    {listed}",
            where=table,
            hint="drop the options that differ to load under the stored contract, or name another --table: "
            "the same events would get other IDs, and be stored twice",
        )


def _require_identity(item: Input, contract: Contract) -> None:
    needed = [name for name, _ in contract.identity] + ([contract.time] if contract.time else [])
    missing = sorted(set(needed) - set(item.columns()))
    if missing:
        raise ContractError(
            f"the input lacks {', '.join(missing)}, part of what makes an event the same event",
            where=item.name,
            hint=f"supply it with --select; the input's columns are {', '.join(item.columns())}",
        )
