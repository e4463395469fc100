"""The user's select over the relation ``source``, and the rows on which it fails.

    chunk ──► select ──► its rows
                └─ fails on a value ──► halved until the rows are found that make it fail by themselves: rejects
                                        the others ──► select, once more and together

A select that fails for another reason than a value, or on every examined row, is wrong, and ends the load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from headrace.errors import ConfigurationError
from headrace.reading.types.arrow_types import canonical_type, logical_name
from headrace.reading.types.cast import BadValue

if TYPE_CHECKING:
    import duckdb

__all__ = ["Select"]

# so few rows are tried one by one
FEW = 4
# where so many fail, and none has passed, as many others are looked at before it is gone on
SUSPICIOUS = 100


class Select:
    """Runs selects over tables of the input `name` on the connection that `connect` gives."""

    def __init__(self, connect: Callable[[], duckdb.DuckDBPyConnection], name: str) -> None:
        self._connect = connect
        self._name = name

    def over(self, table: pa.Table, select: str) -> tuple[pa.Table, list[BadValue]]:
        """The rows that `select` makes of `table`, and the rows of `table` that make it fail, in order.

        Raises `ConfigurationError` for a select that is wrong.
        """
        import duckdb  # noqa: PLC0415 - as in `headrace.reading.sql`

        try:
            return self._run(table, select), []
        except (duckdb.DataError, duckdb.InvalidInputException) as error:
            failure = self._failure(error)
        except duckdb.Error as error:
            raise self._failure(error) from error
        bad = self._failing(table, select, (duckdb.DataError, duckdb.InvalidInputException))
        if not bad:
            raise failure
        good = np.ones(table.num_rows, dtype=bool)
        good[[one.index for one in bad]] = False
        try:
            return self._run(table.filter(pa.array(good)), select), bad
        except duckdb.Error as error:
            raise self._failure(error) from error

    def columns(self, table: pa.Table, select: str) -> pa.Schema:
        """The columns of what `select` makes of `table`: those of no rows, where it fails on some."""
        import duckdb  # noqa: PLC0415 - as in `headrace.reading.sql`

        try:
            return self._run(table, select).schema
        except duckdb.Error:
            return self.over(table.slice(0, 0), select)[0].schema

    def canonical(self, table: pa.Table, select: str) -> pa.Schema:
        """The same columns, in canonical types."""
        return pa.schema(
            [
                (
                    one.name,
                    canonical_type(logical_name(one.type), one.type.scale if pa.types.is_decimal(one.type) else 0),
                )
                for one in self.columns(table, select)
            ]
        )

    def leaves(self, table: pa.Table, select: str) -> bool:
        """Whether `select` leaves anything of `table`: a row to load or a row to reject."""
        import duckdb  # noqa: PLC0415 - as in `headrace.reading.sql`

        try:
            return bool(self._run(table, select).num_rows)
        except duckdb.Error:
            return True

    def _failing(self, table: pa.Table, select: str, kinds: tuple[type[Exception], ...]) -> list[BadValue]:
        """The rows that make `select` fail by themselves; none where it fails without any."""
        if self._why(table.slice(0, 0), select, kinds) is not None:
            return []
        bad, left, passed = [], [range(table.num_rows)], 0
        while left:
            rows = left.pop()
            why = self._why(table.slice(rows.start, len(rows)), select, kinds)
            if why is None:
                passed += len(rows)
            elif len(rows) == 1:
                bad.append(BadValue(rows.start, "", f"the select fails on it: {why}"))
                if len(bad) == SUSPICIOUS and not passed and not self._passes_anywhere(table, select, kinds):
                    return []
            else:
                size = (len(rows) + 1) // 2 if len(rows) > FEW else 1
                left += reversed([rows[at : at + size] for at in range(0, len(rows), size)])
        return bad

    def _passes_anywhere(self, table: pa.Table, select: str, kinds: tuple[type[Exception], ...]) -> bool:
        step = max(1, table.num_rows // SUSPICIOUS)
        return any(self._why(table.slice(at, 1), select, kinds) is None for at in range(0, table.num_rows, step))

    def _why(self, table: pa.Table, select: str, kinds: tuple[type[Exception], ...]) -> str | None:
        try:
            self._run(table, select)
        except kinds as error:
            return str(error).strip().splitlines()[0]
        return None

    def _run(self, table: pa.Table, select: str) -> pa.Table:
        connection = self._connect()
        connection.register("source", table)
        try:
            result: pa.Table = connection.sql(select).to_arrow_table()
        finally:
            connection.unregister("source")
        return result

    def _failure(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(
            f"the select fails: {error}", where=self._name, hint="it is DuckDB SQL over the relation source"
        )
