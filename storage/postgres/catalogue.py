"""What PostgreSQL's catalogue says of a table: asked in one message, under the lock that keeps it so.

    LOCK TABLE … IN ROW EXCLUSIVE MODE ─► relation, columns, unique indexes ─┬─► as they were: nothing to do
     until the end of the transaction     a few rows, 0.4 ms of the server   └─► read anew into `Facts`
     no ALTER, CREATE TRIGGER, TRUNCATE

The lock is what COPY takes itself, a moment earlier. Who else acts on the rows (triggers, rules, partitions, children)
is asked only of a table whose relation says that there may be any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import pyarrow as pa
import sqlalchemy as sa
from psycopg import sql

from headrace.errors import SchemaError
from headrace.storage.postgres.one_message import Driver, Rows, Statement, driver_of, together
from headrace.storage.records import EVENT_ID, PROVIDER, RECEIPT, StatementHook
from headrace.storage.sql.facts import Column, Facts, Keyless, Watcher, require_fit
from headrace.storage.sql.limits import limit_of
from headrace.storage.sql.stored_forms import DECLARED_IN_POSTGRES, StoredForms, forms_of_postgres
from headrace.storage.sql.whole_rows import RowForm, form_of_postgres

__all__ = ["Look", "PostgresCatalogue", "adding", "inserted_into", "lock_of", "look_at"]

NAME_BYTES = 63

Ask = Callable[[Statement], Rows]

_RELATION = (
    "SELECT c.oid, c.relkind::text, c.relhastriggers OR c.relhasrules OR c.relhassubclass, row_security_active(c.oid) "
    "FROM pg_class c WHERE c.oid = to_regclass({})"
)
_COLUMNS = (
    "SELECT attnum, attname::text, atttypid, atttypmod, attnotnull, atthasdef, attidentity::text, attgenerated::text "
    "FROM pg_attribute WHERE attrelid = to_regclass({}) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
)
_KEYS = (
    "SELECT indexrelid::regclass::text, indkey[0], indnkeyatts, indisvalid AND indisready, indimmediate, "
    "indpred IS NULL FROM pg_index WHERE indrelid = to_regclass({}) AND indisunique AND indexprs IS NULL "
    "ORDER BY indexrelid"
)
# 4 and 16 are INSERT and UPDATE; a trigger of every partition and child may act on a row, a rule of the table alone
_WATCHERS = (
    "WITH RECURSIVE tree (oid) AS (SELECT to_regclass({0})::oid UNION SELECT inhrelid FROM pg_inherits JOIN tree "
    "ON inhparent = tree.oid) "
    "SELECT 'trigger', tgname::text, tgrelid::regclass::text, tginitdeferred "
    "FROM pg_trigger JOIN tree ON tgrelid = tree.oid WHERE NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 20 <> 0 "
    "UNION ALL SELECT 'rule', rulename::text, ev_class::regclass::text, false FROM pg_rewrite "
    "WHERE ev_class = to_regclass({0}) AND ev_type IN ('2', '3') AND ev_enabled <> 'D' "
    "UNION ALL SELECT 'child', tree.oid::regclass::text, '', false FROM tree WHERE tree.oid <> to_regclass({0}) "
    "ORDER BY 1 DESC, 2"
)
# by this transaction, in the table and all that belongs to it; those that were rolled back to a savepoint included
_INSERTED = (
    "WITH RECURSIVE tree (oid) AS (SELECT to_regclass({0})::oid UNION SELECT inhrelid FROM pg_inherits JOIN tree "
    "ON inhparent = tree.oid) SELECT coalesce(sum(pg_stat_get_xact_tuples_inserted(tree.oid)), 0)::bigint FROM tree"
)
# a domain is written as what it is made of
_NAMED = (
    "WITH RECURSIVE base (asked, oid, typmod) AS (SELECT oid, oid, -1 FROM pg_type WHERE oid = ANY ({}) UNION "
    "SELECT asked, typbasetype, typtypmod FROM base JOIN pg_type USING (oid) WHERE typtype = 'd') "
    "SELECT asked, format_type(asked, NULL), oid, typmod, typname::text, typtype::text, "
    "ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = pg_type.oid ORDER BY enumsortorder) "
    "FROM base JOIN pg_type USING (oid) WHERE typtype <> 'd'"
)

_UTC = pa.timestamp("us", tz="UTC")
_TEXT = (pa.string(), pa.string())
# name, canonical type and the type on the wire, by the number that the type has in every PostgreSQL
_TYPES: dict[int, tuple[str, pa.DataType | None, pa.DataType]] = {
    16: ("boolean", pa.bool_(), pa.bool_()),
    17: ("bytea", pa.binary(), pa.binary()),
    18: ('"char"', *_TEXT),
    19: ("name", *_TEXT),
    20: ("bigint", pa.int64(), pa.int64()),
    21: ("smallint", pa.int64(), pa.int16()),
    23: ("integer", pa.int64(), pa.int32()),
    25: ("text", *_TEXT),
    700: ("real", pa.float64(), pa.float32()),
    701: ("double precision", pa.float64(), pa.float64()),
    1042: ("character", *_TEXT),
    1043: ("character varying", *_TEXT),
    1082: ("date", pa.date32(), pa.date32()),
    1114: ("timestamp", _UTC, _UTC),
    1184: ("timestamp with time zone", _UTC, _UTC),
    2950: ("uuid", None, pa.binary(16)),
}
_NUMERIC = 1700
_DEFAULT_SCALE = 9
_KINDS = {
    "v": "it is a view: name the table behind it",
    "m": "it is a materialized view, which takes no rows",
    "f": "it is a foreign table, whose rows no key of this server guards",
}


class Look(NamedTuple):
    """The catalogue's rows about one table. Equal ones mean an unchanged table."""

    relation: tuple[Any, ...]
    columns: tuple[tuple[Any, ...], ...]
    keys: tuple[tuple[Any, ...], ...]

    @property
    def kind(self) -> str:
        """``r`` for a plain table, ``p`` for a partitioned one."""
        return str(self.relation[1])

    @property
    def oid(self) -> int:
        """The number of the table."""
        return int(self.relation[0])

    @property
    def crowded(self) -> bool:
        """Whether there may be triggers, rules or children."""
        return bool(self.relation[2])


