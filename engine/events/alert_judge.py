"""Judging new events by alert rules: whole columns, in whatever process commits them.

    new events ──► + the table's other columns, null ──► each rule: which rows? ──► payload and key of each alert
                                                           │ fails
                                                           └─► the run fails; or, with on_error="reject", the batch is
                                                               halved until the rows that make it fail are found

A rule sees each event as a row of the table: whatever the input, the chunk or the mode, it gives the same answer. An
SQL predicate stands in a WHERE clause, which has no aggregates and no windows, and reaches no file and no network.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.errors import ConfigurationError, WorkerError
from headrace.events.alert_rule import AlertRule, alert_key, name_bytes, version_bytes
from headrace.events.choices import OnError
from headrace.events.enrich import guarded, halved, load_function
from headrace.partitioning.contract import logical_type
from headrace.reading.sql import connect, identifier, literal
from headrace.storage.outbox import ALERT_COLUMNS
from headrace.storage.records import EVENT_ID, PROVIDER

if TYPE_CHECKING:
    import duckdb

__all__ = ["Alerting", "Judged", "check_rules", "judge", "own_connection"]

Mask = NDArray[np.bool_]
Answer = tuple[Mask, dict[int, str]]
"""Of which rows a rule holds, and the rows on which it fails, with the reason."""
Judge = Callable[[pa.RecordBatch, OnError], Answer]
# asking a database why takes 2 ms a row
MOST_REASONS = 100
_AS_MANY = f"fails on this row and on {MOST_REASONS:,} others of its slice, which give the reason"


@dataclass(frozen=True, slots=True)
class Alerting:
    """The rules of a run, the table's data `columns`, the treatment of rows that make a rule fail, and the `version`
    column, whose value is part of the alert keys of rules with `revisions`.
    """

    rules: tuple[AlertRule, ...]
    columns: pa.Schema
    on_error: OnError = "fail"
    version: str | None = None

    @property
    def of_revisions(self) -> Alerting | None:
        """Only the rules with `revisions`, ``None`` if there are none."""
        asking = tuple(rule for rule in self.rules if rule.revisions)
        return replace(self, rules=asking) if asking else None

    @property
    def users_code(self) -> str | None:
        """The user's functions among the rules, by name; ``None`` if all rules are SQL."""
        return ", ".join(rule.what for rule in self.rules if rule.function is not None) or None


@dataclass(frozen=True, slots=True)
class Judged:
    """The events on which no rule failed, the alerts that they raise (`ALERT_COLUMNS`, ``None`` for none), and the
    positions of the rows that `failed`, with the reason. `rows` are the positions in `events` that raise the alerts.
    """

    events: pa.RecordBatch
    alerts: pa.RecordBatch | None
    failed: Sequence[tuple[int, str]]
    rows: NDArray[np.int64]


def check_rules(rules: Sequence[AlertRule], columns: pa.Schema, *, all_known: bool) -> None:
    """Raise `ConfigurationError` for a wrong rule: its SQL, one of its columns, or a missing function.

    Unless `all_known`, a function of the user may add columns to `columns`, so only the SQL's grammar is judged.
    """
    for rule in rules:
        if isinstance(rule.function, str):
            load_function(rule.function)
    predicates = [rule for rule in rules if rule.where is not None]
    if not predicates:
        return
    reserved = [(EVENT_ID, pa.binary(16)), (PROVIDER, pa.string())]
    every = pa.schema([*columns, *(pa.field(*column) for column in reserved)])
    with _Relation(every.empty_table()) as relation:
        for rule in predicates:
            relation.check(rule, grammar_only=not all_known)


