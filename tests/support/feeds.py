"""A web server whose feeds a test controls: what each answers, and what it was asked."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

__all__ = ["Answer", "Asked", "Feeds", "feeds_server"]


@dataclass(frozen=True)
class Answer:
    """An answer: with `conditional`, an ETag that goes with it and a 304 for who has it already; a `silent` one does
    not say how long it is, and ends with its connection.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    conditional: bool = False
    cut: int = 0
    silent: bool = False
    wait: threading.Event | None = None


@dataclass(frozen=True)
class Asked:
    path: str
    headers: Mapping[str, str]
    status: int


@dataclass
class Feeds:
    """The server as the test sees it: `answers` by path (a function is called for each request), `asked` so far,
    `headers` those of the request being answered, `arrived` the paths asked for, answered or not yet.
    """

    url: str
    answers: dict[str, Answer | Callable[[], Answer]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)
    arrived: list[str] = field(default_factory=list)

    def statuses(self, path: str) -> list[int]:
        return [one.status for one in self.asked if one.path == path]


def _handler(feeds: Feeds) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            feeds.arrived.append(self.path)
            feeds.headers = dict(self.headers)
            found = feeds.answers.get(self.path.partition("?")[0], Answer(status=404))
            answer = found() if callable(found) else found
            if answer.wait is not None:
                answer.wait.wait(60)
            tag = f'"{hashlib.sha256(answer.body).hexdigest()}"'
            headers = {**({"ETag": tag} if answer.conditional else {}), **answer.headers}
            same = answer.conditional and self.headers.get("If-None-Match") == tag
            status = 304 if same else answer.status
            feeds.asked.append(Asked(self.path, dict(self.headers), status))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status == 304:
                # no body goes with it
                self.end_headers()
                return
            if not answer.silent:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            with suppress(BrokenPipeError):  # who asked is gone: killed, as some tests have it
                self.wfile.write(answer.body[: len(answer.body) - answer.cut])

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


@contextmanager
def feeds_server(port: int = 0) -> Iterator[Feeds]:
    feeds = Feeds("")
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), _handler(feeds)) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        feeds.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield feeds
        finally:
            server.shutdown()
            thread.join()