class PostgresCatalogue:
    """PostgreSQL's catalogue (`headrace.storage.sql.tables.Catalogue`). What is as it was is not read anew."""

    def __init__(self, say: StatementHook) -> None:
        self.facts: dict[str, Facts] = {}
        self._say = say
        self._looks: dict[str, tuple[Look, Rows]] = {}

    def reflect(self, connection: sa.Connection, table: str, *, keyed: bool = True) -> Facts | None:
        """What `table` is like; ``None`` if absent."""
        if len(table.encode()) > NAME_BYTES:
            raise SchemaError(
                f"the table's name has {len(table.encode())} bytes, PostgreSQL cuts it at {NAME_BYTES}",
                where=table,
                hint="choose a shorter --table",
            )
        driver = driver_of(connection)
        answers = together(driver, look_at(table), self._say)
        if not answers[0]:
            return None
        facts = self.learned(driver, table, answers)
        require_fit(table, facts, partial(adding, table), keyed=keyed)
        return facts

    def learned(self, driver: Driver, table: str, answers: Sequence[Rows]) -> Facts:
        """What the answers to `look_at` mean."""
        (relation,), columns, keys = answers
        look = Look(relation, tuple(columns), tuple(keys))

        def ask(statement: Statement) -> Rows:
            return together(driver, [statement], self._say)[0]

        acting = ask(_watchers_of(table)) if look.crowded else []
        if table not in self.facts or self._looks.get(table) != (look, acting):
            self.facts[table] = _facts_of(table, look, acting, ask)
            self._looks[table] = (look, acting)
        return self.facts[table]

    def require_names(self, table: str, columns: Sequence[str]) -> None:
        """Raise `SchemaError` for a name that PostgreSQL would cut."""
        for name in columns:
            if len(name.encode()) > NAME_BYTES:
                raise SchemaError(
                    f"the column's name has {len(name.encode())} bytes, PostgreSQL cuts it at {NAME_BYTES}",
                    where=f"{table}, column {name}",
                    hint="rename it with --select",
                )

    def stored_forms(self, connection: sa.Connection, table: str) -> StoredForms:
        """By the types as they were declared."""
        return forms_of_postgres(_declared(connection, table))

    def row_form(self, connection: sa.Connection, table: str) -> RowForm:
        """By the types as they were declared."""
        return form_of_postgres(_declared(connection, table))


