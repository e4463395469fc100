"""What the logging tests run in worker processes: in a module of its own, so that a spawned process can import it."""

from __future__ import annotations

import io
import logging
import logging.handlers
import os
import signal
import sys
import threading
import time
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from headrace.runtime.worker_logs import Channel, connect_logging, working_on

__all__ = [
    "connect_configured",
    "log_and_die",
    "log_big",
    "log_failure",
    "log_levels",
    "log_many",
    "log_odd_things",
    "log_one",
    "log_to_a_queue_and_die",
    "log_to_stderr",
    "log_until_killed",
    "log_without_end",
]

log = logging.getLogger("headrace.tests")


def connect_configured(channel: Channel) -> None:
    """Connect a worker that has imported a main module which configures logging."""
    logging.basicConfig(filename=os.devnull)
    log.setLevel(logging.ERROR)
    log.propagate = False
    log.addHandler(logging.NullHandler())
    connect_logging(channel)


def log_many(partition: int, count: int) -> int:
    with working_on(partition):
        for number in range(count):
            log.info("%d", number)
    return os.getpid()


def log_one(text: str) -> int:
    log.info(text)
    return os.getpid()


def log_until_killed(channel: Channel, returned: str) -> None:
    """Write into the file `returned` the number of each record whose log call has returned."""
    connect_logging(channel)
    note = os.open(returned, os.O_WRONLY)
    with working_on(7):
        for number in range(10**9):
            log.info("%d %s", number, "x" * (number * 37 % 2000))
            os.pwrite(note, number.to_bytes(8), 0)


def log_and_die(channel: Channel, count: int) -> None:
    connect_logging(channel)
    for number in range(count):
        log.info("%d", number)
    os.kill(os.getpid(), signal.SIGKILL)


def log_to_a_queue_and_die(queue: Queue[Any], count: int) -> None:
    log.addHandler(logging.handlers.QueueHandler(queue))
    log.setLevel(logging.INFO)
    for number in range(count):
        log.info("%d", number)
    os.kill(os.getpid(), signal.SIGKILL)


def log_failure() -> None:
    try:
        int("the reason")
    except ValueError:
        log.exception("it failed", stack_info=True)


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("no")


def log_odd_things() -> None:
    lock = threading.Lock()
    log.info("a lock %s", lock, extra={"lock": lock, "rows": {"read": 3}})
    itself: list[object] = []
    itself.append(itself)
    log.info("a circle", extra={"circle": itself})
    log.info("a key", extra={"mapping": {(1, 2): 3}})
    log.info("unprintable", extra={"thing": Unprintable()})
    log.info("half a pair \ud800, a zero \0, a line\nand ü", extra={"number": float("inf")})
    log.info("%d", "no number")  # as anywhere: reported on stderr, and no record
    log.info(Path("not a text"))


def log_big(letters: str, extra: dict[str, object] | None) -> None:
    log.info("begin %s end", letters, extra=extra)


def log_levels() -> None:
    for name in ("headrace.tests", "headrace.quiet", "somebody.else"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logging.getLogger(name).log(level, "%s", logging.getLevelName(level))


def log_to_stderr() -> str:
    """What comes out on stderr of a worker whose coordinator listens no more."""
    before, sys.stderr = sys.stderr, io.StringIO()
    try:
        log.info("not this")
        log.warning("last words")
        return sys.stderr.getvalue()
    finally:
        sys.stderr = before


def log_without_end(channel: Channel, folder: str) -> None:
    """Touch `full` when the channel takes no more, `on` when logging goes on in spite of it."""
    connect_logging(channel)
    sys.stderr = io.StringIO()
    began = [time.monotonic()]

    def watch() -> None:
        while time.monotonic() - began[0] < 0.5:
            time.sleep(0.05)
        Path(folder, "full").touch()

    threading.Thread(target=watch, daemon=True).start()
    while not Path(folder, "full").exists():
        log.warning("x" * 10_000)
        began[0] = time.monotonic()
    log.warning("one more")
    Path(folder, "on").touch()
