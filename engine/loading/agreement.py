"""Agreement before loading: columns, types and contract, between the input, the table and the options.

    inferred from a sample ─┐
    --type                  ├─► one schema ─► contract (stored one wins, or is refused) ─► table created or widened
    the table, if it exists ┘

Types are inferred on the first load and pinned afterwards by the table and its contract, so that a file in which
``brightness`` looks like integers gives the same IDs as one in which it looks like floats.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from headrace.errors import ContractError, SchemaError
from headrace.events.alert_judge import check_rules
from headrace.events.revisions import require_version
from headrace.loading.contract_drift import (
    identity_is_whole_row,
    in_pinned_types,
    require_any_column,
    require_columns,
    require_pinned_types,
    require_same_row,
    require_time_type,
    with_others,
    without_identity,
)
from headrace.loading.ownership import require_own_events
from headrace.loading.same_ids import SameIds
from headrace.options.load import LoadOptions, hash_key
from headrace.partitioning.contract import Contract, LogicalType, arrow_type, key_check, logical_type
from headrace.reading.inputs import Input
from headrace.reading.text_stream import ESCAPED, unescape
from headrace.storage.records import RESERVED_COLUMNS, RESERVED_TABLES
from headrace.storage.sql.limits import Limits
from headrace.storage.store import Store

__all__ = [
    "Agreement",
    "agree",
    "agree_on_input",
    "contract_differences",
    "contract_for",
    "in_stored_timezone",
    "require_identity",
    "stored_contract",
]

# A first load looks into this many files to agree on types; each further file is looked into when its turn comes.
SAMPLED_INPUTS = 8


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of a run: the table's data columns in canonical types, the contract, and whether the table was
    created just now (its snapshot is then known to be empty).

    `columns` are the own columns, before any select, of the examined inputs, by the input's name. With `whole_row` the
    identity is every column of an input, and no input may have another column. With `keeps_missing` rows without
    identity are identified by all their columns, which the contract must know. `limits` say what the table's columns
    cannot hold of their canonical types.
    """

    table: str
    schema: pa.Schema
    contract: Contract
    created: bool
    columns: Mapping[str, Mapping[str, LogicalType]] = field(default_factory=dict)
    whole_row: bool = False
    keeps_missing: bool = False
    limits: Limits = field(default_factory=dict)

    def fits(self, columns: Iterable[str]) -> bool:
        """Whether an input with these columns can be read under this agreement: it lacks no column, and has no new
        column.
        """
        identity, own = dict(self.contract.identity), set(columns)
        needed = {*identity, *([self.contract.time] if self.contract.time else [])}
        told = {*identity, *dict(self.contract.others)} if self.keeps_missing else own
        return needed <= own <= told and own <= set(identity if self.whole_row else self.schema.names)


def agree(
    store: Store, table: str, inputs: Sequence[Input], options: LoadOptions, *, same_ids: SameIds | None = None
) -> Agreement:
    """Settle schema and contract, and create or widen the table. A refused load changes nothing.

    `same_ids` are the contracts that this process has found to be those of their tables' events.

    Raises `ContractError` if the stored contract differs from the options, `SchemaError` if types conflict.
    """
    if table.lower() in RESERVED_TABLES:
        raise SchemaError(f"{table} is a name that Headrace reserves", hint="choose another with --table")
    stored = store.ledger.pinned_contract(table)
    actual = store.tables.schema(table)
    held = None if stored is None else Contract.from_json(stored)
    if held is not None and actual is not None:
        require_pinned_types(table, held, actual)
        require_own_events(store, table, held, options)
    present = actual if held is None else in_pinned_types(held, actual or pa.schema([]))
    sampled = inputs[:SAMPLED_INPUTS]
    found = [_columns_of(item, present, options) for item in sampled]
    merged = _merged(found)
    require_any_column([item.name for item in sampled], merged.names)
    schema = _settle_types(table, present, merged, options.read.types)
    if held is not None:  # what only the contract knows is no column of the table again
        there = {*dict(held.identity), *merged.names, *(() if actual is None else actual.names)}
        schema = pa.schema([column for column in schema if column.name in there])
    if len(sampled) == len(inputs) and options.read.select is None:
        _require_known_types(options.read.types, schema)
    brought = {name for own in found for name in own.names}
    filled = store.tables.filled_columns(table) - brought if actual is not None else frozenset()
    for names in {tuple(own.names): None for own in found if actual is not None}:
        store.tables.require_writable(table, names, whole=options.enrichment is None)
    wanted = _settle_contract(held, table, schema, options, filled)
    if actual is not None:
        (same_ids or SameIds()).require(store, table, wanted, actual, options, stored=held is not None)
    whole_row = options.identity is None and identity_is_whole_row(wanted, actual)
    check_rules(options.alerts, schema, all_known=options.enrichment is None)
    for item, own in zip(sampled, found, strict=True):
        _require_shape(item.name, own.names, wanted, whole_row=whole_row)
    named = [(item.name, own.names) for item, own in zip(sampled, found, strict=True)]
    require_version(options.version_column, schema, wanted, named)
    contract = without_identity(wanted, options.missing_id, _typed_as(schema, merged.names))
    if not store.ledger.exists():
        store.ledger.prepare()  # not before: what is refused changes nothing
    _put_down(store, table, stored, contract if contract.others else wanted)
    created = False
    if actual is None or not set(schema) <= set(actual):  # a poll of a table that is as it should be writes nothing
        created = store.tables.create_or_widen(
            table, schema, time_index=contract.time if contract.layout == "hash" else None
        )
    return Agreement(
        table=table,
        schema=schema,
        contract=contract,
        created=created,
        columns=_own_columns(sampled, found, options),
        whole_row=whole_row,
        keeps_missing=options.missing_id == "keep-whole-row" or bool(contract.others),
        limits={} if actual is None else store.tables.limits(table),
    )


