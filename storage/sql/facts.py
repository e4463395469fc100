"""The facts of a table when events are written to it, from the database's catalogue, and their consequences.

    catalogue, under the commit's lock ─► Facts ─┬─► may events go in at all?      require_fit
                                                 ├─► may these columns?            require_columns
                                                 ├─► as which types?               fitted
                                                 └─► who else writes meanwhile?    watched

Facts that were read earlier are a belief: a commit reads them again in its own transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from headrace.errors import SchemaError, StoreError
from headrace.storage.postgres.column_widths import narrowed
from headrace.storage.records import EVENT_ID, PROVIDER, RECEIPT, RESERVED_COLUMNS
from headrace.storage.sql.limits import Limit

__all__ = ["Column", "Facts", "Keyless", "Watcher", "fitted", "gone", "require_columns", "require_fit"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `said` is its type as the database names it, `arrow` the canonical type, `wire` the type whose form
    the database reads, both ``None`` for a type that Headrace does not write.

    The database itself gives a value to a column that is `filled` (default, identity, generated) where a row has none,
    and takes none for one that is `generated`. One that is `required` must have a value. `limit` is what it cannot hold
    of its canonical type.
    """

    name: str
    said: str
    arrow: pa.DataType | None
    wire: pa.DataType | None
    filled: bool = False
    generated: bool = False
    required: bool = False
    limit: Limit | None = None


@dataclass(frozen=True, slots=True)
class Watcher:
    """A trigger, rule or child table that may change, redirect or swallow inserted rows: its `name` as the user knows
    it, and the statement that removes it. A `deferred` one acts when the transaction ends.
    """

    name: str
    cure: str
    deferred: bool = False


class Keyless(NamedTuple):
    """The reason why no unique key decides on duplicates, and the statement that creates one."""

    why: str
    cure: str


@dataclass(frozen=True, slots=True)
class Facts:
    """A table. `unfit` says why no event can be written to it, `keyless` why its keys are no authority; ``None``: they
    can, they are. `alone` tells a table whose rows all lie in itself, not in partitions.
    """

    columns: Mapping[str, Column]
    unfit: str | None = None
    keyless: Keyless | None = None
    watchers: tuple[Watcher, ...] = ()
    alone: bool = True
    schema: pa.Schema = field(init=False)

    def __post_init__(self) -> None:
        data = [one for one in self.columns.values() if one.name not in RESERVED_COLUMNS and one.arrow is not None]
        object.__setattr__(self, "schema", pa.schema([(one.name, one.arrow) for one in data]))

    @property
    def filled(self) -> frozenset[str]:
        """The columns that get a value where a row has none."""
        return frozenset(one.name for one in self.columns.values() if one.filled)


_RESERVED: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
    EVENT_ID: ("uuid (PostgreSQL) or BLOB (SQLite)", pa.types.is_fixed_size_binary),
    PROVIDER: ("text", pa.types.is_string),
    RECEIPT: ("bigint", pa.types.is_integer),
}


def require_fit(table: str, facts: Facts, add: Callable[[Sequence[str]], str], *, keyed: bool = True) -> None:
    """Raise `SchemaError` unless the table has the reserved columns and, where it must be `keyed`, takes events under a
    unique key on ``event_id`` alone. `add` gives the statement that adds reserved columns.
    """
    lacking = [name for name in RESERVED_COLUMNS if name not in facts.columns]
    if lacking:
        raise SchemaError(
            f"the table exists, but has no column {', '.join(lacking)}",
            where=table,
            hint=f"{add(lacking)}; or load into another table",
        )
    if not keyed:
        return
    if facts.unfit is not None:
        raise SchemaError(facts.unfit, where=table, hint="load into another table, or remove the obstacle")
    for name in RESERVED_COLUMNS:
        _require_reserved(table, facts.columns[name])
    if facts.keyless is not None:
        why = f" ({facts.keyless.why})" if facts.keyless.why else ""
        raise SchemaError(
            f"the table has no unique key on event_id, the authority on duplicates{why}",
            where=table,
            hint=f"{facts.keyless.cure}; or load into another table",
        )


def _require_reserved(table: str, column: Column) -> None:
    wanted, holds = _RESERVED[column.name]
    if column.generated or column.wire is None or not holds(column.wire):
        said = "generated" if column.generated else f"of type {column.said}"
        raise SchemaError(
            f"{column.name} is {said}, and must be {wanted}",
            where=f"{table}, column {column.name}",
            hint="rename that column and run the same command again, which says how to add one; "
            "or load into another table",
        )


def require_columns(table: str, facts: Facts, names: Iterable[str], *, whole: bool = True) -> None:
    """Raise `SchemaError` unless rows with the columns `names` can be written, and, where those are the `whole` row,
    nothing is missing.
    """
    given = set(names)
    for name in given & set(facts.columns):
        column, where = facts.columns[name], f"{table}, column {name}"
        if column.generated:
            raise SchemaError(
                "the input has a value for a column that the database generates",
                where=where,
                hint=f"leave it out: --select 'SELECT * EXCLUDE (\"{name}\") FROM source'",  # noqa: S608 - advice
            )
        if column.wire is None:
            raise SchemaError(
                f"Headrace cannot write a column of type {column.said}",
                where=where,
                hint="change the column's type, leave it out with --select, or load into another table",
            )
    missing = [one.name for one in facts.columns.values() if one.required and one.name not in given]
    missing = [name for name in missing if name not in RESERVED_COLUMNS]
    if whole and missing:
        raise SchemaError(
            f"the table needs a value for {', '.join(missing)}, which the input does not have",
            where=table,
            hint="supply it with --select, or give the column a DEFAULT in the database",
        )


def fitted(table: str, facts: Facts, rows: pa.RecordBatch) -> dict[str, pa.Array]:
    """The columns of `rows` in the table's types. Raises `SchemaError` where one is gone or cannot hold a value."""
    lacking = [name for name in rows.schema.names if name not in facts.columns]
    if lacking:
        raise SchemaError(f"the table has no column {', '.join(lacking)}", where=table, hint="run the load again")
    return {
        name: narrowed(column, facts.columns[name].wire, name, table)
        for name, column in zip(rows.schema.names, rows.columns, strict=True)
    }


def gone(table: str) -> StoreError:
    """The table is not there any more."""
    return StoreError(
        "the table is gone: somebody dropped or renamed it during this run",
        where=table,
        hint="run the same command again, which creates the table again, or restore the old table first",
    )
