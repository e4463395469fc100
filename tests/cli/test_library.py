"""`headrace.Engine` inside services: threads, forks, shutdown, and the examples run for real."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pyarrow as pa
import pytest
from support.program import Headrace

from headrace import ConfigurationError, Engine, Interrupted
from headrace.observability.stages import RunFacts, Silent
from headrace.storage.records import Committed, Slice

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/service"
SECONDS = 60.0


def batch(keys: range) -> pa.Table:
    return pa.table({"key": list(keys), "value": [f"v{key}" for key in keys]})


def once(headrace: Headrace, table: str, expected: int) -> None:
    assert headrace.query(f'SELECT count(*), count(DISTINCT key) FROM "{table}"') == [(expected, expected)]  # noqa: S608


def test_threads_share_an_engine_and_each_event_is_in_once(store_url: str, headrace: Headrace) -> None:
    """Eight threads, batches that overlap with those of two others."""
    with Engine(to=store_url, table="t", id=["key"]) as engine, ThreadPoolExecutor(8) as threads:
        starts = [start for start in range(0, 240, 10) for _ in range(2)]
        reports = list(threads.map(lambda start: engine.ingest(batch(range(start, start + 20))), starts))
    assert sum(report.inserted for report in reports) == 250
    assert sum(report.read for report in reports) == 20 * len(starts)
    once(headrace, "t", 250)


@pytest.mark.parametrize("in_turn", [True, False])
def test_one_batch_goes_at_a_time(sqlite_url: str, in_turn: bool) -> None:
    """Negative control: without its lock two batches are in the engine at once."""
    meeting = threading.Barrier(2)
    met: list[bool] = []

    class Waits(Silent):
        def began(self, run: RunFacts) -> None:
            try:
                meeting.wait(1.0 if in_turn else SECONDS)
            except threading.BrokenBarrierError:
                met.append(False)
            else:
                met.append(True)

    with Engine(to=sqlite_url, table="t", id=["key"]) as engine, ThreadPoolExecutor(2) as threads:
        engine.ingest(batch(range(1)))
        if not in_turn:
            vars(engine)["_turn"] = nullcontext()
        given = [threads.submit(engine.ingest, batch(range(9)), listener=Waits()) for _ in range(2)]
        for one in given:
            one.exception()
    assert met == [not in_turn] * 2


def test_close_waits_for_the_batch_in_hand_and_refuses_the_rest(store_url: str, headrace: Headrace) -> None:
    began, go_on = threading.Event(), threading.Event()

    class Holds(Silent):
        def began(self, run: RunFacts) -> None:
            began.set()
            assert go_on.wait(SECONDS)

    engine = Engine(to=store_url, table="t", id=["key"])
    with engine, ThreadPoolExecutor(3) as threads:
        in_hand = threads.submit(engine.ingest, batch(range(100)), listener=Holds())
        assert began.wait(SECONDS)
        closing = threads.submit(engine.close)
        late = threads.submit(engine.ingest, batch(range(100, 200)))
        assert not closing.done()
        while not vars(engine)["_closing"]:
            pass
        go_on.set()
        assert in_hand.result(SECONDS).inserted == 100
        closing.result(SECONDS)
        with pytest.raises(ConfigurationError, match="not open"):
            late.result(SECONDS)
    engine.close()
    once(headrace, "t", 100)
    with engine:  # and it can be opened again
        assert engine.ingest(batch(range(110))).inserted == 10


def test_close_with_stop_ends_the_batch_between_two_chunks_and_nothing_is_lost(
    store_url: str, headrace: Headrace
) -> None:
    engine = Engine(to=store_url, table="t", id=["key"], chunk_rows=50)
    closers = []

    class Closes(Silent):
        def committed(self, piece: Slice, done: Committed) -> None:
            if not closers:
                closers.append(threading.Thread(target=engine.close, kwargs={"stop": True}))
                closers[0].start()
                while not vars(engine)["_stop"].is_set():
                    pass

    with engine, pytest.raises(Interrupted):
        engine.ingest(batch(range(1000)), listener=Closes())
    closers[0].join(SECONDS)
    there = headrace.count("t")
    assert 50 <= there < 1000
    with engine:
        assert engine.ingest(batch(range(1000))).inserted == 1000 - there
    once(headrace, "t", 1000)


FORKS = """
import os, sys, json
from pathlib import Path
import headrace
from headrace.runtime.scratch import live_folders

