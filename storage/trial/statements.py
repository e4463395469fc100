"""The time that a PostgreSQL server spent on statements during a run, by its extension ``pg_stat_statements``.

before ─► {statement: calls, seconds, rows} ─┐
after  ─► {statement: calls, seconds, rows} ─┴─► what was added, the longest first

Seen are the statements of this user in this database, whoever sent them; looking at statistics is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psycopg
from psycopg import sql

__all__ = ["StatementTime", "statements_since", "statements_so_far"]

Connection = psycopg.Connection[tuple[object, ...]]
WHERE_IT_IS = "SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = %s"
ALL = (
    "SELECT queryid, query, calls, total_exec_time / 1000, rows FROM {}.pg_stat_statements "
    "WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND userid = (SELECT oid FROM pg_roles WHERE rolname = current_user) AND queryid IS NOT NULL"
)
LOOKING = "pg_stat_"


@dataclass(frozen=True, slots=True)
class StatementTime:
    """A statement as the server has it, its constants left out: how often it was run, the `seconds` that the server
    took for it in all, and the `rows` that it went over.
    """

    text: str
    calls: int
    seconds: float
    rows: int

    def to_text(self, width: int) -> str:
        """In a few words, the statement cut to `width` letters."""
        text = " ".join(self.text.split())
        shown = text if len(text) <= width else f"{text[: width - 1]}…"
        return f"{shown}: {self.calls} in {self.seconds * 1000:,.1f} ms"


def statements_so_far(connection: Connection) -> dict[int, StatementTime] | None:
    """All statements up to now by their number, ``None`` if the extension is missing or may not be read."""
    with suppress(psycopg.Error):  # the server did not load its library, an old release's columns, no privilege
        place = connection.execute(WHERE_IT_IS, ["pg_stat_statements"]).fetchone()
        if place is None:
            return None
        found: dict[int, StatementTime] = {}
        query = sql.SQL(ALL).format(sql.Identifier(str(place[0])))
        for number, text, calls, seconds, rows in connection.execute(query).fetchall():
            one = StatementTime(str(text), int(str(calls)), float(str(seconds)), int(str(rows)))
            # one statement called by itself and from a function has two rows
            found[int(str(number))] = _sum(found[int(str(number))], one) if int(str(number)) in found else one
        return found
    return None


def statements_since(
    before: Mapping[int, StatementTime] | None, now: Mapping[int, StatementTime] | None
) -> list[StatementTime] | None:
    """What was added from `before` to `now`, the longest first."""
    if before is None or now is None:
        return None
    nothing = StatementTime("", 0, 0.0, 0)
    added = [
        StatementTime(one.text, one.calls - then.calls, one.seconds - then.seconds, one.rows - then.rows)
        for number, one in now.items()
        for then in [before.get(number, nothing)]
        if one.calls > then.calls and LOOKING not in one.text
    ]
    return sorted(added, key=lambda one: -one.seconds)


def _sum(one: StatementTime, other: StatementTime) -> StatementTime:
    return StatementTime(one.text, one.calls + other.calls, one.seconds + other.seconds, one.rows + other.rows)
