"""What SQLite says of a table, by its pragmas and `sqlite_master`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from headrace.errors import SchemaError
from headrace.storage.records import EVENT_ID, PROVIDER, RECEIPT
from headrace.storage.sql.facts import Column, Facts, Keyless, Watcher, gone, require_fit
from headrace.storage.sql.schema import arrow_of_sqlite
from headrace.storage.sql.stored_forms import StoredForms, forms_of_sqlite
from headrace.storage.sql.whole_rows import RowForm, form_of_sqlite

__all__ = ["SqliteCatalogue"]

_COLUMNS = sa.text(
    'SELECT its.name, its.type, of.name, of.type, of.pk, of."notnull", of.dflt_value IS NOT NULL, of.hidden '
    "FROM sqlite_master AS its, pragma_table_xinfo(its.name) AS of "
    "WHERE its.type IN ('table', 'view') AND its.name = :t COLLATE NOCASE"
)
_KEYS = sa.text(
    "SELECT list.name, list.origin, list.partial, info.name FROM pragma_index_list(:t) AS list, "
    'pragma_index_info(list.name) AS info WHERE list."unique" = 1 ORDER BY list.seq, info.seqno'
)
_TRIGGERS = sa.text(
    "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = :t COLLATE NOCASE ORDER BY name"
)
_MADE_BY = sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :t COLLATE NOCASE")
# what has no clause in it: comments and texts
_NO_SQL = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'", re.DOTALL)
_QUOTES = str.maketrans({'"': " ", "`": " ", "[": " ", "]": " "})
# on event_id itself the clause does nothing, since Headrace's own INSERT says what is done there
_ON_THE_KEY = re.compile(
    r"(\bevent_id\b[^,()]*?\b(PRIMARY\s+KEY|UNIQUE)|\b(PRIMARY\s+KEY|UNIQUE)\s*\(\s*event_id\s*\))"
    r"\s*ON\s+CONFLICT\s+\w+",
    re.IGNORECASE,
)
_SILENT = re.compile(r"\bON\s+CONFLICT\s+(REPLACE|IGNORE)\b", re.IGNORECASE)
_GENERATED = (2, 3)  # virtual, stored
# what SQLite keeps 16 bytes in as they are, in a STRICT table too
_HOLDS_IDS = ("BLOB", "ANY", "")


class SqliteCatalogue:
    """SQLite's catalogue (`headrace.storage.sql.tables.Catalogue`)."""

    def __init__(self) -> None:
        self.facts: dict[str, Facts] = {}
        self._versions: dict[str, int] = {}  # the file's schema_version when `facts` were read in a commit

    def reflect(self, connection: sa.Connection, table: str, *, keyed: bool = True) -> Facts | None:
        """What `table` is like; ``None`` if absent."""
        facts = _facts_of(connection, table)
        if facts is None:
            return None
        require_fit(table, facts, partial(_adding, table), keyed=keyed)
        self.facts[table] = facts
        return facts

    def learned(self, connection: sa.Connection, table: str) -> Facts:
        """What `table` is like now: the transaction of `connection` holds the only write lock, and so it stays."""
        version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
        if self._versions.get(table) != version:
            if self.reflect(connection, table) is None:
                raise gone(table)
            self._versions[table] = version
        return self.facts[table]

    def require_names(self, table: str, columns: Sequence[str]) -> None:
        """Raise `SchemaError` for two names that SQLite takes for the same."""
        spelt: dict[bytes, str] = {}
        for name in columns:
            # bytes, since SQLite knows the case of ASCII letters alone
            if (other := spelt.setdefault(name.encode().lower(), name)) != name:
                raise SchemaError(
                    f"SQLite does not distinguish upper and lower case: {other!r} and {name!r} are one column to it",
                    where=f"{table}, column {name}",
                    hint="rename it with --select, or load into PostgreSQL",
                )

    def stored_forms(self, connection: sa.Connection, table: str) -> StoredForms:
        """By the canonical types of the columns."""
        facts = self.reflect(connection, table, keyed=False)
        return forms_of_sqlite(None if facts is None else facts.schema)

    def row_form(self, connection: sa.Connection, table: str) -> RowForm:
        """By the types as they were declared."""
        facts = _facts_of(connection, table)
        if facts is None:
            return RowForm([sa.literal_column("*")], {})  # SQLite says that there is no such table
        return form_of_sqlite((one.name, one.said) for one in facts.columns.values())


