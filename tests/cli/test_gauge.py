"""What a profile takes for the database's work on cores is the load's, not that of sessions that were there before."""

from __future__ import annotations

import time
from contextlib import closing

import psycopg

from headrace.storage.trial.gauge import Server

NAME = "headrace_profile_gauged"
WORK = "SELECT count(*) FROM generate_series(1, 600000) AS n WHERE n % 7 = 3"


def connected(url: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(url, application_name=NAME, autocommit=True)


def worked(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    began = time.monotonic()
    while time.monotonic() - began < 0.2:
        connection.execute(WORK)


def test_a_session_that_was_there_before_counts_from_now_and_one_that_comes_counts_whole(postgres_url: str) -> None:
    """As it was wrong once: filling the trial's table was taken for the load's work, and stretched to all rows."""
    with closing(connected(postgres_url)) as before:
        worked(before)
        with Server(postgres_url, NAME) as idle:
            idle.look()
        assert idle.cpu_seconds == 0
        with Server(postgres_url, NAME) as busy, closing(connected(postgres_url)) as own:
            worked(own)
            busy.look()  # before it leaves
        assert busy.cpu_seconds is not None
        assert busy.cpu_seconds > 0
