"""The world's acts on servers and their locks: a lock held for a moment, restarts, commits that a power loss takes."""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import closing
from threading import Event, Thread

import psycopg
from world.database import EVENTS, Blocked, Postgres
from world.world import Act, World, act

__all__: list[str] = []

POSTGRES = ("postgresql",)


def draw_lock(chance: random.Random) -> Act:
    """How long it is held, and how much it excludes."""
    return {
        "seconds": chance.choice((0.01, 0.05)),
        "lock": chance.choice(("ACCESS EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE")),
    }


@act("servers", weight=1.5, draw=draw_lock)
def hold_a_lock(world: World, *, seconds: float, lock: str) -> None:
    """Another session takes the table, or SQLite's file, and lets go of it after a moment."""
    if not world.database.has(EVENTS):
        raise Blocked("there is no table")
    taken = Event()
    work = _hold_table if isinstance(world.database, Postgres) else _hold_file
    thread = Thread(target=work, args=(world, seconds, lock, taken))
    thread.start()
    world.holding.append(thread)
    taken.wait(1)


def _hold_table(world: World, seconds: float, lock: str, taken: Event) -> None:
    if not isinstance(world.database, Postgres):
        return
    with psycopg.connect(world.database.admin) as connection:
        connection.execute("SET lock_timeout = '60ms'")
        try:
            connection.execute(f"LOCK TABLE {EVENTS} IN {lock} MODE")  # type: ignore[call-overload]
        except psycopg.Error:
            return
        finally:
            taken.set()
        time.sleep(seconds)
        connection.rollback()


def _hold_file(world: World, seconds: float, lock: str, taken: Event) -> None:
    with closing(sqlite3.connect(world.database.path, timeout=0, isolation_level=None)) as connection:  # type: ignore[attr-defined]
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:
            return
        finally:
            taken.set()
        time.sleep(seconds)
        connection.execute("ROLLBACK")


def _server(world: World) -> Postgres:
    if not isinstance(world.database, Postgres) or world.database.server is None:
        raise Blocked("this server is not ours to kill")
    return world.database


@act("servers", weight=0.15, stores=POSTGRES)
def restart_the_server(world: World) -> None:
    database = _server(world)
    database.close()
    database.server.kill()
    database.server.start()


@act("servers", weight=0.5, stores=POSTGRES)
def trust_the_cache(world: World) -> None:
    """From now on COMMIT of Headrace's user does not wait for the disk."""
    database = _server(world)
    database.settings(["synchronous_commit = off"])


@act("servers", weight=0.3, stores=POSTGRES)
def lose_power(world: World) -> None:
    """The server dies, and with it the commits that it had not written down."""
    database = _server(world)
    database.close()
    database.server.kill()
    database.server.start()


@act("servers", weight=0.5, hinders=True)
def newer_release(world: World) -> None:
    """A newer release of Headrace has been at work on the ledger."""
    if not world.database.has("headrace_schema"):
        raise Blocked("there is no ledger")
    now = "now()" if isinstance(world.database, Postgres) else "'2099-01-01 00:00:00.000000'"
    world.database.run(f"INSERT INTO headrace_schema (version, digest, changed_at) VALUES (999, 'newer', {now})")


@act("servers", weight=0.5)
def older_release_again(world: World) -> None:
    """The newer release's ledger is taken back."""
    if not world.database.has("headrace_schema"):
        raise Blocked("there is no ledger")
    world.database.run("DELETE FROM headrace_schema WHERE version = 999")
