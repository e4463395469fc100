"""The benchmark's judgement of a real table: a peer's load by hand is right, and each spoiled table is found out."""

from __future__ import annotations

import sys
from pathlib import Path

import psycopg
import pytest

from bench.measure.check import expected, found, verdict
from bench.measure.datasets import DATASETS, Situation, pg_type, write_input
from bench.measure.encoded import create_table, encode_chunks
from bench.measure.harness import TOP, run_process
from bench.peers.job import TABLE, Job

FIRES = DATASETS["fires"]
ROWS = 2_000


def job_of(url: str, path: Path, scratch: Path) -> Path:
    scratch.mkdir()
    columns = {name: pg_type(kind) for name, kind in FIRES.columns.items()}
    job = Job(url, str(path), path.suffix[1:], columns, list(FIRES.key), FIRES.time, str(scratch))
    return job.write(scratch / "job.json")


def run_peer(script: str, job: Path) -> None:
    command = [sys.executable, str(TOP / "bench" / "peers" / script), str(job)]
    outcome = run_process(command, scratch=job.parent, env={"PGTZ": "UTC"})
    assert outcome.exit_code == 0, outcome.complaint


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_by_hand_is_right_even_where_events_stand_twice(postgres_url: str, tmp_path: Path, kind: str) -> None:
    path = write_input(tmp_path, "fires", kind, ROWS, 0, Situation("twice", repeated=0.2))
    create_table(postgres_url, TABLE, FIRES, key=FIRES.key)
    run_peer("psycopg_copy.py", job_of(postgres_url, path, tmp_path / "job"))
    want = expected(FIRES, [path], tmp_path)
    assert want.distinct < ROWS
    assert verdict(want, found(FIRES, postgres_url, TABLE)) == "right"


SPOILED = {
    "INSERT INTO events SELECT * FROM events LIMIT 3": "3 duplicates",
    "DELETE FROM events WHERE confidence = (SELECT min(confidence) FROM events)": "lost",
    "UPDATE events SET frp = frp + 1 WHERE ctid = (SELECT min(ctid) FROM events)": "other values",
    "UPDATE events SET acq_time = acq_time + interval '1 ms' "
    "WHERE ctid = (SELECT min(ctid) FROM events)": "other values",
}


def test_the_lower_bound_writes_every_event_and_a_spoiled_table_is_found_out(postgres_url: str, tmp_path: Path) -> None:
    path = write_input(tmp_path, "fires", "parquet", ROWS, 0, Situation("fresh"))
    encode_chunks(path, FIRES)
    create_table(postgres_url, TABLE, FIRES)
    run_peer("raw_copy.py", job_of(postgres_url, path, tmp_path / "job"))
    want = expected(FIRES, [path], tmp_path)
    assert verdict(want, found(FIRES, postgres_url, TABLE)) == "right"
    with psycopg.connect(postgres_url) as connection:
        connection.execute("ALTER TABLE events DROP CONSTRAINT events_pkey")
    for statement, word in SPOILED.items():
        with psycopg.connect(postgres_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT * FROM events")
            connection.execute(statement)
        assert word in verdict(want, found(FIRES, postgres_url, TABLE)), statement
        with psycopg.connect(postgres_url) as connection:
            connection.execute("DROP TABLE events")
            connection.execute("ALTER TABLE kept RENAME TO events")
