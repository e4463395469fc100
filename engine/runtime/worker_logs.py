"""Logging from worker processes: a worker's records are emitted in the coordinator, through the coordinator's loggers.

    with worker_logging() as channel:
        ProcessPoolExecutor(2, context, initializer=connect_logging, initargs=(channel,))
    # and in a task: with working_on(partition): …

A worker may be killed at any moment, inside a log call too. So a record goes through no `multiprocessing.Queue`, whose
feeder thread takes what it holds with it and whose lock a dead process keeps for ever, but through a pair of datagram
sockets: one record is one datagram, there whole or not at all, and in the kernel's hands when the log call returns.
No lock, no buffer in the worker, one order over all workers, and neither path nor folder that could be left behind;
`multiprocessing` hands the sending end to a process that it starts. A datagram has a largest size: the message of a
larger record is shortened in the middle. When nobody receives any more, warnings go to the worker's own stderr.

In the coordinator a `MultiProcessingHandler` reads the channel. It wraps none of the user's handlers: it would close
them at the end, step over their locks, levels and filters, and make the coordinator's own records wait in a queue. It
hands each record to the logger of the same name, which then is treated like one logged there. Nothing has to be put
back afterwards. `install_mp_handler` is of no use: it insists on `fork`.

Records travel as JSON, so nothing that a worker puts into a record can fail, or run, when the coordinator opens it.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.connection import wait  # which also teaches multiprocessing to hand over sockets
from multiprocessing.context import assert_spawning
from queue import Empty
from types import MappingProxyType

from multiprocessing_logging import MultiProcessingHandler

__all__ = ["Channel", "WorkerFields", "about", "about_now", "connect_logging", "worker_logging", "working_on"]

_LARGEST = 128 * 1024
_BUFFER = 512 * 1024
_ESCAPED = 6  # bytes that JSON may need for one character
_NAME = 256  # characters of a file's, function's or thread's name, where they are scarce
_END = b""

_partition: ContextVar[int | None] = ContextVar("partition", default=None)
_about: ContextVar[Mapping[str, str]] = ContextVar("about", default=MappingProxyType({}))
_STANDARD = {*vars(logging.makeLogRecord({})), "worker", "partition"}


@contextmanager
def worker_logging(*, prefix: bool = True) -> Iterator[Channel]:
    """Emit the workers' records until the block ends and all sent records are emitted.

    The channel goes to the workers' initializer, `connect_logging`. Workers log from the levels that the coordinator's
    loggers have now. The records carry `worker` (its process's number) and `partition` (a number or ``None``); unless
    `prefix` is false the message says them too: ``[worker 4711, partition 3] …``. A formatter that names
    ``%(worker)s`` itself wants the filter `WorkerFields` beside it, for the records of others.
    """
    ours, theirs = _socket_pair()
    receiver = _Receiver(ours)
    handler = _handler(receiver, _Relay(prefix=prefix))
    try:
        yield Channel(theirs, _levels(), os.getpid())
    finally:
        try:
            with suppress(OSError):  # somebody called `logging.shutdown`: it is closed
                _send(theirs, _END)
            receiver.closed.wait()
        finally:
            handler.close()
            theirs.close()


def connect_logging(channel: Channel) -> None:
    """Send all later records of this worker to the coordinator; the pool's initializer.

    Handlers that exist already, because the worker imports the main module again, are removed: the coordinator has the
    same handlers. In the coordinator's own process (an inline executor) nothing is changed.
    """
    if os.getpid() == channel.owner:
        return
    root = logging.getLogger()
    for logger in [root, *_loggers()]:
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    for name, level in channel.levels.items():
        logging.getLogger(name).setLevel(level)
    root.addHandler(_Sender(channel))  # type: ignore[arg-type] # typeshed wants a `get`, which nobody calls here


@contextmanager
def working_on(partition: int | None) -> Iterator[None]:
    """Mark this thread's records inside with `partition`."""
    token = _partition.set(partition)
    try:
        yield
    finally:
        _partition.reset(token)


@contextmanager
def about(**facts: str) -> Iterator[None]:
    """Mark this thread's records inside with these facts, besides earlier ones: `run`, `provider`, `chunk`."""
    token = _about.set({**_about.get(), **facts})
    try:
        yield
    finally:
        _about.reset(token)


def about_now() -> Mapping[str, object]:
    """The marks of this thread's records: the facts, and the `partition` if there is one."""
    partition = _partition.get()
    return _about.get() if partition is None else {**_about.get(), "partition": partition}


@dataclass(frozen=True)
class Channel:
    """The workers' end of the channel: pass it to a process that is started, nowhere else."""

    sender: socket.socket
    levels: Mapping[str, int]
    owner: int

    def __getstate__(self) -> dict[str, object]:
        assert_spawning(self)
        return vars(self)

    def put_nowait(self, record: logging.LogRecord) -> None:
        """Send one record, waiting while the channel is full. Raises `OSError` when nobody receives any more."""
        # Linux reports twice what a socket can send
        largest = self.sender.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
        _send(self.sender, _datagram(record, min(_LARGEST, largest)))


class WorkerFields(logging.Filter):
    """Gives every record `worker` and `partition`, or a ``-``, for formatters that name them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        record.worker = getattr(record, "worker", "-")
        partition = getattr(record, "partition", _partition.get())
        record.partition = "-" if partition is None else partition
        return True


class _Sender(QueueHandler):
    """In a worker: its root logger's only handler."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        prepared: logging.LogRecord = super().prepare(record)
        prepared.worker = os.getpid()
        prepared.partition = _partition.get()
        vars(prepared).update({name: fact for name, fact in _about.get().items() if name not in _STANDARD})
        return prepared

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            super().enqueue(record)
        except OSError:
            # the coordinator is gone, or past its end: better on stderr than nowhere
            last = logging.lastResort
            if last is not None and record.levelno >= last.level:
                last.handle(record)


class _Receiver:
    """The coordinator's end: as much of a queue as `MultiProcessingHandler` reads from."""

    def __init__(self, receiver: socket.socket) -> None:
        self.closed = threading.Event()
        self._socket = receiver

    def get(self, timeout: float) -> logging.LogRecord:
        self._socket.settimeout(timeout)
        try:
            datagram = self._socket.recv(_LARGEST)
        except TimeoutError:
            raise Empty from None
        if datagram == _END:
            raise EOFError
        return _opened(datagram)

    def qsize(self) -> int:
        return len(wait([self._socket], 0))

    def close(self) -> None:
        self._socket.close()
        self.closed.set()

    def join_thread(self) -> None:
        """There is none."""


class _Relay(logging.Handler):
    """Hands a worker's record to the coordinator's logger of the same name."""

    def __init__(self, *, prefix: bool) -> None:
        super().__init__()
        self._prefix = prefix

    def emit(self, record: logging.LogRecord) -> None:
        # a handler or filter that fails fails for one record; the reading thread must live, or workers would wait
        try:
            self._pass_on(record)
        except BaseException:  # noqa: BLE001
            with suppress(Exception):
                self.handleError(record)

    def _pass_on(self, record: logging.LogRecord) -> None:
        logger = logging.getLogger(record.name)
        if not logger.isEnabledFor(record.levelno):
            return
        if self._prefix:
            record.msg = f"{_address(record)} {record.msg}"
        logger.handle(record)


def _handler(receiver: _Receiver, relay: _Relay) -> logging.Handler:
    handler: logging.Handler = MultiProcessingHandler("headrace-worker-logs", relay)
    handler.queue = receiver  # type: ignore[attr-defined] # the package's own, which is untyped
    return handler


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    # Linux counts what was sent against the sender, BSD and macOS against the receiver
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return ours, theirs


def _send(sender: socket.socket, datagram: bytes) -> None:
    while True:
        try:
            sender.send(datagram)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            time.sleep(0.001)  # BSD and macOS report a full channel where Linux waits
        else:
            return


def _loggers() -> list[logging.Logger]:
    """All loggers but the root."""
    return [known for known in list(logging.root.manager.loggerDict.values()) if isinstance(known, logging.Logger)]


def _levels() -> dict[str, int]:
    root = logging.getLogger()
    return {root.name: root.level, **{known.name: known.level for known in _loggers() if known.level}}


def _address(record: logging.LogRecord) -> str:
    worker, partition = vars(record)["worker"], vars(record)["partition"]
    return f"[worker {worker}]" if partition is None else f"[worker {worker}, partition {partition}]"


def _datagram(record: logging.LogRecord, largest: int) -> bytes:
    fields = {name: value for name, value in vars(record).items() if name != "message"}  # `msg` is the same text
    datagram = _encoded(fields)
    if len(datagram) <= largest:
        return datagram
    kept = {
        name: _shortened(value, _NAME) if isinstance(value, str) else value
        for name, value in fields.items()
        if name in _STANDARD
    }
    left_out = " [too large to send: its extra fields are left out]" if len(kept) < len(fields) else ""
    return _encoded({**kept, "msg": _shortened(record.msg, largest // (_ESCAPED + 2)) + left_out})


def _shortened(text: str, most: int) -> str:
    """The beginning and, because a traceback's last line says most, the end of a long `text`."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} [… {len(text) - 2 * half} characters left out …] {text[-half:]}"


def _encoded(fields: Mapping[str, object]) -> bytes:
    try:
        text = json.dumps(fields, ensure_ascii=False, default=_text)
    except (TypeError, ValueError, RecursionError):
        # an extra field that refers to itself, or has keys that JSON cannot have
        simple = {name: value if name in _STANDARD else _text(value) for name, value in fields.items()}
        text = json.dumps(simple, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a field that cannot be shown must not cost the record
        return f"<{type(value).__name__}>"


def _opened(datagram: bytes) -> logging.LogRecord:
    record = logging.LogRecord("", logging.NOTSET, "", 0, "", None, None)
    vars(record).update(json.loads(datagram.decode("utf-8", "surrogatepass")))
    return record
