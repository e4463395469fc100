"""Event tables: their definition in the database's catalogue, creating and widening them, a single row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa
import sqlalchemy as sa

from headrace.errors import SchemaError
from headrace.storage.records import EVENT_ID, RESERVED_COLUMNS
from headrace.storage.sql.database import Database
from headrace.storage.sql.facts import Facts, require_columns
from headrace.storage.sql.limits import Limits
from headrace.storage.sql.schema import event_table, kind
from headrace.storage.sql.stored_forms import StoredForms
from headrace.storage.sql.whole_rows import RowForm

__all__ = ["Catalogue", "Tables"]

LONGEST_USUAL = 50  # of an index's name, so that a number fits behind it


class Catalogue(Protocol):
    """One database's catalogue.

    `facts` are what each table was like when it was looked at last; in a commit, what it is like under that commit's
    lock.
    """

    facts: dict[str, Facts]

    def reflect(self, connection: sa.Connection, table: str, *, keyed: bool = True) -> Facts | None:
        """What `table` is like as `connection` sees it, its own uncommitted changes included; ``None`` if absent.

        Raises `SchemaError` as `Tables.schema` does.
        """

    def require_names(self, table: str, columns: Sequence[str]) -> None:
        """Raise `SchemaError` unless the database can have these columns beside each other, under these names."""

    def stored_forms(self, connection: sa.Connection, table: str) -> StoredForms:
        """What the table's own types make of the canonical values that are written into it."""

    def row_form(self, connection: sa.Connection, table: str) -> RowForm:
        """How a whole row of `table` is fetched and told."""


class Tables:
    """The part of a store that knows tables of events and makes them."""

    def __init__(self, database: Database, catalogue: Catalogue) -> None:
        self._database = database
        self._catalogue = catalogue

    def schema(self, table: str, *, keyed: bool = True) -> pa.Schema | None:
        """The data columns of `table` in canonical Arrow types (without reserved columns, and those of types that no
        canonical one maps to), ``None`` if absent.

        Raises `SchemaError` if the table exists but lacks a reserved column or, unless `keyed` is false, no events can
        be written to it under a unique key on ``event_id``.
        """
        with self._database.reading() as connection:
            facts = self._catalogue.reflect(connection, table, keyed=keyed)
        return None if facts is None else facts.schema

    def limits(self, table: str) -> Limits:
        """What the columns of `table` cannot hold, as it was when it was last looked at."""
        facts = self._lately(table)
        columns = () if facts is None else facts.columns.values()
        return {one.name: one.limit for one in columns if one.limit is not None}

    def filled_columns(self, table: str) -> frozenset[str]:
        """The data columns to which the database itself gives a value where a row has none: by DEFAULT, an identity, or
        because they are generated.
        """
        facts = self._lately(table)
        return frozenset() if facts is None else facts.filled - {*RESERVED_COLUMNS}

    def require_writable(self, table: str, columns: Sequence[str], *, whole: bool = True) -> None:
        """Raise `SchemaError` where rows with these data columns cannot be written to `table`, if it exists: one is
        generated or of a type that Headrace does not write, or, where they are the `whole` row, one is missing that
        may not be null and has no default.
        """
        facts = self._lately(table)
        if facts is not None:
            require_columns(table, facts, columns, whole=whole)

    def _lately(self, table: str) -> Facts | None:
        """What the table was like when it was looked at last: who asks early is asked again by the commit."""
        if table not in self._catalogue.facts:
            self.schema(table)
        return self._catalogue.facts.get(table)

    def stored_forms(self, table: str) -> StoredForms:
        """What the table's own types make of the canonical values that are written into it."""
        with self._database.reading() as connection:
            return self._catalogue.stored_forms(connection, table)

    def row(self, table: str, event_id: bytes) -> dict[str, Any] | None:
        """The event's row with all its columns as they are told, ``None`` if there is none."""
        events = sa.table(table, sa.column(EVENT_ID))
        with self._database.reading() as connection:
            form = self._catalogue.row_form(connection, table)
            same = events.c[EVENT_ID] == self._database.dialect.event_id(event_id)
            found = sa.select(*form.columns).select_from(events).where(same)
            held = connection.execute(found).mappings().first()
        return None if held is None else form.row(held)

    # Making -------------------------------------------------------------------------------------------------------

    def create_or_widen(self, table: str, schema: pa.Schema, *, time_index: str | None) -> bool:
        """Create `table` with `schema` and the reserved columns, or add the columns it lacks (nullable).

        Returns whether it was created. A column of `schema` whose type differs from the table's raises `SchemaError`
        naming both. `time_index` names a column to index (layout ``hash`` with a time column).
        """
        present = self.schema(table)
        if present is not None and not _missing(table, schema, present):
            return False
        return self._database.write(
            lambda connection: self._create_or_widen(connection, table, schema, time_index), table
        )

    def _create_or_widen(
        self, connection: sa.Connection, table: str, schema: pa.Schema, time_index: str | None
    ) -> bool:
        self._database.dialect.exclusive(connection)
        # another process may have been quicker while we waited for the lock
        facts = self._catalogue.reflect(connection, table)
        present = () if facts is None else facts.columns
        self._catalogue.require_names(table, [*RESERVED_COLUMNS, *present, *schema.names])
        if facts is None:
            self._create(connection, table, schema, time_index)
            return True
        lacking = _missing(table, schema, facts.schema)
        require_columns(table, facts, [field.name for field in lacking], whole=False)
        for column in event_table(table, pa.schema(lacking), connection.dialect.name).columns:
            if column.name not in RESERVED_COLUMNS:
                _add_column(connection, table, column)
        return False

    def _create(self, connection: sa.Connection, table: str, schema: pa.Schema, time_index: str | None) -> None:
        events = event_table(table, schema, connection.dialect.name)
        events.create(connection)
        if time_index is not None:
            index = sa.Index(None, events.c[time_index])
            # a table of this name that was renamed keeps its index, and the index its name
            names = connection.dialect.identifier_preparer
            usual, taken = names.format_index(index).strip('"'), 1
            while self._database.dialect.has_index(connection, names.format_index(index).strip('"')):
                taken += 1
                index.name = sa.sql.quoted_name(f"{usual[:LONGEST_USUAL]}_{taken}", quote=None)
            index.create(connection)


def _add_column(connection: sa.Connection, table: str, column: sa.Column[Any]) -> None:
    target = connection.dialect.identifier_preparer.quote(table)
    specification = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {target} ADD COLUMN {specification}")


def _missing(table: str, schema: pa.Schema, present: pa.Schema | None) -> list[pa.Field]:
    """The fields of `schema` that the table lacks. Raises `SchemaError` where a type differs."""
    held = {} if present is None else {field.name: field.type for field in present}
    for field in schema:
        if field.name in held and kind(held[field.name]) != kind(field.type):
            raise SchemaError(
                f"the input has {kind(field.type)}, the table holds {kind(held[field.name])}",
                where=f"{table}, column {field.name}",
                hint=f"convert it: --type {field.name}={kind(held[field.name])} or --select; or name another --table",
            )
    return [field for field in schema if field.name not in held]