def judge(alerting: Alerting, events: pa.RecordBatch, without_value: Sequence[str], where: str) -> Judged:
    """Judge `events` (those of a slice) by all rules. `without_value` are columns of which no event has a value.

    Raises `WorkerError` if a rule fails and failures are not allowed, `ConfigurationError` for a wrong rule.
    """
    rules = sorted(alerting.rules, key=lambda rule: name_bytes(rule.name))
    rows = _as_rows_of_the_table(events, alerting.columns, without_value)
    judges = [_judge_of(rule, where) for rule in rules]
    answers = [judge_rows(rows, alerting.on_error) for judge_rows in judges]
    raised, failed = np.stack([mask for mask, _ in answers]), _first_reasons(answers)
    good = np.ones(events.num_rows, bool)
    good[[row for row, _ in failed]] = False
    left = events.filter(pa.array(good)) if failed else events
    raised[:, ~good] = False
    told = _alerts_of(rules, raised, rows, alerting.version)
    return Judged(left, told, failed, (np.cumsum(good) - 1)[_which(raised)[0]])


def _first_reasons(answers: Sequence[Answer]) -> list[tuple[int, str]]:
    """The rows on which a rule fails, in row order, each with what the first of its rules says."""
    reasons = {row: reason for _, failed in reversed(answers) for row, reason in failed.items()}
    return sorted(reasons.items())


# Rules ----------------------------------------------------------------------------------------------------------


def _judge_of(rule: AlertRule, where: str) -> Judge:
    name = f"alert rule {rule.name}"
    if rule.where is not None:
        return lambda rows, on_error: _by_sql(rule, rows, name, where, on_error)
    function = load_function(rule.function) if isinstance(rule.function, str) else rule.function
    if function is None:
        raise ConfigurationError("a rule is either an SQL predicate or a function", where=name)

    def told(part: pa.RecordBatch, *, traced: bool = False) -> Mask:
        return guarded(lambda: _answer(function(part), part.num_rows), f"{name}: {rule.what}", where, traced=traced)

    return lambda rows, on_error: _one_by_one(told, rows) if on_error == "reject" else (told(rows, traced=True), {})


def _one_by_one(told: Callable[[pa.RecordBatch], Mask], rows: pa.RecordBatch) -> Answer:
    """What `told` says of each row, and of which it fails."""
    parts = list(halved(told, rows))
    failed = {row: reason for at, mask, reason in parts if mask is None for row in at}
    masks = [np.zeros(len(at), bool) if mask is None else mask for at, mask, _ in parts]
    return np.concatenate(masks), failed


def _by_sql(rule: AlertRule, rows: pa.RecordBatch, name: str, where: str, on_error: OnError) -> Answer:
    with _Relation(rows) as relation:
        relation.check(rule)
        try:
            return guarded(lambda: relation.holds(rule), name, where), {}
        except WorkerError:
            if on_error == "fail":
                raise
        tried = relation.tried(rule)

    def told(part: pa.RecordBatch) -> Mask:
        with _Relation(part) as relation:
            return guarded(lambda: relation.holds(rule), name, where, traced=False)

    if tried is None:
        return _one_by_one(told, rows)
    said, fails = tried
    failed = np.flatnonzero(fails)
    _, reasons = _one_by_one(told, rows.take(pa.array(failed[:MOST_REASONS])))
    # a row that fails among others, yet not by itself, has been judged after all
    alone = {int(failed[at]): reason for at, reason in reasons.items()}
    if len(alone) < min(len(failed), MOST_REASONS):
        return _one_by_one(told, rows)
    return said, alone | dict.fromkeys(failed[MOST_REASONS:].tolist(), f"{name} {_AS_MANY}")


def own_connection() -> duckdb.DuckDBPyConnection:
    """The DuckDB connection of the calling thread; it opens no file."""
    return _mine.connection


def _answer(result: object, rows: int) -> Mask:
    """What a function said of each row. Raises `WorkerError` for anything but that."""
    said = result.combine_chunks() if isinstance(result, pa.ChunkedArray) else result
    if not isinstance(said, pa.Array):
        said = pa.array(said)
    if pa.types.is_null(said.type):
        said = said.cast(pa.bool_())
    if not pa.types.is_boolean(said.type):
        raise WorkerError(f"returned {said.type}, not a boolean for each row")
    if len(said) != rows:
        raise WorkerError(f"returned {len(said)} booleans for {rows} rows")
    return _mask(said)


def _mask(column: pa.Array) -> Mask:
    mask: Mask = pc.fill_null(column, fill_value=False).to_numpy(zero_copy_only=False)
    return mask