def _declared(connection: sa.Connection, table: str) -> Sequence[Any]:
    name = sql.Identifier(table).as_string(None)  # a value here: SQLAlchemy would double a per cent sign in it
    return connection.execute(DECLARED_IN_POSTGRES, {"table": name}).all()


@cache
def lock_of(table: str) -> Statement:
    """Keep the table as it is until the transaction ends; it may be written to by everybody."""
    return Statement(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(sql.Identifier(table)))


@cache
def look_at(table: str) -> tuple[Statement, ...]:
    """The statements whose answers make a `Look`."""
    return tuple(_about(text, table) for text in (_RELATION, _COLUMNS, _KEYS))


def _watchers_of(table: str) -> Statement:
    """The statement that names who may act on the table's rows."""
    return _about(_WATCHERS, table)


def inserted_into(table: str) -> Statement:
    """The statement that counts the rows which this transaction has put into the table, whoever of it did."""
    return _about(_INSERTED, table)


def _facts_of(table: str, look: Look, acting: Rows, ask: Ask) -> Facts:
    """What the catalogue's rows about `table` mean; `ask` is for types that are not PostgreSQL's own."""
    named = _named({row[2] for row in look.columns} - {*_TYPES, _NUMERIC}, ask)
    columns = [_column(row, named) for row in look.columns]
    numbers = {name: number for number, name, *_ in look.columns}
    rules = [name for kind, name, _, _ in acting if kind == "rule"]
    return Facts(
        columns={column.name: column for column in columns},
        unfit=_unfit(look, rules),
        keyless=_keyless(table, look.keys, numbers.get(EVENT_ID)),
        watchers=tuple(_watcher(row, table) for row in acting if row[0] == "trigger" or look.kind == "r"),
        alone=look.kind == "r",
    )


def adding(table: str, lacking: Sequence[str]) -> str:
    """The statement that adds reserved columns to a table which has a key, and rows, of its own."""
    kinds = {EVENT_ID: "uuid UNIQUE", PROVIDER: "text", RECEIPT: "bigint"}
    added = ", ".join(f"ADD COLUMN {name} {kinds[name]}" for name in lacking)
    return f"ALTER TABLE {sql.Identifier(table).as_string(None)} {added}"


def _about(text: str, table: str) -> Statement:
    name = sql.Literal(sql.Identifier(table).as_string(None))
    return Statement(sql.SQL(text).format(name))


def _unfit(look: Look, rules: Sequence[str]) -> str | None:
    if look.kind in _KINDS:
        return _KINDS[look.kind]
    if rules:
        return f"its rule {rules[0]} stands in for INSERT or UPDATE, and COPY passes rules by: make it a trigger"
    if look.relation[3]:
        return "row security holds for this user: rows that it hides could be loaded twice (BYPASSRLS shows them)"
    return None


