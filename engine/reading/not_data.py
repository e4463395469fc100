"""Answers that are not data: HTML pages, XML documents, error messages.

A server that is down for maintenance, needs a login or gets too many requests may still answer 200. Its page has a
first line, which would be a header, and no event: it looks like a quiet feed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from headrace.errors import InputError

__all__ = ["require_data", "require_header", "require_no_markup"]

_LEADING = re.compile(rb"(?:\s+|<!--.*?-->)*", re.DOTALL)
_PAGE = re.compile(rb"<(!doctype\s+html|html|head|body|script|meta|title)\b", re.IGNORECASE)
_DOCUMENT = re.compile(rb"<(\?xml\b|!doctype\b|!--)", re.IGNORECASE)
_ELEMENT = re.compile(rb"<([A-Za-z_][\w:.-]*)(?:\s[^<>]*)?>", re.DOTALL)
_DELIMITER = re.compile(rb"[,;\t|]")
_HTML = {"text/html", "application/xhtml+xml"}
_ABOUT_ERRORS = {
    "error",
    "errors",
    "fault",
    "exception",
    "error_description",
    "error_message",
    "errorcode",
    "errormessage",
}
_BESIDE = {
    *("message", "messages", "msg", "detail", "details", "title", "type", "instance", "status", "statuscode"),
    *(
        "status_code",
        "code",
        "reason",
        "success",
        "ok",
        "timestamp",
        "path",
        "request_id",
        "requestid",
        "trace",
        "traceid",
    ),
    *("error_code", "error_uri", "documentation_url", "help", "hint", "info", "fields", "statustext", "retry_after"),
}
_REFUSED = 400  # the least of HTTP's status codes that says so
_FAILED = {"error", "fail", "failed", "failure"}
_LOOK = "check what the address answers: it may need a login or a key, or be down for a while"


def require_no_markup(head: bytes, name: str) -> None:
    """Raise `InputError` for a file that begins as HTML or XML does; a column may be called ``<TICKER>``."""
    begin = _LEADING.match(head)
    rest = head[begin.end() :] if begin else head
    if not rest.startswith(b"<"):
        return
    element = _ELEMENT.match(rest)
    closed = element is not None and re.search(rb"</" + re.escape(element[1]) + rb"\s*>", rest) is not None
    if _PAGE.match(rest):
        raise InputError("this is an HTML page, not data", where=name, hint=_LOOK)
    if closed or _DOCUMENT.match(rest):
        raise InputError("this is an XML document, a format that Headrace does not read", where=name, hint=_LOOK)


def require_data(head: bytes, name: str, media: str) -> None:
    """Raise `InputError` for an answer of type `media` that begins like a page or a message, not like data."""
    require_no_markup(head, name)
    text = head.strip()
    if media in _HTML and text and text[:1] not in {b"{", b"["} and not _DELIMITER.search(text.partition(b"\n")[0]):
        raise InputError(f"the answer is a text of the type {media}, not data", where=name, hint=_LOOK)
    if text[:1] in {b"{", b"["} and (message := _message(text)):
        raise InputError(
            f"the answer is an error message, not data: {message}",
            where=name,
            hint=f"{_LOOK}; if these are events after all, save them in a file and load that",
        )


def require_header(columns: Sequence[str], needed: Sequence[str], name: str) -> None:
    """Raise `InputError` if what came without a row has a header which is not that of the `needed` columns: it is a
    text of one line, and not a feed that is quiet.
    """
    missing = [column for column in needed if column not in columns]
    sentence = not needed and len(columns) == 1 and re.search(r"\s|[.!?:]", columns[0])
    if columns and (missing or sentence):
        raise InputError(
            f"there is no row, and the first line is not a header: {' '.join(columns)[:200]!r}", where=name, hint=_LOOK
        )


def _message(text: bytes) -> str | None:
    """What a JSON document that is about nothing but an error says; ``None`` for any other."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):  # longer than a message is, or several values
        return None
    objects = found if isinstance(found, list) else [found]
    if objects and all(isinstance(one, dict) and _is_about_error(one) for one in objects):
        return text.decode(errors="replace")[:200]
    return None


def _is_about_error(found: dict[str, object]) -> bool:
    members = {name.lower(): value for name, value in found.items()}
    if not set(members) <= _ABOUT_ERRORS | _BESIDE:
        return False
    told = any(members.get(name) for name in _ABOUT_ERRORS)
    failed = members.get("success") is False or members.get("ok") is False
    status = {
        members.get(name) for name in ("status", "statuscode", "status_code", "code") if _is_plain(members.get(name))
    }
    refused = any(str(one).lower() in _FAILED or (str(one).isdigit() and int(str(one)) >= _REFUSED) for one in status)
    return told or failed or refused or (bool(members) and set(members) <= {"message", "msg", "detail"})


def _is_plain(value: object) -> bool:
    return isinstance(value, int | str)
