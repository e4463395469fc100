"""What workers log comes out in the coordinator: complete, in order, with worker and partition, whoever is killed."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from copy import copy
from multiprocessing.context import BaseContext
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from support import worker_logs as work
from support.program import scaled

from headrace.runtime.worker_logs import Channel, WorkerFields, connect_logging, worker_logging, working_on

FORKSERVER = multiprocessing.get_context("forkserver")


class Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(copy(record))
        # pytest keeps what comes after us for its report, and pytest-xdist cannot send half a surrogate pair
        record.msg = str(record.msg).encode("utf-8", "replace").decode()

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    def fields(self) -> list[dict[str, Any]]:
        return [vars(record) for record in self.records]


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """Headrace's logger at level INFO, with no handler and apart from pytest's."""
    found = logging.getLogger("headrace")
    found.setLevel(logging.INFO)
    found.propagate = False
    yield found
    found.handlers.clear()
    found.setLevel(logging.NOTSET)
    found.propagate = True


@pytest.fixture
def collector(logger: logging.Logger) -> Collector:
    handler = Collector()
    logger.addHandler(handler)
    return handler


def pool(channel: Channel, workers: int = 1, context: BaseContext = FORKSERVER) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, context, initializer=connect_logging, initargs=(channel,))


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_all_records_arrive_in_order_with_worker_and_partition(collector: Collector, method: str) -> None:
    with (
        worker_logging(prefix=False) as channel,
        pool(channel, 3, multiprocessing.get_context(method)) as executor,
    ):
        workers = list(executor.map(work.log_many, range(12), [500] * 12))
    for partition, worker in enumerate(workers):
        own = [one for one in collector.fields() if one["partition"] == partition]
        assert [one["msg"] for one in own] == [str(number) for number in range(500)]
        assert {one["worker"] for one in own} == {worker}
    assert len(collector.records) == 12 * 500
    assert os.getpid() not in workers


def test_what_happened_first_comes_out_first_whichever_worker_logged_it(collector: Collector) -> None:
    with worker_logging(prefix=False) as channel, pool(channel) as one, pool(channel) as other:
        for number in range(100):
            [one, other][number % 2].submit(work.log_one, str(number)).result()
    assert collector.texts == [str(number) for number in range(100)]


def test_a_killed_worker_loses_no_record_whose_call_had_returned(collector: Collector, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    returned = tmp_path / "returned"
    with worker_logging(prefix=False) as channel, pool(channel, 2) as others:
        for _ in range(scaled(50)):
            collector.records.clear()
            returned.write_bytes((0).to_bytes(8))
            victim = FORKSERVER.Process(target=work.log_until_killed, args=(channel, str(returned)))
            victim.start()
            going_on = [others.submit(work.log_many, partition, 1000) for partition in (0, 1)]
            while not int.from_bytes(returned.read_bytes()):
                time.sleep(0.01)
            time.sleep(dice.random() / 10)
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
            assert [one.result(timeout=60) > 0 for one in going_on] == [True, True]
            others.submit(work.log_one, "all before this is out").result()
            wait_for(collector, "all before this is out")
            its = [one["msg"].split()[0] for one in collector.fields() if one["worker"] == victim.pid]
            assert its == [str(number) for number in range(len(its))]
            assert len(its) > int.from_bytes(returned.read_bytes())
            assert [one["msg"] for one in collector.fields() if one["partition"] == 1] == [*map(str, range(1000))]


def wait_for(collector: Collector, text: str) -> None:
    end = time.monotonic() + 60
    while text not in collector.texts[-1:]:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_last_words_of_a_worker_arrive(collector: Collector) -> None:
    with worker_logging(prefix=False) as channel:
        for _ in range(scaled(50)):
            victim = FORKSERVER.Process(target=work.log_and_die, args=(channel, 5))
            victim.start()
            victim.join()
            assert victim.exitcode == -signal.SIGKILL
    assert collector.texts == [*map(str, range(5))] * scaled(50)


def test_control_a_multiprocessing_queue_loses_them() -> None:
    queue = FORKSERVER.Queue()
    victim = FORKSERVER.Process(target=work.log_to_a_queue_and_die, args=(queue, 5))
    victim.start()
    victim.join()
    arrived = []
    with suppress(Empty):
        while True:
            arrived.append(queue.get(timeout=0.2))
    assert len(arrived) < 5


def test_no_worker_waits_for_a_coordinator_that_is_dead(tmp_path: Path) -> None:
    script = tmp_path / "coordinator.py"
    script.write_text(
        "import multiprocessing, os, signal, sys\n"
        "from headrace.runtime.worker_logs import worker_logging\n"
        "from support.worker_logs import log_without_end\n"
        "if __name__ == '__main__':\n"
        "    with worker_logging() as channel:\n"
        "        context = multiprocessing.get_context('spawn')\n"
        "        context.Process(target=log_without_end, args=(channel, sys.argv[1])).start()\n"
        "        os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    coordinator = subprocess.Popen([sys.executable, script, tmp_path], env=environment, stderr=subprocess.DEVNULL)
    wait_until(tmp_path / "full")
    assert not (tmp_path / "on").exists()
    coordinator.kill()
    coordinator.wait()
    wait_until(tmp_path / "on")


def wait_until(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_message_says_worker_and_partition(collector: Collector) -> None:
    with worker_logging() as channel, pool(channel) as executor:
        worker = executor.submit(work.log_many, 3, 1).result()
        executor.submit(work.log_one, "100 %").result()
        logging.getLogger("headrace").info("the coordinator's own")
    assert sorted(collector.texts) == [
        f"[worker {worker}, partition 3] 0",
        f"[worker {worker}] 100 %",
        "the coordinator's own",
    ]


def test_a_formatter_may_name_worker_and_partition(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(worker)s %(partition)s %(message)s"))
    handler.addFilter(WorkerFields())
    logger.addHandler(handler)
    with worker_logging(prefix=False) as channel, pool(channel) as executor:
        worker = executor.submit(work.log_many, 3, 1).result()
        executor.submit(work.log_one, "two").result()
    logger.info("three")
    with working_on(4):
        logger.info("four")
    assert capsys.readouterr().err.splitlines() == [f"{worker} 3 0", f"{worker} - two", "- - three", "- 4 four"]


def test_a_traceback_arrives_as_text(collector: Collector) -> None:
    with worker_logging() as channel, pool(channel) as executor:
        executor.submit(work.log_failure).result()
    (text,) = collector.texts
    assert "] it failed\nTraceback (most recent call last):" in text
    assert "in log_failure" in text
    assert "ValueError: invalid literal for int() with base 10: 'the reason'\nStack (most recent call last):" in text


def test_whatever_is_logged_arrives(collector: Collector) -> None:
    with worker_logging(prefix=False) as channel, pool(channel) as executor:
        executor.submit(work.log_odd_things).result()
    lock, circle, key, unprintable, characters, path = collector.fields()
    assert lock["msg"].startswith("a lock <unlocked _thread.lock object")
    assert lock["lock"].startswith("<unlocked")
    assert lock["rows"] == {"read": 3}
    assert (circle["msg"], circle["circle"], circle["levelno"]) == ("a circle", "[[...]]", logging.INFO)
    assert (key["msg"], key["mapping"]) == ("a key", "{(1, 2): 3}")
    assert (unprintable["msg"], unprintable["thing"]) == ("unprintable", "<Unprintable>")
    assert characters["msg"] == "half a pair \ud800, a zero \0, a line\nand ü"
    assert characters["number"] == float("inf")
    assert path["msg"] == "not a text"


@pytest.mark.parametrize("letter", ["x", "ü", "\0", "\U0001f30a"])
def test_a_record_too_large_is_shortened_in_the_middle(collector: Collector, letter: str) -> None:
    with worker_logging(prefix=False) as channel, pool(channel) as executor:
        executor.submit(work.log_big, letter * 10**6, None).result()
        executor.submit(work.log_big, "short", {"blob": letter * 10**6}).result()
        executor.submit(work.log_one, "next").result()
    shortened, bare, following = collector.texts
    assert shortened.startswith(f"begin {letter * 1000}")
    assert "characters left out" in shortened
    assert shortened.endswith(f"{letter * 1000} end")
    assert bare == "begin short end [too large to send: its extra fields are left out]"
    assert "blob" not in collector.fields()[1]
    assert following == "next"


def test_levels_are_the_coordinators(collector: Collector, logger: logging.Logger) -> None:
    root, quiet = logging.getLogger(), logging.getLogger("headrace.quiet")
    root.addHandler(collector)
    quiet.setLevel(logging.ERROR)
    try:
        with worker_logging(prefix=False) as channel, pool(channel) as executor:
            executor.submit(work.log_levels).result()
            executor.submit(work.log_one, "raised level").result()
            time.sleep(0.3)
            logger.setLevel(logging.WARNING)  # while the workers still send INFO
            executor.submit(work.log_one, "not this").result()
    finally:
        root.removeHandler(collector)
        quiet.setLevel(logging.NOTSET)
    assert [(record.name, record.getMessage()) for record in collector.records] == [
        ("headrace.tests", "INFO"),
        ("headrace.tests", "WARNING"),
        ("somebody.else", "WARNING"),
        ("headrace.tests", "raised level"),
    ]


def test_what_a_main_module_configured_in_the_worker_gives_way(collector: Collector) -> None:
    with (
        worker_logging(prefix=False) as channel,
        ProcessPoolExecutor(1, FORKSERVER, initializer=work.connect_configured, initargs=(channel,)) as executor,
    ):
        executor.submit(work.log_many, 0, 2).result()
    assert collector.texts == ["0", "1"]


def test_without_any_handler_warnings_go_to_stderr_as_usual(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.handlers.clear()  # pytest's own
    with worker_logging() as channel, pool(channel) as executor:
        executor.submit(work.log_failure).result()
        executor.submit(work.log_one, "an INFO").result()
    assert "] it failed\nTraceback" in (text := capsys.readouterr().err)
    assert "an INFO" not in text


def test_a_handler_that_fails_costs_one_record_and_holds_nobody_up(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_once(record: logging.LogRecord) -> None:
        monkeypatch.undo()
        raise SystemExit(3)

    monkeypatch.setattr(collector, "emit", fail_once)
    with worker_logging(prefix=False) as channel, pool(channel) as executor:
        executor.submit(work.log_many, 0, 2000).result()
    assert collector.texts == [*map(str, range(1, 2000))]
    assert "SystemExit: 3" in capsys.readouterr().err


def test_after_the_end_a_workers_warning_goes_to_its_own_stderr(collector: Collector) -> None:
    with worker_logging() as channel:
        executor = pool(channel)
        executor.submit(work.log_one, "within").result()
    with executor:
        assert executor.submit(work.log_to_stderr).result() == "last words\n"
    assert len(collector.records) == 1


def test_logging_shut_down_inside_ends_in_peace(collector: Collector) -> None:
    with worker_logging() as channel, pool(channel) as executor:
        executor.submit(work.log_one, "before").result()
        logging.shutdown()
        assert executor.submit(work.log_to_stderr).result() == "last words\n"
    assert len(collector.records) == 1


def test_the_coordinators_logging_is_left_as_it_was(collector: Collector, logger: logging.Logger) -> None:
    handlers = list(logger.handlers)
    with worker_logging() as channel:
        connect_logging(channel)  # an inline executor's initializer
        logger.info("comes out at once")
        assert collector.texts == ["comes out at once"]
        assert logger.handlers == handlers
    assert logger.handlers == handlers
    assert (logger.level, logger.propagate) == (logging.INFO, False)


def test_a_channel_goes_to_a_starting_process_and_nowhere_else() -> None:
    with worker_logging() as channel, pytest.raises(RuntimeError, match="inheritance"):
        pickle.dumps(channel)


def test_nothing_is_left_behind(collector: Collector) -> None:
    def held() -> tuple[int, set[threading.Thread], int]:
        gc.collect()
        return len(list(Path("/dev/fd").iterdir())), set(threading.enumerate()), len(logging.root.handlers)

    with worker_logging():  # what multiprocessing keeps for good, it has after the first time
        pass
    before = held()
    for _ in range(3):
        with worker_logging():
            pass
    assert held() == before
