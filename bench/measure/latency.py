"""A database that is far away: a TCP proxy that gives every byte to the other side a fixed time later."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from urllib.parse import urlsplit, urlunsplit

__all__ = ["far_away"]

BLOCK = 1 << 18


@contextmanager
def far_away(url: str, round_trip: float) -> Iterator[str]:
    """The URL of the database at `url` behind `round_trip` seconds."""
    parts = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = (parts.hostname or "127.0.0.1", parts.port or 5432)
        threading.Thread(target=_serve, args=(listener, near, round_trip / 2), daemon=True).start()
        address = f"{parts.username}@127.0.0.1:{listener.getsockname()[1]}"
        yield urlunsplit((parts.scheme, address, parts.path, "", ""))


def _serve(listener: socket.socket, address: tuple[str, int], delay: float) -> None:
    while True:
        try:
            near, _ = listener.accept()
        except OSError:
            return
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        far = socket.create_connection(address)
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for source, sink in ((near, far), (far, near)):
            held: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
            threading.Thread(target=_take, args=(source, held, delay), daemon=True).start()
            threading.Thread(target=_give, args=(sink, held), daemon=True).start()


def _take(source: socket.socket, held: SimpleQueue[tuple[float, bytes]], delay: float) -> None:
    block = b"-"
    while block:
        try:
            block = source.recv(BLOCK)
        except OSError:
            block = b""
        held.put((time.monotonic() + delay, block))


def _give(sink: socket.socket, held: SimpleQueue[tuple[float, bytes]]) -> None:
    while True:
        due, block = held.get()
        time.sleep(max(0.0, due - time.monotonic()))
        with suppress(OSError):
            if not block:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(block)