def rows(start, stop):
    return [{"key": key} for key in range(start, stop)]

def main():
    with headrace.Engine(to=sys.argv[1], table="t", id=["key"], mode="sequential") as engine:
        engine.ingest(rows(0, 10))
        mine = live_folders()
        children = []
        for child in range(2):
            pid = os.fork()
            if pid == 0:
                for start in (5, 20 + child):
                    engine.ingest(rows(start, start + 20))
                sys.exit(7)  # the interpreter's whole end, and that of `with`
            children.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        report = engine.ingest(rows(0, 50))
        print(json.dumps({"codes": codes, "inserted": report.inserted, "kept": [one.exists() for one in mine]}))

if __name__ == "__main__":
    main()
"""


def test_a_forked_process_has_connections_of_its_own(store_url: str, headrace: Headrace) -> None:
    (headrace.folder / "forks.py").write_text(FORKS)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "forks.py", store_url],
        capture_output=True, text=True, check=False, cwd=headrace.folder, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert said["codes"] == [7, 7]
    assert said["kept"] == [True] * len(said["kept"]) != []
    assert said["inserted"] == 50 - 41
    once(headrace, "t", 50)


# The examples ---------------------------------------------------------------------------------------------------


def post(port: int, keys: range) -> dict[str, Any]:
    lines = "\n".join(json.dumps({"key": key, "value": f"v{key}"}) for key in keys)
    with urlopen(f"http://127.0.0.1:{port}/events", lines.encode(), timeout=SECONDS) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


def test_the_wsgi_service_takes_concurrent_requests_and_leaves_nothing_behind(
    store_url: str, headrace: Headrace, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**headrace.environment(), "TMPDIR": str(scratch)}
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "wsgi_service.py", "0"],
        env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as service:  # fmt: skip
        assert service.stdout is not None
        port = int(service.stdout.readline().rsplit(maxsplit=1)[1])
        with ThreadPoolExecutor(6) as clients:
            ranges = [range(start, start + 20) for start in range(0, 200, 10) for _ in range(2)]
            answers = list(clients.map(lambda keys: post(port, keys), ranges))
        assert sum(answer["inserted"] for answer in answers) == 210
        service.send_signal(signal.SIGTERM)
        _, complaints = service.communicate(timeout=SECONDS)
    assert (service.returncode, complaints) == (0, "")
    assert list(scratch.iterdir()) == []
    once(headrace, "events", 210)


@pytest.mark.filterwarnings("ignore")  # its test client's own, which change from release to release
def test_the_fastapi_service_answers(store_url: str, headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi.testclient import TestClient  # noqa: PLC0415 - it warns as it is imported

    monkeypatch.setenv("HEADRACE_DATABASE_URL", store_url)
    spec = importlib.util.spec_from_file_location("fastapi_service", EXAMPLES / "fastapi_service.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = [[{"key": key} for key in range(start, start + 20)] for start in range(0, 100, 10)]
    with TestClient(module.app) as client, ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda some: client.post("/events", json=some), rows))
        odd = client.post("/events", json=[{"other": 1}])
    assert [answer.status_code for answer in answers] == [200] * 10
    assert sum(answer.json()["inserted"] for answer in answers) == 110
    assert odd.status_code == 400
    once(headrace, "events", 110)
    assert os.environ["HEADRACE_DATABASE_URL"] == store_url