def _facts_of(connection: sa.Connection, table: str) -> Facts | None:
    """What `table` is like as `connection` sees it, ``None`` if there is none.

    Raises `SchemaError` where SQLite has it under another spelling.
    """
    found = connection.execute(_COLUMNS, {"t": table}).all()
    if not found:
        return None
    if found[0][0] != table:
        raise SchemaError(
            f"SQLite does not distinguish upper and lower case, and has this table as {found[0][0]!r}",
            where=table,
            hint=f"--table {found[0][0]}, or another name",
        )
    indexes = connection.execute(_KEYS, {"t": table}).all()
    number = _row_number(found, indexes)
    columns = [_column(row, number) for row in found]
    triggers = connection.execute(_TRIGGERS, {"t": table}).scalars()
    return Facts(
        columns={column.name: column for column in columns},
        unfit=_unfit(found[0][1], connection.execute(_MADE_BY, {"t": table}).scalar() or ""),
        keyless=None if _keyed(found, indexes) else Keyless("", _making_key(table)),
        watchers=tuple(Watcher(f"trigger {name}", f"DROP TRIGGER {_quoted(name)}") for name in triggers),
    )


def _adding(table: str, lacking: Sequence[str]) -> str:
    """The statements that add reserved columns to a table which has rows."""
    kinds = {EVENT_ID: "BLOB", PROVIDER: "TEXT", RECEIPT: "BIGINT"}
    added = [f"ALTER TABLE {_quoted(table)} ADD COLUMN {name} {kinds[name]}" for name in lacking]
    return "; ".join([*added, _making_key(table)] if EVENT_ID in lacking else added)


def _unfit(kind: str, made_by: str) -> str | None:
    """Why no event can be written to the table or view that was made by this statement."""
    if kind == "view":
        return "it is a view: name the table behind it"
    clauses = _ON_THE_KEY.sub(" ", _NO_SQL.sub(" ", made_by).translate(_QUOTES))
    if silent := _SILENT.search(clauses):
        return (
            f"one of its constraints says ON CONFLICT {silent[1].upper()}: SQLite would delete rows, leave rows out or "
            "change a value without a word"
        )
    return None


def _making_key(table: str) -> str:
    return f"CREATE UNIQUE INDEX {_quoted(f'{table}_event_id')} ON {_quoted(table)} ({EVENT_ID})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _column(row: Sequence[Any], number: str | None) -> Column:
    _, _, name, declared, _, not_null, has_default, hidden = row
    generated = hidden in _GENERATED
    filled = bool(has_default) or generated or name == number
    arrow = arrow_of_sqlite(declared)
    holds_ids = name == EVENT_ID and declared.upper() in _HOLDS_IDS
    wire = pa.binary(16) if holds_ids else arrow
    return Column(
        name,
        declared or "no type",
        arrow,
        wire,
        filled=filled,
        generated=generated,
        required=bool(not_null) and not filled,
    )


def _row_number(columns: Sequence[Sequence[Any]], indexes: Sequence[Sequence[Any]]) -> str | None:
    """The column that is SQLite's own number of a row, and gets one where a row has none."""
    key = [(name, declared) for _, _, name, declared, rank, *_ in columns if rank]
    indexed = any(origin == "pk" for _, origin, _, _ in indexes)
    return str(key[0][0]) if len(key) == 1 and key[0][1].upper() == "INTEGER" and not indexed else None


def _keyed(columns: Sequence[Sequence[Any]], indexes: Sequence[Sequence[Any]]) -> bool:
    """Whether a unique key is on the IDs alone, and holds for every row."""
    keys: dict[str, list[str]] = {}
    for index, _, on_part, column in indexes:
        if not on_part:
            keys.setdefault(index, []).append(column)
    primary = [name for _, _, name, _, rank, *_ in columns if rank]
    return [EVENT_ID] in [primary, *keys.values()]