def in_stored_timezone(store: Store, table: str, options: LoadOptions) -> LoadOptions:
    """`options` with the time zone of the contract stored with `table`, unless they name a time zone."""
    stored = store.ledger.pinned_contract(table)
    if options.timezone is not None or stored is None:
        return options
    return replace(options, read=replace(options.read, timezone=Contract.from_json(stored).timezone))


def agree_on_input(store: Store, agreement: Agreement, item: Input, options: LoadOptions) -> Agreement:
    """Widen the agreement by the columns that `item` alone has. Raises `ContractError` if it may not have them."""
    found = _columns_of(item, agreement.schema, options)
    _require_shape(item.name, found.names, agreement.contract, whole_row=agreement.whole_row)
    require_version(options.version_column, agreement.schema, agreement.contract, [(item.name, found.names)])
    store.tables.require_writable(agreement.table, found.names, whole=options.enrichment is None)
    wider, contract = agreement.schema, agreement.contract
    if not set(found.names) <= set(wider.names):
        wider = _settle_types(agreement.table, wider, found, options.read.types)
    if agreement.keeps_missing:
        contract = without_identity(contract, "keep-whole-row", _typed_as(wider, found.names))
        _put_down(store, agreement.table, store.ledger.pinned_contract(agreement.table), contract)
    if wider is not agreement.schema:
        store.tables.create_or_widen(agreement.table, wider, time_index=None)
    return replace(agreement, schema=wider, contract=contract)


def contract_differences(store: Store, table: str, options: LoadOptions) -> list[str] | None:
    """Where `options` contradict the contract stored with `table`; ``None`` if there is no such table yet.

    Raises `ContractError` for a column that the table lacks, `SchemaError` for a table without its unique key, or
    with a column whose type is not the contract's any more.
    """
    stored, present = store.ledger.pinned_contract(table), store.tables.schema(table)
    if stored is None or present is None:
        return None
    held = Contract.from_json(stored)
    require_pinned_types(table, held, present)
    return list(held.differences(_asked(in_stored_timezone(store, table, options), present, held)))


def require_identity(item: Input, contract: Contract) -> None:
    """Raises `ContractError` if `item` lacks an identity column."""
    require_columns(item.name, item.columns(), contract)


def contract_for(store: Store, table: str, options: LoadOptions) -> Contract:
    """The contract stored with `table`, as a load with `options` would use it. Raises `ContractError` if there is
    none.
    """
    held = stored_contract(store, table)
    return without_identity(held, options.missing_id, store.tables.schema(table, keyed=False) or pa.schema([]))


def stored_contract(store: Store, table: str) -> Contract:
    """The contract stored with `table`. Raises `ContractError` if there is none."""
    text = store.ledger.pinned_contract(table)
    if text is None:
        known = ", ".join(store.ledger.tables()) or "none"
        raise ContractError(
            f"no contract is stored for the table {table!r}",
            hint=f"load events into it first, or name another with --table; tables with a contract: {known}",
        )
    return Contract.from_json(text)


# Types ----------------------------------------------------------------------------------------------------------


def _columns_of(item: Input, present: pa.Schema | None, options: LoadOptions) -> pa.Schema:
    """The input's columns. Types are inferred only where it brings a column that the table lacks: it takes a while."""
    names = item.columns()
    if present is None or not set(names) <= set(present.names):
        return item.infer(options.read)
    return pa.schema([present.field(name) for name in names])


def _merged(found: Iterable[pa.Schema]) -> pa.Schema:
    merged: dict[str, pa.DataType] = {}
    for column in (column for schema in found for column in schema):
        merged[column.name] = _common(merged.get(column.name), column.type)
    return pa.schema(list(merged.items()))


