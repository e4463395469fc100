"""Alert rules, which decide for which new events an alert is raised, and the alert's key.

    --alert 'strong=mag >= 6'              an SQL predicate over the new events (DuckDB's SQL)
    --alert-function 'near=geo:is_near'    a function: gets the new events, returns which of them raise an alert

    alert key = BLAKE2b, 16 bytes, of event ID (16 bytes) ‖ rule name (UTF-8, NFC), as 32 hexadecimal digits
                a rule with `revisions`: ‖ 00 ‖ version (encoding v1) behind that

An alert is one event under one rule, and its key identifies it: a repeated delivery carries the same key. Under a rule
with `revisions` (`--alert-revisions strong`) an alert is one version of the event. The key's form is frozen.
`headrace.events.alert_judge` judges events; `headrace.delivery.dispatcher` delivers the raised alerts.
"""

from __future__ import annotations

import math
import struct
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from headrace.errors import ConfigurationError
from headrace.events.user_code import require_sendable
from headrace.partitioning.encoding import encode

__all__ = [
    "AlertRule",
    "alert_key",
    "name_bytes",
    "parse_rules",
    "require_distinct",
    "require_updates",
    "version_bytes",
]

KEY_BYTES = 16
LONGEST_NAME = 200
_EXAMPLES = "--alert 'strong=mag >= 6' or --alert-function near=geo:is_near"


@dataclass(frozen=True, slots=True)
class AlertRule:
    """A name, and exactly one of `where` and `function`; with `revisions`, the rule also judges revised events.

    `where` is an SQL predicate over the table's columns, ``event_id`` (16 bytes) and ``provider``; null counts as
    false. `function` is a callable, or ``module:function``; it gets the new events as a `pyarrow.RecordBatch` and
    returns a boolean for each row (Arrow, NumPy or a list; null counts as false). It sees a part of the input
    with arbitrary boundaries, so the result for a row must depend on that row alone.

    Without `revisions` an event raises at most one alert, by the row that was inserted. With `revisions`, each newer
    version that replaces the event's row in the table (``--revisions update``) also raises one alert.

    Raises `ConfigurationError` for a name or a combination that is impossible.
    """

    name: str
    where: str | None = None
    function: Callable[..., Any] | str | None = None
    revisions: bool = False

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable() or len(self.name) > LONGEST_NAME:
            raise ConfigurationError(
                f"an alert rule cannot be named {self.name!r}", hint=f"1 to {LONGEST_NAME} printable characters"
            )
        if (self.where is None) == (self.function is None):
            raise ConfigurationError(
                "a rule is either an SQL predicate or a function", where=f"alert rule {self.name}", hint=_EXAMPLES
            )
        if self.where is not None and not self.where.strip():
            raise ConfigurationError("the predicate is empty", where=f"alert rule {self.name}", hint=_EXAMPLES)

    @property
    def what(self) -> str:
        """The rule's predicate or function, as the user wrote it."""
        if self.where is not None:
            return self.where
        if isinstance(self.function, str):
            return self.function
        return f"{getattr(self.function, '__module__', '?')}:{getattr(self.function, '__qualname__', self.function)!s}"

    def require_sendable(self) -> None:
        """Raises `ConfigurationError` for a function that cannot be sent to another process."""
        require_sendable(self.function, f"alert rule {self.name}")


def alert_key(event_id: bytes, rule: str, version: bytes | None = None) -> str:
    """The key of the alert that `rule` raises for the event: the same wherever and whenever it is raised.

    `version` is the version of the row (`version_bytes`), for a rule with `revisions`.
    """
    behind = b"" if version is None else b"\0" + version  # a name is printable, so it has no NUL
    return blake2b(event_id + name_bytes(rule) + behind, digest_size=KEY_BYTES).hexdigest()


def version_bytes(column: pa.Array) -> list[bytes]:
    """Encoding v1 of each version, but with every float value: a NaN is as old as a null, and so the same version."""
    if not pa.types.is_floating(column.type):
        encoded: list[bytes] = encode([column], None).to_pylist()
        return encoded
    known = [None if value is None or math.isnan(value) else value + 0.0 for value in column.to_pylist()]
    return [b"\x00" if value is None else b"\x03" + struct.pack(">d", value) for value in known]


@lru_cache(maxsize=1024)
def name_bytes(rule: str) -> bytes:
    """A rule's name as it goes into the key: UTF-8 in NFC."""
    return unicodedata.normalize("NFC", rule).encode()


def parse_rules(
    predicates: Sequence[str], functions: Sequence[str], revisions: Sequence[str] = ()
) -> tuple[AlertRule, ...]:
    """Parse rules from ``NAME=SQL`` and ``NAME=module:function``; the rules named in `revisions` get `revisions`.

    Raises `ConfigurationError`.
    """
    rules = [AlertRule(name, where=what) for name, what in map(_split, predicates)]
    rules += [AlertRule(name, function=what) for name, what in map(_split, functions)]
    names = [rule.name for rule in rules]
    if unknown := [name for name in revisions if name not in names]:
        raise ConfigurationError(
            f"--alert-revisions {unknown[0]}: there is no such rule",
            hint=f"the rules are {', '.join(names)}" if names else f"give the rule too, {_EXAMPLES}",
        )
    return require_distinct([replace(rule, revisions=rule.name in revisions) for rule in rules])


def require_updates(rules: Sequence[AlertRule], revisions: str) -> None:
    """Raises `ConfigurationError` for a rule with `revisions` in a load that never updates rows."""
    asking = [rule.name for rule in rules if rule.revisions]
    if asking and revisions != "update":
        raise ConfigurationError(
            f"alert rule {asking[0]} asks for revisions, but with --revisions {revisions} no event is ever revised",
            hint="add --revisions update --version-column COL, or remove revisions from the rule",
        )


def require_distinct(rules: Sequence[AlertRule]) -> tuple[AlertRule, ...]:
    """`rules`, or `ConfigurationError` if two have one name: their alerts would have one key."""
    names = [name_bytes(rule.name).decode() for rule in rules]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(
            f"two alert rules are named {twice[0]!r}", hint="each alert rule needs a name of its own"
        )
    return tuple(rules)


def _split(text: str) -> tuple[str, str]:
    name, equals, what = text.partition("=")
    if not equals:
        raise ConfigurationError(f"{text!r} is not NAME=RULE", hint=f"for example {_EXAMPLES}")
    return name.strip(), what.strip()
