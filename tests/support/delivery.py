"""A receiver of webhooks that remembers what it was sent, dispatchers as processes, and outboxes to deliver from."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import headrace as package
from headrace import AlertRule
from headrace.delivery.dispatcher import Dispatcher
from headrace.delivery.webhook import Webhook
from headrace.storage import open_store

__all__ = ["KEY", "Receiver", "deliver_once", "dispatchers", "outbox", "receiving"]

KEY = b"a secret that both know"


@dataclass
class Receiver:
    """What came, in order: path, headers and body. `answer` gets the same and says the status and further headers."""

    url: str = ""
    answer: Callable[[str, dict[str, str], dict[str, Any]], tuple[int, dict[str, str]]] = lambda *_: (200, {})
    came: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    @property
    def keys(self) -> list[str]:
        return [headers["webhook-id"] for _, headers, _ in self.came]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A real HTTP server."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = dict(self.headers.items())
            with receiver.lock:
                receiver.came.append((self.path, headers, body))
                status, more = receiver.answer(self.path, headers, json.loads(body))
            self.send_response(status)
            for name, value in {"Content-Length": "0", **more}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass  # a dispatcher that was killed hangs up

    with Server(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


def outbox(url: str, alerts: int) -> set[str]:
    """Load events that raise `alerts` alerts; returns their keys."""
    rows = [{"key": number, "value": f"v{number}"} for number in range(alerts)]
    package.load(rows, to=url, table="t", id=["key"], alerts=[AlertRule("all", where="key >= 0")])
    with open_store(url) as store:
        keys = {one.key for one in store.outbox.find()}
    assert len(keys) == alerts
    return keys


def deliver_once(database: str, webhook: str, lease: float, at_once: int) -> None:
    """What ``headrace alerts deliver --webhook`` does, without the start of a Python."""
    with open_store(database) as store, Webhook(webhook, KEY, at_once=at_once) as sink:
        Dispatcher(store, sink, lease=lease, most_attempts=10_000).drain()


def dispatchers() -> Any:
    """A context whose processes start in no time, with Headrace imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.delivery"])
    # the server of a suite's own package: it starts with the first process, and has its path from here
    os.environ["PYTHONPATH"] = os.pathsep.join(
        dict.fromkeys(
            [str(Path(__file__).parents[1]), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        )
    )
    return context