class _ThreadDuckDB(threading.local):
    """A DuckDB for each thread, which opens no file: starting one takes longer than judging a small batch."""

    _open: duckdb.DuckDBPyConnection | None = None

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection, opened at first use: it starts threads, which an import must not."""
        if self._open is None:
            self._open = connect(1, "UTC")
            self._open.execute("SET enable_external_access = false")
            self._open.execute("SET arrow_large_buffer_size = true")  # payloads of a slice may exceed 2 GiB
        return self._open


_mine = _ThreadDuckDB()


class _Relation:
    """Events as the relation ``events``."""

    def __init__(self, events: pa.RecordBatch | pa.Table) -> None:
        self._events = events
        self._connection = _mine.connection

    def __enter__(self) -> _Relation:
        self._connection.register("events", self._events)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.unregister("events")

    def check(self, rule: AlertRule, *, grammar_only: bool = False) -> None:
        """Raise `ConfigurationError` unless the rule is a predicate over these columns. Nothing is evaluated."""
        import duckdb  # noqa: PLC0415 - as in `headrace.reading.sql`

        try:
            self._connection.sql(f"SELECT 1 FROM events WHERE ({rule.where}\n)")  # noqa: S608 - the user's own rule
            kind = str(self._connection.sql(f"SELECT ({rule.where}\n) FROM events").types[0])  # noqa: S608
        except duckdb.ParserException as error:
            raise self._wrong(rule, f"is not a valid SQL predicate: {_first_line(error)}") from None
        except duckdb.Error as error:
            if grammar_only:
                return
            raise self._wrong(rule, f"cannot be evaluated: {_first_line(error)}") from None
        if kind != "BOOLEAN":
            raise self._wrong(rule, f"is of type {kind}, not a condition")

    def holds(self, rule: AlertRule) -> Mask:
        """The rows for which the predicate holds."""
        predicate = f"SELECT coalesce(({rule.where}\n), false) FROM events"  # noqa: S608 - the user's own rule
        return _mask(self._connection.sql(predicate).to_arrow_table().column(0).combine_chunks())

    def tried(self, rule: AlertRule) -> tuple[Mask, Mask] | None:
        """The rows for which the predicate holds, and the rows on which it fails; ``None`` if DuckDB cannot
        tell row by row.
        """
        import duckdb  # noqa: PLC0415 - as in `headrace.reading.sql`

        attempt = f"SELECT TRY(CAST(coalesce(({rule.where}\n), false) AS TINYINT)) FROM events"  # noqa: S608 - as below
        try:
            said = self._connection.sql(attempt).to_arrow_table().column(0).combine_chunks()
        except duckdb.Error:  # a predicate with a subquery, or one that is not the same each time
            return None
        return _mask(pc.equal(said, 1)), said.is_null().to_numpy(zero_copy_only=False)

    def payloads(self, expression: str) -> pa.Array:
        """The value of a text expression for each row."""
        result = self._connection.sql(f"SELECT {expression} FROM events").to_arrow_table()  # noqa: S608 - built below
        return result.column(0).combine_chunks().cast(pa.large_string())

    def _wrong(self, rule: AlertRule, what: str) -> ConfigurationError:
        hint = f"a DuckDB predicate over the columns {', '.join(map(_typed, self._events.schema))}"
        if "VARCHAR" in what:
            # many a feed writes its numbers as text
            hint = f"a text is not a number: CAST(… AS DOUBLE), or pin the column's type on the first load; {hint}"
        return ConfigurationError(f"{rule.where!r} {what}", where=f"alert rule {rule.name}", hint=hint)


def _typed(column: pa.Field) -> str:
    """A column with its type, which the file may have had as text."""
    if pa.types.is_fixed_size_binary(column.type):
        return f"{column.name} (bytes)"
    return f"{column.name} ({column.type if pa.types.is_null(column.type) else logical_type(column.type)})"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


# Alerts ---------------------------------------------------------------------------------------------------------


def _as_rows_of_the_table(events: pa.RecordBatch, columns: pa.Schema, without_value: Sequence[str]) -> pa.RecordBatch:
    """The events with null in the table's columns that they lack, in the table's order."""
    own = dict(zip(events.schema.names, events.columns, strict=True))
    table = {field.name: own.pop(field.name, None) for field in columns}
    filled = {
        name: pa.nulls(events.num_rows, columns.field(name).type) if column is None else column
        for name, column in table.items()
    }
    # of no type yet, so that any predicate can name them
    untyped = {name: pa.nulls(events.num_rows) for name in without_value if name not in filled and name not in own}
    return pa.RecordBatch.from_pydict(filled | own | untyped)


def _which(raised: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The row and the rule of each alert: `raised` has shape (rules, rows). Sorted as the events are, and by rule."""
    which, by = np.nonzero(raised.T)
    return which, by


