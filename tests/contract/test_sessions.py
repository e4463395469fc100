"""What a role, a database or the environment sets for sessions changes nothing of what is stored and found."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from support.program import Headrace

LINES = ("1,2020-01-01T00:00:00Z,é,0.1,1999-12-31", "2,2020-03-04T05:06:07.000089Z,ÿ,1e300,2000-02-29")
WANTED = [(1, "é", 0.1, "1999-12-31", 1577836800.0), (2, "ÿ", 1e300, "2000-02-29", 1583298367.000089)]
OPTIONS = ("--table", "t", "--id", "k,note", "--time", "at")
SETTINGS = {
    "encoding": {"client_encoding": "LATIN1"},
    "dates": {"datestyle": "German"},
    "others": {
        "extra_float_digits": "-15",
        "bytea_output": "escape",
        "timezone": "Asia/Kolkata",
        "intervalstyle": "sql_standard",
        "standard_conforming_strings": "off",
        "default_transaction_isolation": "serializable",
    },
}


@pytest.fixture
def database(postgres_url: str, tmp_path: Path) -> Headrace:
    return Headrace(postgres_url, tmp_path)


@pytest.fixture
def encoded(new_encoded: Callable[[str], Iterator[str]], request: pytest.FixtureRequest) -> Iterator[str]:
    yield from new_encoded(request.param)


@pytest.fixture
def new_encoded(postgres_server: str) -> Callable[[str], Iterator[str]]:
    def make(encoding: str) -> Iterator[str]:
        name = sql.Identifier(f"encoded_{encoding.lower()}")
        like = sql.SQL("CREATE DATABASE {} ENCODING {} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(like.format(name, encoding))
            yield postgres_server.replace("/postgres?", f"/{name.as_string().strip(chr(34))}?")
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    return make


def events(folder: Path) -> Path:
    path = folder / "é.csv"
    path.write_text("\n".join(["k,at,note,size,day", *LINES]) + "\n", encoding="utf-8")
    return path


def stored(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, client_encoding="utf8", options="-c datestyle=ISO -c extra_float_digits=1") as connection:
        return connection.execute(
            "SELECT k, note, size, day::text, extract(epoch FROM at)::float8, event_id FROM t ORDER BY k"
        ).fetchall()


def check_loads(headrace: Headrace, path: Path) -> None:
    """Fast path, safe path, snapshot and verification agree on what is there."""
    assert headrace.load(path, *OPTIONS)["inserted"] == 2
    found = stored(headrace.url)
    assert all(math.isclose(row[4], wanted[4], rel_tol=1e-15) for row, wanted in zip(found, WANTED, strict=True))
    assert [row[:4] for row in found] == [wanted[:4] for wanted in WANTED]
    path.write_text(path.read_text(encoding="utf-8") + "3,2020-01-01T00:00:00Z,ö,1,2020-01-01\n", encoding="utf-8")
    assert headrace.load(path, *OPTIONS)["inserted"] == 1
    upsert = headrace.load(path, *OPTIONS, "--mode", "parallel", "--workers", "1", "--strategy", "upsert")
    assert upsert["duplicate_in_store"] == 3
    headrace.run("verify", path, "--table", "t")
    first = stored(headrace.url)[0]
    told = headrace.json("explain", first[-1], "--table", "t")
    assert path.name in json.dumps(told, ensure_ascii=False)
    assert len(headrace.json("runs", "list")["runs"]) == 3


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_settings_of_a_database_change_nothing(database: Headrace, tmp_path: Path, settings: dict[str, str]) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        change = sql.SQL("ALTER DATABASE {} SET {} TO {}")
        for setting, value in settings.items():
            names = map(sql.Identifier, (connection.info.dbname, setting))
            connection.execute(change.format(*names, sql.Literal(value)))
    check_loads(database, events(tmp_path))


@pytest.mark.parametrize("encoded", ["LATIN1", "SQL_ASCII"], indirect=True)
def test_the_encoding_of_a_database_changes_nothing(encoded: str, tmp_path: Path) -> None:
    check_loads(Headrace(encoded, tmp_path), events(tmp_path))


def test_the_environment_and_the_url_do_not_change_the_encoding(
    database: Headrace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    check_loads(Headrace(database.url + "&client_encoding=latin1", tmp_path), events(tmp_path))