def _own_columns(
    inputs: Sequence[Input], found: Sequence[pa.Schema], options: LoadOptions
) -> dict[str, dict[str, LogicalType]]:
    """The inputs' columns with their types; a select's input is looked into once more, without the select."""
    if options.read.select is not None:
        found = [item.infer(replace(options.read, select=None)) for item in inputs]
    return {
        item.name: {column.name: logical_type(column.type) for column in schema}
        for item, schema in zip(inputs, found, strict=True)
    }


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
    _refuse_unwritable(inferred.names)
    types: dict[str, pa.DataType] = {} if present is None else {column.name: column.type for column in present}
    for name, kind in asked.items():
        held = types.get(name)
        if held is not None and logical_type(held) != kind:
            raise SchemaError(
                f"--type asks for {kind}, but the table holds {logical_type(held)}",
                where=f"{table}, column {name}",
                hint=f"leave out --type {name}=…, or load into another table",
            )
    for column in inferred:
        wanted = asked.get(column.name)
        types.setdefault(column.name, column.type if wanted is None else arrow_type(wanted))
    return pa.schema(list(types.items()))


def _require_known_types(asked: Mapping[str, LogicalType], schema: pa.Schema) -> None:
    unknown = sorted(set(asked) - set(schema.names))
    if unknown:
        raise SchemaError(
            f"--type names the column {unknown[0]!r}, which neither the input nor the table has",
            hint=f"the columns are {', '.join(schema.names)}; names match exactly",
        )


def _refuse_reserved(names: Iterable[str]) -> None:
    for name in names:
        if name.lower() in RESERVED_COLUMNS:
            raise SchemaError(
                f"the input has a column {name!r}, a name that Headrace reserves",
                # S608 sees SQL being built; this is advice for a person to read
                hint=f"rename it: --select 'SELECT * RENAME (\"{name}\" AS source_{name}) FROM source'",  # noqa: S608
            )


def _refuse_unwritable(names: Iterable[str]) -> None:
    for name in names:
        if not name or "\0" in name or re.search(ESCAPED, name):
            raise SchemaError(
                f"the input has a column {unescape(name)!r}, a name that a database cannot hold",
                hint="give it another name in the input",
            )


# Contract -------------------------------------------------------------------------------------------------------


def _settle_contract(
    held: Contract | None, table: str, schema: pa.Schema, options: LoadOptions, filled: Collection[str]
) -> Contract:
    """The stored contract, which what was asked for must not contradict; without one, what was asked for.

    `filled` are columns that no input has and the database fills: no part of what makes an event the same event.
    """
    own = pa.schema([column for column in schema if column.name not in filled])
    wanted = _asked(options, schema, held or _by_default(options, own))
    if held is not None:
        _refuse_difference(table, held, wanted)
    require_time_type(held or wanted, schema)
    return held or wanted


def _put_down(store: Store, table: str, stored: str | None, wanted: Contract) -> None:
    """Store the contract, or what it knows more than the one that is `stored`. Another process may have been quicker:
    then its contract counts.
    """
    text = store.ledger.pin_contract(table, wanted.to_json()) if stored is None else stored
    held = Contract.from_json(text)
    _refuse_difference(table, held, wanted)
    while (more := with_others(held, wanted.others)) != held:
        text = store.ledger.extend_contract(table, text, more.to_json())
        held = Contract.from_json(text)


def _typed_as(schema: pa.Schema, names: Iterable[str]) -> pa.Schema:
    """The columns `names` with the types that `schema` has for them."""
    return pa.schema([schema.field(name) for name in names])


def _by_default(options: LoadOptions, schema: pa.Schema) -> Contract:
    """What a first load pins where the user said nothing: every column is identity."""
    everything = tuple((column.name, logical_type(column.type)) for column in schema)
    whole_row = options.identity is None
    return Contract(identity=everything, time=options.time, timezone=options.read.timezone, whole_row=whole_row)


def _asked(options: LoadOptions, schema: pa.Schema, base: Contract) -> Contract:
    """`base`, overridden by every part of the contract that the user named."""
    key = hash_key() if (options.hash or base.hash) == "blake2b" else None
    return Contract(
        identity=base.identity if options.identity is None else _typed(options.identity, schema),
        time=_known(options.time, schema) or base.time,
        hash=options.hash or base.hash,
        scope=options.scope or base.scope,
        timezone=options.read.timezone,
        key_check=None if key is None else key_check(key),
        version=base.version,
        whole_row=base.whole_row,
        others=base.others,
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


def _require_shape(name: str, columns: Sequence[str], contract: Contract, *, whole_row: bool) -> None:
    """Raises `ContractError` unless the input has the identity's columns and, where that is the whole row, no other."""
    require_columns(name, columns, contract, whole_row=whole_row)
    if whole_row:
        require_same_row(name, columns, contract)
