"""Contract drift: whether table and input still match the contract.

    contract ──► each identity column's type ──► is the table's another one? refused: its events would get other IDs
             └─► is the identity the whole row? ──► has an input more columns? refused: events would be lost

An event ID follows the contract alone. A table can be altered without Headrace, and inputs can get new columns: both
are reported, before anything is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from headrace.errors import ContractError, SchemaError
from headrace.options.choices import MissingId
from headrace.partitioning.contract import Contract, LogicalType, arrow_type, logical_type

__all__ = [
    "drifts",
    "identity_is_whole_row",
    "in_pinned_types",
    "require_any_column",
    "require_columns",
    "require_pinned_types",
    "require_same_row",
    "require_time_type",
    "with_others",
    "without_identity",
]

_TIMES = ("timestamp", "date")
_IN_POSTGRES: dict[LogicalType, str] = {
    "bool": "boolean",
    "integer": "bigint",
    "float": "double precision",
    "timestamp": "timestamptz",
    "date": "date",
    "decimal": "numeric",
    "string": "text",
    "bytes": "bytea",
}


def drifts(contract: Contract, present: pa.Schema) -> Iterator[tuple[str, LogicalType, LogicalType]]:
    """The columns whose type in the table is not the contract's: name, the contract's type, the table's."""
    for name, kind in (*contract.identity, *contract.others):
        found = logical_type(present.field(name).type) if name in present.names else kind
        if found != kind:
            yield name, kind, found


def require_pinned_types(table: str, contract: Contract, present: pa.Schema) -> None:
    """Raises `SchemaError` if an identity column of the table no longer has the contract's type, or the time
    column does not hold times.
    """
    for name, kind, found in drifts(contract, present):
        raise SchemaError(
            f"the column is of type {found} now, but the contract, which defines the event IDs, has it as {kind}",
            where=f"{table}, column {name}",
            hint=f"give the column its type back (in PostgreSQL: ALTER TABLE … ALTER COLUMN {name} TYPE "
            f"{_IN_POSTGRES[kind]}), or load into another table: events would get other IDs, and be stored twice",
        )
    require_time_type(contract, present)


def require_time_type(contract: Contract, schema: pa.Schema) -> None:
    """Raises `ContractError` if the time column does not hold times."""
    kind = None if contract.time is None or contract.time not in schema.names else _kind(schema, contract.time)
    if kind not in (None, *_TIMES):
        raise ContractError(
            f"the time column {contract.time} is of type {kind}, not timestamp or date",
            hint=f"pin it with --type {contract.time}=timestamp, or cast it in --select",
        )


def in_pinned_types(contract: Contract, present: pa.Schema) -> pa.Schema:
    """The table's columns with the contract's types if it has them, and the identity columns that the table lacks.

    So the input's event IDs are the same whatever happened to the table.
    """
    pinned = dict((*contract.identity, *contract.others))
    types = {field.name: field.type for field in present}
    for name, kind in pinned.items():
        if name not in types or logical_type(types[name]) != kind:
            types[name] = arrow_type(kind)
    if contract.time in types and logical_type(types[contract.time]) not in _TIMES:
        types[contract.time] = arrow_type("timestamp")
    return pa.schema(list(types.items()))


def with_others(contract: Contract, others: Iterable[tuple[str, LogicalType]]) -> Contract:
    """`contract` with those of `others` that are beside the identity; the types that it has already count."""
    known, identity = dict(contract.others), dict(contract.identity)
    for name, kind in others:
        if name not in identity:
            known.setdefault(name, kind)
    return replace(contract, others=tuple(known.items()))


def without_identity(contract: Contract, missing_id: MissingId | None, columns: pa.Schema) -> Contract:
    """`contract` for a run with the option `missing_id`, which says how a row of `columns` without identity is treated.

    Without the option, the choice of an earlier run holds.
    """
    if missing_id == "reject" or (missing_id is None and not contract.others):
        return replace(contract, others=())
    return with_others(contract, [(field.name, logical_type(field.type)) for field in columns])


def identity_is_whole_row(contract: Contract, present: pa.Schema | None) -> bool:
    """Whether the identity is every column of the input because the user named none.

    A contract stored by an older release does not record this: then it is assumed if the table has no other column.
    """
    if contract.whole_row is not None:
        return contract.whole_row
    return present is not None and set(dict(contract.identity)) == set(present.names)


def require_same_row(name: str, columns: Sequence[str], contract: Contract) -> None:
    """Raises `ContractError` if the input `name` has a column that the whole row of `contract` lacks.

    Rows that differ in that column alone would count as one event, and all but the first would be lost.
    """
    more = [column for column in columns if column not in dict(contract.identity)]
    if more:
        known = ", ".join(dict(contract.identity))
        raise ContractError(
            f"the row has grown by {_listed(more)}: without --id the whole row is the identity, and in this table "
            f"that is {known}; rows that differ in {_listed(more)} alone would be lost as duplicates",
            where=name,
            hint=f"name the identity columns (--id {known.replace(' ', '')} if these columns make an event the same "
            "event), load into another --table, or leave the column out with --select",
        )


def require_any_column(inputs: Sequence[str], columns: Sequence[str]) -> None:
    """Raises `ContractError` if no column was found in the `inputs`, and so nothing that could be an event."""
    if inputs and not columns:
        raise ContractError(
            "no line of it could be read as a record, or there is none: no column is known",
            where=inputs[0],
            hint="look at its first lines: it may be empty, of another format (--format says which), or not in UTF-8",
        )


def require_columns(name: str, columns: Sequence[str], contract: Contract, *, whole_row: bool = False) -> None:
    """Raises `ContractError` if the input `name` lacks an identity column."""
    missing = sorted(_needed(contract) - set(columns))
    if missing:
        named = "; or name the identity columns with --id (in a new table)" if whole_row else ""
        raise ContractError(
            f"the input lacks {', '.join(missing)}, which belong to the events' identity",
            where=name,
            hint=f"supply it with --select{named}; the input's columns are {', '.join(columns)}",
        )


def _needed(contract: Contract) -> set[str]:
    return {*dict(contract.identity), *([contract.time] if contract.time else [])}


def _kind(schema: pa.Schema, name: str) -> LogicalType:
    return logical_type(schema.field(name).type)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
