"""What streams in is spooled once, privately, under a name without credentials, and read like a file."""

from __future__ import annotations

import io
import stat
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from headrace.errors import ConfigurationError, InputError
from headrace.reading.inputs import ReadOptions, open_inputs

CSV = b"a,b\n" + b"".join(b"%d,x\n" % n for n in range(1000))


class Feed(BaseHTTPRequestHandler):
    """Serves one CSV, an error, and an answer that is cut short."""

    def do_GET(self) -> None:
        if self.path == "/private" and self.headers["Authorization"] != "Basic dXNlcjpzZWNyZXQ=":
            self.send_error(401)
            return
        if self.path in {"/moved", "/elsewhere"}:
            self.send_response(302)
            port = self.server.server_address[1]
            self.send_header("Location", "/private" if self.path == "/moved" else f"http://localhost:{port}/private")
            self.end_headers()
            return
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/csv; charset=utf-8")
        self.send_header("Content-Length", str(len(CSV) + (10 if self.path == "/cut" else 0)))
        self.end_headers()
        self.wfile.write(CSV)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Feed) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def rows_of(text: str, spool: Path) -> tuple[int, str, str]:
    (source,) = open_inputs([text], ReadOptions(), spool)
    count = sum(chunk.batch.num_rows for chunk in source.chunks(source.infer(ReadOptions()), ReadOptions()))
    return count, source.name, source.fingerprint


def test_an_address_is_fetched_and_named_without_its_credentials(server: str, tmp_path: Path) -> None:
    count, name, fingerprint = rows_of(f"http://user:secret@{server}/feed?key=secret", tmp_path)
    assert (count, name) == (1000, f"http://{server}/feed")
    assert rows_of(f"http://{server}/feed", tmp_path)[2] == fingerprint
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize(("path", "why"), [("/missing", "404"), ("/cut", "IncompleteRead|cut short|bytes")])
def test_a_feed_that_fails_says_why_and_tells_no_secret(server: str, tmp_path: Path, path: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as raised:
        rows_of(f"http://user:secret@{server}{path}", tmp_path)
    assert "secret" not in str(raised.value)


def test_a_password_goes_to_the_host_named_and_not_to_another(server: str, tmp_path: Path) -> None:
    assert rows_of(f"http://user:secret@{server}/private", tmp_path)[0] == 1000
    assert rows_of(f"http://user:secret@{server}/moved", tmp_path)[0] == 1000
    with pytest.raises(InputError, match="401"):
        rows_of(f"http://user:secret@{server}/elsewhere", tmp_path)


def test_an_unreachable_server_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        rows_of("http://127.0.0.1:9/x.csv", tmp_path)


def test_standard_input_is_told_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content, expected in ((CSV, 1000), (b'{"a":1}\n{"a":2}\n', 2), (b'[{"a":1}]', 1)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert rows_of("-", tmp_path)[:2] == (expected, "-")
    with pytest.raises(ConfigurationError, match="spooled"):
        open_inputs(["-"], ReadOptions(), None)