def _alerts_of(
    rules: Sequence[AlertRule], raised: NDArray[np.bool_], rows: pa.RecordBatch, version: str | None
) -> pa.RecordBatch | None:
    """What the events raise, in the order of `_which`."""
    which, by = _which(raised)
    if not len(which):
        return None
    some = np.flatnonzero(raised.any(axis=0))
    payloads = _payloads(rows.take(pa.array(some)))
    ids = rows.column(EVENT_ID).take(pa.array(which))
    names = [rule.name for rule in rules]
    versions = _versions(rules, by, None if version is None else rows.column(version).take(pa.array(which)))
    of_each = zip(ids.to_pylist(), by.tolist(), versions, strict=True)
    keys = [alert_key(event_id, names[rule], one) for event_id, rule, one in of_each]
    columns = [
        pa.array(keys, pa.string()),
        ids,
        pa.array(names, pa.string()).take(pa.array(by)),
        payloads.take(pa.array(np.searchsorted(some, which))),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=ALERT_COLUMNS)


def _versions(rules: Sequence[AlertRule], by: NDArray[np.int64], column: pa.Array | None) -> Sequence[bytes | None]:
    """The version that is part of each alert's key: ``None`` but for rules that ask for revisions."""
    if column is None or not any(rule.revisions for rule in rules):
        return [None] * len(by)
    every = zip(by.tolist(), version_bytes(column), strict=True)
    return [one if rules[rule].revisions else None for rule, one in every]


def _payloads(rows: pa.RecordBatch) -> pa.Array:
    """Each event as a JSON object of its columns, those without a value left out: a column that the table gets later
    does not change what an event says.
    """
    # positions, not names: DuckDB's names do not tell upper from lower case
    numbered = rows.rename_columns([f"c{number}" for number in range(rows.num_columns)])
    members = [
        f"{literal(json.dumps(field.name, ensure_ascii=False) + ':')} || to_json({_as_json(field, f'c{number}')})"
        for number, field in enumerate(rows.schema)
        if not pa.types.is_null(field.type)
    ]
    with _Relation(numbered) as relation:
        return relation.payloads(f"'{{' || concat_ws(',', {', '.join(members)}) || '}}'")


def _as_json(field: pa.Field, name: str) -> str:
    """The SQL of a column's value as JSON has it: exact, or as text."""
    column, types = identifier(name), pa.types
    if field.name == EVENT_ID:
        groups = "'(.{8})(.{4})(.{4})(.{4})(.{12})', '\\1-\\2-\\3-\\4-\\5'"
        return f"regexp_replace(lower(hex({column})), {groups})"
    if types.is_floating(field.type):
        text = f"to_json(CAST({column} AS VARCHAR))"  # JSON has no nan and no inf
        return f"CASE WHEN isfinite({column}) THEN to_json({column}) WHEN {column} IS NOT NULL THEN {text} END"
    if types.is_timestamp(field.type):
        return f"strftime(timezone('UTC', {column}), '%Y-%m-%dT%H:%M:%S.%fZ')"
    if types.is_decimal(field.type):
        return f"CAST({column} AS VARCHAR)"
    if types.is_binary(field.type) or types.is_large_binary(field.type) or types.is_fixed_size_binary(field.type):
        return f"base64({column})"
    return column
