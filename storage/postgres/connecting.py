"""How a connection to PostgreSQL is opened, and how long a silent one is believed in."""

from __future__ import annotations

import selectors
from time import monotonic
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.conninfo import make_conninfo

from headrace.errors import RetryableStoreError
from headrace.storage.postgres.dialect import PostgresDialect
from headrace.storage.records import StatementHook
from headrace.storage.sql.database import Database
from headrace.storage.sql.failures import refused

__all__ = ["CONNECTION_DEFAULTS", "conninfo_for", "conninfo_of", "how_to_connect", "postgres_database"]

CONNECTION_DEFAULTS: dict[str, str | int] = {
    "application_name": "headrace",
    "connect_timeout": 10,  # seconds
    "keepalives_idle": 30,  # seconds
    "keepalives_interval": 10,  # seconds
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds
}
"""What holds unless the URL says otherwise. A server that vanishes without a word is found out within a minute: by
probes while its answer is awaited, by ``tcp_user_timeout`` while something is being sent."""

SPOKEN = {"client_encoding": "utf8"}
"""What holds whatever the URL, the environment, the role or the database says: binary COPY carries UTF-8, and a server
that expects Latin-1 would take it for that without a word."""

PING_SECONDS = 2  # the least that libpq takes
IDLE_SECONDS = 5.0  # a connection that was used since then is not asked whether its server is still there
_USED = "headrace_used"  # where the pool keeps when a connection was used last


def postgres_database(url: sa.URL, shown: str, on_statement: StatementHook | None) -> Database:
    """The database at `url`, which is reached now: one that cannot be is said at once, not at the first chunk.

    Raises `StoreError`.
    """
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        isolation_level="READ COMMITTED",
        hide_parameters=True,  # a traceback is no place for the user's rows
        connect_args=how_to_connect(url),
    )
    _read_dates(engine)
    _replace_the_dead(engine)
    database = Database(engine, shown, PostgresDialect(), on_statement)
    try:
        _reach(database)
    except RetryableStoreError as error:
        why = refused(error, conninfo_of(engine))
        if isinstance(why, RetryableStoreError):
            raise why from error
        try:
            _reach(database)  # it may have come up between the two
        except RetryableStoreError:
            raise why from error
    return database


def _reach(database: Database) -> None:
    with database.reading():
        pass


def how_to_connect(url: sa.URL) -> dict[str, Any]:
    """Arguments for psycopg: the defaults that `url` leaves alone, since SQLAlchemy would let them win over it.

    A pooler in transaction mode gives each transaction another session of the server, where a statement prepared in an
    earlier one is not known: none is prepared.
    """
    return {**_left_alone(url), **SPOKEN, "prepare_threshold": None}


def conninfo_for(url: sa.URL, **changed: str) -> str:
    """`url` as libpq's connection string, with the defaults and what is `changed`: for who speaks psycopg directly."""
    _, named = url.set(drivername="postgresql+psycopg").get_dialect()().create_connect_args(url)
    named.pop("context", None)  # psycopg's adapters, of no interest to libpq
    return make_conninfo(make_conninfo(**named), **{**_left_alone(url), **SPOKEN, **changed})


def conninfo_of(engine: sa.Engine) -> str:
    """The same as libpq's connection string, for a ping: it blocks the whole interpreter, and so must be brief."""
    _, named = engine.dialect.create_connect_args(engine.url)
    named.pop("context", None)  # psycopg's adapters, of no interest to libpq
    return make_conninfo(make_conninfo(**named), **{**_left_alone(engine.url), "connect_timeout": PING_SECONDS})


def _left_alone(url: sa.URL) -> dict[str, str | int]:
    return {name: value for name, value in CONNECTION_DEFAULTS.items() if name not in url.query}


def _read_dates(engine: sa.Engine) -> None:
    """Have `engine` ask for ISO dates where a role or a database has another ``DateStyle``: psycopg reads no other."""

    def ask(driver: Any, _record: object) -> None:
        # the server has told it unasked; a pooler in transaction mode keeps it for each client
        if not (driver.info.parameter_status("DateStyle") or "ISO").startswith("ISO"):
            driver.execute("SET datestyle TO ISO")
            driver.commit()

    sa.event.listen(engine, "connect", ask, insert=True)  # before SQLAlchemy has its own first look


def _replace_the_dead(engine: sa.Engine) -> None:
    """Have `engine` replace a connection that is dead before it is used.

    A connection that was idle for long is asked, which costs a round trip. One that was used a moment ago is only
    looked at: a server that ended it has sent word of that, and a healthy one sends nothing unasked. Should it have
    died in silence, its first statement fails, and the transaction is run again like any that lost its connection.
    """

    def used(_driver: object, record: sa.pool.ConnectionPoolEntry) -> None:
        record.info[_USED] = monotonic()

    def look(driver: Any, record: sa.pool.ConnectionPoolEntry, _proxy: object) -> None:
        # one that was just opened took the place of a dead one: SQLAlchemy, told that it is dead too, would give up
        fresh = _USED not in record.info
        if fresh or (monotonic() - record.info[_USED] < IDLE_SECONDS and not driver.closed and not _has_word(driver)):
            return
        try:
            engine.dialect.do_ping(driver)
        except psycopg.Error as error:
            # those that were opened before it are most likely as dead
            raise sa.exc.InvalidatePoolError from error

    sa.event.listen(engine, "checkin", used)
    sa.event.listen(engine, "checkout", look)


def _has_word(driver: psycopg.Connection[Any]) -> bool:
    """Whether something has arrived that nobody asked for, the end of the connection included."""
    with selectors.DefaultSelector() as selector:
        selector.register(driver, selectors.EVENT_READ)
        return bool(selector.select(0))
