"""One download by HTTP: into a private file, hashed on the way, within its limits, and only if the content has changed.

request ──► doors: may this address be fetched? ──► 304: unchanged
If-None-Match                                   ──► 200: to a file ──► same content as before? unchanged
If-Modified-Since                               ──► else, cut short, too large, too slow: `InputError`
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.client import IncompleteRead
from pathlib import Path
from threading import Event
from urllib.parse import unquote, urlsplit, urlunsplit

from urllib3 import BaseHTTPResponse, exceptions

from headrace.errors import InputError, Interrupted
from headrace.reading.choices import SILENT_SECONDS
from headrace.reading.fetch.guard import Doors
from headrace.reading.fetch.retry_after import retry_after
from headrace.reading.fetch.spool import Spooled, spool

__all__ = ["Answer", "Validators", "fetch"]

_TYPES = {
    "text/csv": "x.csv",
    "text/tab-separated-values": "x.tsv",
    "application/geo+json": "x.geojson",
    "application/vnd.geo+json": "x.geojson",
    "application/x-ndjson": "x.jsonl",
    "application/jsonl": "x.jsonl",
    "application/json": "x.json",
    "application/vnd.apache.parquet": "x.parquet",
}
_AGAIN = "check the network, then run the same command again"
LONGEST_RETRY_AFTER = 86_400.0  # seconds: a server that asks for a year is not believed


@dataclass(frozen=True, slots=True)
class Validators:
    """The facts that distinguish versions of a resource: the server's validators, and the digest of the content."""

    etag: str | None = None
    last_modified: str | None = None
    content: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer: a file (``None`` if the server says that nothing changed), and its validators."""

    file: Spooled | None
    validators: Validators

    @property
    def spooled(self) -> Spooled:
        """The file of an answer to a request without conditions."""
        if self.file is None:
            raise InputError("the server answered that nothing changed, to a request without conditions", hint=_AGAIN)
        return self.file


def fetch(
    url: str,
    folder: Path,
    *,
    shown: str,
    headers: Mapping[str, str] | None = None,
    known: Validators | None = None,
    timeout: float = SILENT_SECONDS,
    deadline: float | None = None,
    max_size: int | None = None,
    stop: Event | None = None,
) -> Answer:
    """Download `url` into a file in `folder`; messages call it `shown`.

    `timeout` is the longest silence and `deadline` the longest download in seconds, `max_size` the largest in bytes.
    Raises `InputError` (with `retry_after`), `ConfigurationError` for an address that is not fetched, `Interrupted`.
    """
    known = known or Validators()
    with _in_our_words(shown), Doors(shown).get(*_request(url, headers or {}, known), timeout) as response:
        if response.status == HTTPStatus.NOT_MODIFIED:
            return Answer(None, _validators(response.headers, known.content, known))
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise _refusal(response, shown)
        media = response.headers.get("Content-Type", "text/plain").partition(";")[0].strip().lower()
        path = urlsplit(url).path
        hint = path if Path(path).suffix else _TYPES.get(media, path)
        read = _Limits(response, shown, deadline, max_size, stop).read
        spooled = spool(read, shown, hint, folder)
        vouched = "Content-Length" in response.headers or response.chunked
    if not vouched and not spooled.size and response.status == HTTPStatus.OK:
        raise InputError(
            "the connection was closed before any data came", where=shown, hint="run the same command again"
        )
    spooled = replace(spooled, vouched=vouched, media=media)
    return Answer(spooled, _validators(response.headers, spooled.fingerprint, None))


class _Limits:
    """Reads a response block by block, as it comes, as long as it keeps within its limits."""

    def __init__(
        self,
        response: BaseHTTPResponse,
        shown: str,
        deadline: float | None,
        max_size: int | None,
        stop: Event | None,
    ) -> None:
        self._read: Callable[[int], bytes] = response.read1
        self._shown = shown
        self._until = None if deadline is None else time.monotonic() + deadline
        self._left = max_size
        self._stop = stop

    def read(self, size: int) -> bytes:
        """At most `size` bytes, ``b""`` at the end."""
        if self._stop is not None and self._stop.is_set():
            raise Interrupted("the download was stopped", where=self._shown, hint="run the same command again")
        if self._until is not None and time.monotonic() > self._until:
            raise InputError(
                "the download takes too long", where=self._shown, hint='give it more time with deadline = "30m"'
            )
        block = self._read(size)
        if self._left is not None:
            self._left -= len(block)
            if self._left < 0:
                raise InputError(
                    "the download is larger than allowed", where=self._shown, hint='allow more with max_size = "1GiB"'
                )
        return block


def _request(url: str, headers: Mapping[str, str], known: Validators) -> tuple[str, dict[str, str], dict[str, str]]:
    """`url` without its password, the headers that every host is told, and those for the host of `url` alone."""
    parts = urlsplit(url)
    secrets = {}
    if parts.username:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        secrets["Authorization"] = f"Basic {b64encode(user.encode()).decode()}"
    told = {"User-Agent": "headrace", "If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return bare, {name: value for name, value in told.items() if value}, {**secrets, **headers}


def _validators(headers: Mapping[str, str], content: str | None, known: Validators | None) -> Validators:
    before = known or Validators()
    return Validators(headers.get("ETag") or before.etag, headers.get("Last-Modified") or before.last_modified, content)


@contextmanager
def _in_our_words(shown: str) -> Iterator[None]:
    try:
        yield
    except ValueError:
        # what the library says repeats the address or the header, and either may hold a secret
        raise InputError(
            "the address or a header is not well formed", where=shown, hint="look for spaces and line ends in them"
        ) from None
    except (OSError, exceptions.HTTPError) as error:
        # urllib3 says the address with what came too late, and it may hold a secret
        why = error.args[-1] if isinstance(error, exceptions.ProtocolError) else error
        if isinstance(why, IncompleteRead):
            raise InputError("the answer was cut short", where=shown, hint=_AGAIN) from error
        late = isinstance(why, exceptions.TimeoutError)
        what = f"the address cannot be read ({'no answer in time' if late else why})"
        raise InputError(what, where=shown, hint=_AGAIN) from error


def _refusal(response: BaseHTTPResponse, shown: str) -> InputError:
    said = f"{response.status} {response.reason}"
    failure = InputError(f"the server answered {said}", where=shown, hint="check the address and the permissions")
    failure.retry_after = retry_after(response.headers.get("Retry-After"), LONGEST_RETRY_AFTER)
    return failure
