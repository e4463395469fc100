"""One download by HTTP: to a private file, hashed on the way, within its limits, or not at all if nothing changed.

request ──► doors: may this address be fetched? ──► 304: unchanged
If-None-Match                                   ──► 200: to a file ──► same content as before? unchanged
If-Modified-Since                               ──► else, cut short, too large, too slow: `InputError`
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from threading import Event
from urllib.parse import unquote, urlsplit, urlunsplit

from headrace.errors import InputError, Interrupted
from headrace.reading.choices import SILENT_SECONDS
from headrace.reading.fetch.guard import Doors, opener
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
    """What tells one version of a resource from another: the server's words, and the digest of the content."""

    etag: str | None = None
    last_modified: str | None = None
    content: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came: a file (``None`` where the server says that nothing changed), and its validators."""

    file: Spooled | None
    validators: Validators

    @property
    def spooled(self) -> Spooled:
        """The file of an answer to a request without conditions."""
        if self.file is None:
            raise InputError("the server says that nothing changed, and was not asked", hint=_AGAIN)
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
    """What `url` gives, in a file in `folder`; messages call it `shown`.

    `timeout` is the longest silence and `deadline` the longest download in seconds, `max_size` the largest in bytes.
    Raises `InputError` (with `retry_after`), `ConfigurationError` for an address that is not fetched, `Interrupted`.
    """
    doors = Doors(shown)
    known = known or Validators()
    request = _request(url, headers or {}, known)
    with _in_our_words(shown):
        try:
            response = opener(doors).open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == http.client.NOT_MODIFIED:
                    return Answer(None, _validators(error.headers, known.content, known))
                raise _refusal(error, shown) from None
        with response:
            path = urlsplit(url).path
            hint = path if Path(path).suffix else _TYPES.get(response.headers.get_content_type(), path)
            read = _Limits(response, shown, deadline, max_size, stop).read
            spooled = spool(read, shown, hint, folder)
            announced = response.headers.get("Content-Length")
            vouched = announced is not None or bool(getattr(response, "chunked", False))
    # http.client tells of an answer cut short only to those who read it in one piece
    if announced is not None and announced.isdigit() and spooled.size != int(announced):
        raise InputError(
            f"the answer was cut short: {spooled.size} of {announced} bytes",
            where=shown,
            hint="run the same command again",
        )
    if not vouched and not spooled.size and response.status == http.client.OK:
        raise InputError(
            "the connection was closed before anything came", where=shown, hint="run the same command again"
        )
    spooled = replace(spooled, vouched=vouched, media=response.headers.get_content_type())
    return Answer(spooled, _validators(response.headers, spooled.fingerprint, None))


class _Limits:
    """Reads a response block by block, as it comes, as long as it keeps within its limits."""

    def __init__(
        self,
        response: http.client.HTTPResponse,
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
                    "the download is larger than it may be", where=self._shown, hint='allow more with max_size = "1GiB"'
                )
        return block


def _request(url: str, headers: Mapping[str, str], known: Validators) -> urllib.request.Request:
    parts = urlsplit(url)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    request = urllib.request.Request(bare, headers={"User-Agent": "headrace"})  # noqa: S310 - the opener knows http alone
    # unredirected: another host must not be told a password
    if parts.username:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", f"Basic {b64encode(user.encode()).decode()}")
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    if known.etag:
        request.add_header("If-None-Match", known.etag)
    if known.last_modified:
        request.add_header("If-Modified-Since", known.last_modified)
    return request


def _validators(headers: Message, content: str | None, known: Validators | None) -> Validators:
    before = known or Validators()
    return Validators(headers.get("ETag") or before.etag, headers.get("Last-Modified") or before.last_modified, content)


@contextmanager
def _in_our_words(shown: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, http.client.InvalidURL):
        # what the library says repeats the address or the header, and either may hold a secret
        raise InputError(
            "the address or a header is not well formed", where=shown, hint="look for spaces and line ends in them"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        raise InputError(f"the address cannot be read ({why})", where=shown, hint=_AGAIN) from error


def _refusal(error: urllib.error.HTTPError, shown: str) -> InputError:
    failure = InputError(
        f"the server answered {error.code} {error.reason}", where=shown, hint="check the address and the permissions"
    )
    failure.retry_after = _retry_after(error.headers.get("Retry-After"))
    return failure


def _retry_after(text: str | None) -> float:
    """Seconds, from a number or a date; 0 where it is neither."""
    if text is None:
        return 0.0
    if text.strip().isdigit():
        return min(float(text), LONGEST_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((aware - datetime.now(UTC)).total_seconds(), 0.0), LONGEST_RETRY_AFTER)