def _keyless(table: str, keys: Sequence[tuple[Any, ...]], number: int | None) -> Keyless | None:
    """Why none of the unique indexes decides what is there already, ``None`` if one does."""
    own = [(name, *flags) for name, first, columns, *flags in keys if first == number and columns == 1]
    sound = any(valid and immediate and whole for _, valid, immediate, whole in own)
    alter, add = f"ALTER TABLE {sql.Identifier(table).as_string(None)}", "ADD UNIQUE (event_id)"
    for name, _, immediate, _ in own:
        if not immediate:  # ON CONFLICT fails where there is such a one, whatever others there are
            cure = f"{alter} DROP CONSTRAINT {name}{'' if sound else f', {add}'}"
            return Keyless(f"{name} is DEFERRABLE, so that ON CONFLICT cannot use it", cure)
    if sound:
        return None
    for name, valid, _, _ in own:
        if not valid:
            cure = f"remove the duplicate rows, then DROP INDEX {name}; {alter} {add}"
            return Keyless(f"{name} is invalid: CREATE INDEX CONCURRENTLY failed or is not done", cure)
    return Keyless(
        "an index on more columns, on part of the rows or on an expression does not count" if own else "",
        f"{alter} {add}",
    )


def _watcher(row: tuple[Any, ...], table: str) -> Watcher:
    what, name, relation, deferred = row
    if what == "trigger":
        cure = f"ALTER TABLE {relation} DISABLE TRIGGER {sql.Identifier(name).as_string(None)}"
        return Watcher(f"trigger {name} on {relation}", cure, bool(deferred))
    return Watcher(f"child table {name}", f"ALTER TABLE {name} NO INHERIT {sql.Identifier(table).as_string(None)}")


# Types ----------------------------------------------------------------------------------------------------------


class _Named(NamedTuple):
    said: str
    oid: int
    typmod: int
    text: bool
    labels: tuple[str, ...] = ()


def _named(unknown: set[int], ask: Ask) -> dict[int, _Named]:
    """The types that are not in `_TYPES`: what they are called, and what they are made of."""
    if not unknown:
        return {}
    rows = ask(Statement(sql.SQL(_NAMED).format(sql.Literal(sorted(unknown)))))
    # the labels of an enum and citext travel as text
    return {
        asked: _Named(said, oid, typmod, text=kind == "e" or name == "citext", labels=tuple(labels))
        for asked, said, oid, typmod, name, kind, labels in rows
    }


def _column(row: tuple[Any, ...], named: dict[int, _Named]) -> Column:
    _, name, oid, typmod, not_null, has_default, identity, generated = row
    if oid in named:
        said, text = named[oid].said, named[oid].text
        typmod = named[oid].typmod if named[oid].oid != oid else typmod
        arrow, wire = _TEXT if text else _types(named[oid].oid, typmod)[1:]
        limit = limit_of(named[oid].oid, typmod, said, named[oid].labels)
    else:
        said, arrow, wire = _types(oid, typmod)
        limit = limit_of(oid, typmod, said)
    if arrow is None and name != EVENT_ID:
        wire = None  # a uuid is for event IDs alone
        said = "numeric with a negative scale" if said == "numeric" else said
    filled = bool(has_default or identity)
    return Column(
        name,
        said,
        arrow,
        wire,
        filled=filled,
        generated=bool(generated) or identity == "a",
        required=bool(not_null) and not filled,
        limit=limit,
    )


def _types(oid: int, typmod: int) -> tuple[str, pa.DataType | None, pa.DataType | None]:
    """The type's name, its canonical type and the type on the wire."""
    if oid != _NUMERIC:
        return _TYPES.get(oid, ("numeric", None, None))
    # precision in the upper half, behind a header of four bytes; the scale has eleven bits, of which one is its sign
    scale = _DEFAULT_SCALE if typmod < 0 else (((typmod - 4) & 0x7FF) ^ 0x400) - 0x400
    if scale < 0:  # it would round away whole digits
        return "numeric", None, None
    decimal = pa.decimal128(38, scale)
    return "numeric", decimal, decimal
