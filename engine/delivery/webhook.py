"""Alerts by webhook: one signed POST each, as many at a time as there are threads.

    POST /path                                     the alert as a JSON object (`headrace.delivery.dispatcher.message`)
    webhook-id: <alert key>                        the same at every attempt
    webhook-timestamp: <seconds since 1970>        of this attempt
    webhook-signature: v1,<base64 of the HMAC-SHA256 of "<id>.<timestamp>.<body>" under HEADRACE_WEBHOOK_KEY>

    2xx           taken                            3xx, 408, 429, 5xx,    refused for now; ``Retry-After``
    other 4xx     refused for good                 no answer in time      is heeded, an hour at most

The headers are those of Standard Webhooks (https://www.standardwebhooks.com): most languages have a library that checks
them. Redirects are not followed, because they would send the events to a host that nobody named. Messages show the
receiver's scheme and host only, because whole URLs of webhooks are secrets.
"""

from __future__ import annotations

import hmac
import http.client
import socket
import ssl
import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Timer
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit

from headrace.delivery.dispatcher import LONGEST_PAUSE, Sent, message
from headrace.errors import ConfigurationError
from headrace.reading.fetch.retry_after import retry_after
from headrace.storage.outbox import StoredAlert
from headrace.version import __version__

__all__ = ["Webhook", "signature", "signing_key"]

_PREFIX = "whsec_"
_HINT = "for example https://alerts.example/hook; the whole URL can be kept in HEADRACE_WEBHOOK_URL"


def signing_key(secret: str) -> bytes:
    """The key in `secret`: the base64 behind ``whsec_``, else the text itself. Raises `ConfigurationError`."""
    base64 = secret.removeprefix(_PREFIX)
    if base64 == secret:
        return secret.encode()
    try:
        key = b64decode(base64 + "=" * (-len(base64) % 4), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ConfigurationError(
            f"the webhook's key cannot be read: {_PREFIX} is not followed by base64",
            hint="copy the whole secret of the receiver again",
        )
    return key


def signature(key: bytes, identifier: str, timestamp: str, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    signed = f"{identifier}.{timestamp}.".encode() + body
    return f"v1,{b64encode(hmac.digest(key, signed, 'sha256')).decode()}"


class Webhook:
    """A receiver at `url`, and the `key` to sign with (``None``: unsigned). `timeout` is the seconds of a whole POST.

    Raises `ConfigurationError` for an invalid URL.
    """

    def __init__(self, url: str, key: bytes | None, *, timeout: float = 10.0, at_once: int = 8) -> None:
        self._url = _parsed(url)
        self._key = key
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="headrace-webhook")
        self._tls = ssl.create_default_context() if self._url.scheme == "https" else None
        self.at_once = at_once

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

    def __str__(self) -> str:
        """The receiver, fit for messages."""
        return f"{self._url.scheme}://{self._host}"

    def send(self, alerts: Sequence[StoredAlert]) -> Sequence[Sent]:
        """POST each alert; no POST waits for another."""
        return list(self._threads.map(self._post, alerts))

    def _post(self, alert: StoredAlert) -> Sent:
        body = message(alert).encode()
        try:
            status, reason, wait = self._answer(body, self._headers(alert, body))
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: TLS read after a hang-up
            return Sent("later", f"{self}: {type(error).__name__}: {error}")
        if 200 <= status < 300:  # noqa: PLR2004 - HTTP's own numbers, here and below
            return Sent("taken")
        refused = 400 <= status < 500 and status not in (408, 429)  # noqa: PLR2004
        return Sent("never" if refused else "later", f"{self} answered {status} {reason}".rstrip(), wait)

    def _headers(self, alert: StoredAlert, body: bytes) -> dict[str, str]:
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"headrace/{__version__}",
            "Connection": "close",
            "webhook-id": alert.key,
            "webhook-timestamp": timestamp,
        }
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, alert.key, timestamp, body)
        if self._url.username is not None:
            user = f"{unquote(self._url.username)}:{unquote(self._url.password or '')}"
            headers["Authorization"] = f"Basic {b64encode(user.encode()).decode()}"
        return headers

    def _answer(self, body: bytes, headers: dict[str, str]) -> tuple[int, str, float]:
        """Status, reason, and how many seconds the receiver asks to wait."""
        connection = self._connection()
        try:
            connection.connect()
            # a socket's own timeout starts anew with every byte that drips in
            alarm = Timer(self._timeout, _hang_up, [connection.sock])
            alarm.start()
            try:
                target = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
                connection.request("POST", target, body, headers)
                response = connection.getresponse()
                return response.status, response.reason, retry_after(response.headers.get("Retry-After"), LONGEST_PAUSE)
            finally:
                alarm.cancel()
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=self._timeout)
        return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._tls)

    @property
    def _host(self) -> str:
        host = self._url.hostname or ""
        shown = f"[{host}]" if ":" in host else host
        return shown if self._url.port is None else f"{shown}:{self._url.port}"


def _parsed(url: str) -> SplitResult:
    # the text is not repeated: it may hold a secret
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        usable = usable and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError("the webhook's URL cannot be read", hint=_HINT)
    return parts


def _hang_up(sock: socket.socket) -> None:
    with suppress(OSError):
        # past the TLS layer, which is in the other thread's hands
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
