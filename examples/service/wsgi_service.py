"""A web service that takes events by POST and writes each exactly once: the standard library and Headrace.

    HEADRACE_DATABASE_URL=postgresql://… python examples/service/wsgi_service.py 8000
    curl -d '{"key": 1, "value": "a"}' http://127.0.0.1:8000/events

Several requests may carry the same event, and a client that got no answer may send again: the answer says what was new.
SIGTERM lets the requests in hand end, takes no others, and leaves nothing behind.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import headrace

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Service:
    """The WSGI application; `engine` is shared by all threads."""

    def __init__(self, engine: headrace.Engine) -> None:
        self._engine = engine

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """POST /events with one JSON object a line."""
        try:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            report = self._engine.ingest([json.loads(line) for line in body.splitlines()])
            status, answer = "200 OK", {"read": report.read, "inserted": report.inserted, "run": report.run_id}
        except (json.JSONDecodeError, headrace.InputError, headrace.ContractError) as error:
            status, answer = "400 Bad Request", {"error": str(error)}
        except headrace.HeadraceError as error:  # closed, or the database is away: the client sends again
            status, answer = "503 Service Unavailable", {"error": str(error)}
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]


class Server(ThreadingMixIn, WSGIServer):
    """A thread for each request; the end waits for all of them."""

    daemon_threads = False
    request_queue_size = 64


class QuietHandler(WSGIRequestHandler):
    """No line for each request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class has it so
        """Nothing."""


def main(port: int) -> None:
    """Serve until SIGTERM."""
    with (
        headrace.Engine(table="events", provider="web", id=["key"]) as engine,
        make_server("127.0.0.1", port, Service(engine), Server, QuietHandler) as server,
    ):
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        print(f"ready at {server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
