"""Histories from the command line: in the folder ``tests``, ``python -m world.simulate --store sqlite --seeds 1:200``.

--seed N           one history, told act by act
--seeds A:B        all of them, each failure shortened and printed with its seed and commit
--history JSON     the history that a failure has printed
--everything       also the acts that `world.allowed` switches off
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from support.servers import own_postgres
from world.allowed import switched_off
from world.database import USER, Database, Postgres
from world.history import History, Played, draw, play, shortened
from world.judge import kind_of
from world.moments import Moments, listen
from world.record import Tally, keep_world
from world.world import Act

MOST_SHOWN = 3
"""Failures of one kind that are shortened and told in full."""

__all__ = ["commit", "prepared", "told"]


def commit() -> str:
    """The commit that is tested."""
    words = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def prepared(server: str, name: str = f"headrace_world_{os.getpid()}") -> Postgres:
    """A database of the server at `server` (a superuser's URL of its database ``postgres``), and Headrace's user."""
    with psycopg.connect(server, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [USER]).fetchone() is None:
            connection.execute(f"CREATE ROLE {USER} LOGIN")  # type: ignore[call-overload]
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")  # type: ignore[call-overload]
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
    admin = (
        server.replace("/postgres?", f"/{name}?") if "/postgres?" in server else server.rsplit("/", 1)[0] + f"/{name}"
    )
    url = admin.replace("//postgres:@", f"//{USER}:@").replace("//postgres@", f"//{USER}@")
    return Postgres(admin, url)


def told(history: History, played: Played, database: Database | None, moments: Moments) -> str:
    """A failure shortened, or the whole of it where it does not come again."""
    why = kind_of(played.wrong)
    short = shortened(history, lambda one: kind_of(play(one, database, moments).wrong) == why)
    again = play(short, database, moments)
    if again.failed:
        return report(short, again)
    return f"{report(history, played)}\n  (played once more it did not fail)"


def report(history: History, played: Played) -> str:
    """What is wrong, and how it is seen again."""
    ended = "\n".join(f"     {name}: {how} {words}".rstrip() for name, how, words in played.ended)
    wrong = "\n".join(f"  ✗ {one}" for one in played.wrong)
    again = f"python -m world.simulate --history '{history.to_json()}'"
    return f"{history}\n  it went:\n{ended}\n{wrong}\n  commit {commit()}; again, in tests/: {again}"


@contextmanager
def _database(store: str, server: str | None) -> Iterator[Database | None]:
    if store == "sqlite":
        yield None
    elif server is not None:
        yield prepared(server)
    else:
        with own_postgres() as own:
            with psycopg.connect(own.url, autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET fsync = off")
                connection.execute("SELECT pg_reload_conf()")
            database = prepared(own.url)
            database.server = own
            yield database


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", default="sqlite")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", default="1:100")
    parser.add_argument("--history")
    parser.add_argument("--server")
    parser.add_argument("--everything", action="store_true")
    parser.add_argument("--most", type=int, default=1000, help="failures after which it ends")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    given = History.from_json(asked.history) if asked.history else None
    store = given.store if given else asked.store
    off = (lambda _: False) if asked.everything else switched_off
    low, high = (asked.seed, asked.seed + 1) if asked.seed is not None else map(int, asked.seeds.split(":"))
    moments = Moments()
    with _database(store, asked.server) as database, listen(moments):
        if given or asked.seed is not None:
            history = given or draw(low, store, off)
            played = play(history, database, moments)
            print(report(history, played))
            return int(played.failed)
        return _play_all(store, range(low, high), off, asked.most, database, moments)


def _play_all(
    store: str, seeds: range, off: Callable[[Act], bool], most: int, database: Database | None, moments: Moments
) -> int:
    tally, kinds, began = Tally(store, list(seeds)), Counter[str](), time.monotonic()
    for seed in seeds:
        history = draw(seed, store, off)
        played = play(history, database, moments)
        tally.add(played.ended, played.pairs, played.rules, played.wrong)
        if why := kind_of(played.wrong):
            kinds[why] += 1
            if kinds[why] <= MOST_SHOWN:
                print(told(history, played, database, moments), flush=True)
            else:
                print(f"seed {seed}: {why}", flush=True)
        if kinds.total() >= most:
            break
    keep_world(tally, commit())
    for words, count in tally.refusals.most_common():
        print(f"  {count:>5} refused: {words}")
    seconds = time.monotonic() - began
    print(f"{tally.histories} seeds, {kinds.total()} failures, {seconds:.1f} s; {dict(kinds)}", flush=True)
    return int(kinds.total() > 0)


if __name__ == "__main__":
    sys.exit(main())
