"""Columns of the user's to whose type or collation "a" and "A" are equal: a revision is one all the same."""

from __future__ import annotations

import json

import pytest
from contract.pieces import look, make

import headrace

POSTGRES = "event_id uuid PRIMARY KEY, provider text, headrace_receipt bigint"
SQLITE = "event_id BLOB PRIMARY KEY, provider TEXT, headrace_receipt BIGINT"
# as the extension citext makes it; a server may be built without that, and without ICU's collations
CITEXT = [
    "CREATE TYPE citext",
    "CREATE FUNCTION citextin(cstring) RETURNS citext AS 'textin' LANGUAGE internal IMMUTABLE STRICT",
    "CREATE FUNCTION citextout(citext) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT",
    "CREATE FUNCTION citextrecv(internal) RETURNS citext AS 'textrecv' LANGUAGE internal STABLE STRICT",
    "CREATE FUNCTION citextsend(citext) RETURNS bytea AS 'textsend' LANGUAGE internal STABLE STRICT",
    "CREATE TYPE citext (INPUT = citextin, OUTPUT = citextout, RECEIVE = citextrecv, SEND = citextsend, "
    "STORAGE = extended, CATEGORY = 'S', COLLATABLE = true)",
    "CREATE CAST (citext AS text) WITHOUT FUNCTION AS IMPLICIT",
    "CREATE CAST (text AS citext) WITHOUT FUNCTION AS ASSIGNMENT",
    "CREATE FUNCTION citext_eq(citext, citext) RETURNS boolean LANGUAGE sql IMMUTABLE "
    "AS 'SELECT lower(CAST($1 AS text)) = lower(CAST($2 AS text))'",
    "CREATE OPERATOR = (LEFTARG = citext, RIGHTARG = citext, PROCEDURE = citext_eq, COMMUTATOR = =)",
]


def revise(url: str, revisions: str) -> None:
    named = {"version_column": "n"} if revisions == "update" else {}
    for text in ("a", "a", "A"):
        report = headrace.load(
            [{"k": 1, "n": 1, "v": text}], to=url, table="ev", id=["k"], revisions=revisions, **named
        )
    assert (report.duplicate_in_store, report.revised) == (1, 1)
    (differs,) = [json.loads(one) for (one,) in look(url, "SELECT differs FROM headrace_rejects")]
    assert differs == {"v": ["a", "A"]}


@pytest.mark.parametrize("revisions", ["report", "update"])
def test_texts_that_a_column_takes_for_equal_are_a_revision(postgres_url: str, revisions: str) -> None:
    make(postgres_url, *CITEXT, f"CREATE TABLE ev (k bigint, n bigint, v citext, {POSTGRES})")
    revise(postgres_url, revisions)


@pytest.mark.parametrize("revisions", ["report", "update"])
@pytest.mark.parametrize("kind", ["TEXT COLLATE NOCASE", "TEXT COLLATE RTRIM"])
def test_sqlite_texts_that_a_column_takes_for_equal_are_a_revision(sqlite_url: str, revisions: str, kind: str) -> None:
    make(sqlite_url, f"CREATE TABLE ev (k BIGINT, n BIGINT, v {kind}, {SQLITE})")
    revise(sqlite_url, revisions)
