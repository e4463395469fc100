"""Alert rules: what about a new event is worth telling somebody, and the key under which it is told.

    --alert 'strong=mag >= 6'              an SQL predicate over the new events (DuckDB's SQL)
    --alert-function 'near=geo:is_near'    a function: gets the new events, returns which of them raise an alert

    alert key = BLAKE2b, 16 bytes, of event ID (16 bytes) ‖ rule name (UTF-8, NFC), as 32 hexadecimal digits

An alert is one event under one rule, so its key says all that makes it the same alert: a repeated delivery carries the
same key. The key's form is frozen. `headrace.rules` judges events; `headrace.deliver` delivers what was raised.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from headrace.errors import ConfigurationError
from headrace.sendable import require_sendable

__all__ = ["AlertRule", "alert_key", "name_bytes", "parse_rules", "require_distinct"]

KEY_BYTES = 16
LONGEST_NAME = 200
_EXAMPLES = "--alert 'strong=mag >= 6' or --alert-function near=geo:is_near"


@dataclass(frozen=True, slots=True)
class AlertRule:
    """A name, and exactly one of `where` and `function`.

    `where` is an SQL predicate over the table's columns, ``event_id`` (16 bytes) and ``provider``; null counts as
    false. `function` is a callable, or ``module:function``; it gets the new events as a `pyarrow.RecordBatch` and
    returns a boolean for each row (Arrow, NumPy or a list; null counts as false). It sees a part of the input, whose
    borders mean nothing, so a row's answer must depend on that row alone.

    Raises `ConfigurationError` for a name or a combination that is impossible.
    """

    name: str
    where: str | None = None
    function: Callable[..., Any] | str | None = None

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
        """What the rule says, as the user would recognise it."""
        if self.where is not None:
            return self.where
        if isinstance(self.function, str):
            return self.function
        return f"{getattr(self.function, '__module__', '?')}:{getattr(self.function, '__qualname__', self.function)!s}"

    def require_sendable(self) -> None:
        """Raises `ConfigurationError` for a function that cannot be sent to another process."""
        require_sendable(self.function, f"alert rule {self.name}")


def alert_key(event_id: bytes, rule: str) -> str:
    """The key of the alert that `rule` raises for the event: the same wherever and whenever it is raised."""
    return blake2b(event_id + name_bytes(rule), digest_size=KEY_BYTES).hexdigest()


@lru_cache(maxsize=1024)
def name_bytes(rule: str) -> bytes:
    """A rule's name as it goes into the key: UTF-8 in NFC."""
    return unicodedata.normalize("NFC", rule).encode()


def parse_rules(predicates: Sequence[str], functions: Sequence[str]) -> tuple[AlertRule, ...]:
    """Rules from ``NAME=SQL`` and ``NAME=module:function``. Raises `ConfigurationError`."""
    rules = [AlertRule(name, where=what) for name, what in map(_split, predicates)]
    rules += [AlertRule(name, function=what) for name, what in map(_split, functions)]
    return require_distinct(rules)


def require_distinct(rules: Sequence[AlertRule]) -> tuple[AlertRule, ...]:
    """`rules`, or `ConfigurationError` if two have one name: their alerts would have one key."""
    names = [name_bytes(rule.name).decode() for rule in rules]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"two alert rules are named {twice[0]!r}", hint="an alert is known by its rule's name")
    return tuple(rules)


def _split(text: str) -> tuple[str, str]:
    name, equals, what = text.partition("=")
    if not equals:
        raise ConfigurationError(f"{text!r} is not NAME=RULE", hint=f"for example {_EXAMPLES}")
    return name.strip(), what.strip()
