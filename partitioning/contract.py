"""The contract: what makes an event the same event, in every load.

    command line ──► Contract ──► to_json ──► stored with the table
                        ▲                          │
    the next run ───────┴── differences ◄── from_json ◄┘        any difference: the run is refused

An event ID is a function of the contract and the row, of nothing else. Two runs with different contracts would give one
event two IDs and store it twice without a unique key ever noticing; so the contract is pinned with the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

import pyarrow as pa

from headrace.errors import ContractError
from headrace.partitioning.choices import HashName, LogicalType, Scope

__all__ = ["Contract", "Layout", "LogicalType", "arrow_type", "key_check", "logical_type"]

Layout = Literal["time", "hash"]

_VERSION = 1
_TIME_TYPES = ("timestamp", "date")
_TYPED = ("identity", "others")  # fields that are columns with their types
_KEY_BYTES = 64  # the longest key that BLAKE2b takes (RFC 7693, section 2.1)

_ARROW_TYPES: Mapping[LogicalType, pa.DataType] = {
    "bool": pa.bool_(),
    "integer": pa.int64(),
    "float": pa.float64(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "date": pa.date32(),
    "decimal": pa.decimal128(38, 9),
    "string": pa.string(),
    "bytes": pa.binary(),
}


@dataclass(frozen=True, slots=True)
class Contract:
    """What makes an event the same event.

    `identity` names the identity columns with their types, in the order in which they are encoded. `time` is the column
    that says when the event happened. `timezone` is how a timestamp without a zone is read. `key_check` is what
    `key_check` makes of a blake2b key; the key itself is never stored. `whole_row` says whether the identity is every
    column because nobody named one; a contract that an older release stored does not know (``None``).
    `others` are the columns beside the identity with their types, where an event without identity is told by its whole
    row; without any, it is rejected. Raises `ContractError` if it contradicts itself.
    """

    identity: tuple[tuple[str, LogicalType], ...]
    time: str | None = None
    hash: HashName = "xxh3_128"
    scope: Scope = "provider"
    timezone: str = "UTC"
    key_check: str | None = None
    version: int = _VERSION
    whole_row: bool | None = None
    others: tuple[tuple[str, LogicalType], ...] = ()

    def __post_init__(self) -> None:
        _check_version(self.version)
        _check_identity(self.identity)
        _check_types(self.others)
        _check_time(self)
        _check_choice("hash", self.hash, get_args(HashName))
        _check_choice("scope", self.scope, get_args(Scope))
        _check_timezone(self.timezone)
        _check_key_check(self)

    @property
    def layout(self) -> Layout:
        """``time`` when the time column is one of the identity columns, so that equal events have equal times."""
        return "time" if self.time in dict(self.identity) else "hash"

    def to_json(self) -> str:
        """Canonical JSON: equal contracts give equal text. What is not known is left out, as older releases did."""
        fields = asdict(self)
        if self.whole_row is None:
            del fields["whole_row"]
        if not self.others:
            del fields["others"]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """The contract that `to_json` wrote. Raises `ContractError` if `text` is something else."""
        try:
            return cls(**_fields(json.loads(text)))
        except (ValueError, TypeError, KeyError) as error:
            raise ContractError(
                f"the stored contract cannot be read ({error})",
                hint="the row in headrace_contracts was changed by hand; restore it from a backup",
            ) from error

    def differences(self, other: Contract) -> list[str]:
        """One line for each field in which `other` (this run) differs from this contract (the stored one)."""
        stored, run = _facts(self), _facts(other)
        return [f"{name}: stored {stored[name]} — this run {run[name]}" for name in stored if stored[name] != run[name]]


def key_check(key: bytes) -> str:
    """Eight hex digits that tell keys apart and give none away: BLAKE2b-32 of a fixed text under `key`.

    Raises `ContractError` for a key that BLAKE2b does not take.
    """
    if not 1 <= len(key) <= _KEY_BYTES:
        raise ContractError(
            f"a blake2b key has 1 to {_KEY_BYTES} bytes; this one has {len(key)}",
            hint="make one with: openssl rand -hex 32",
        )
    return blake2b(b"headrace key check", digest_size=4, key=key).hexdigest()


def logical_type(kind: pa.DataType) -> LogicalType:
    """The contract's name for the values of an Arrow type; a dictionary counts as its values.

    Raises `ContractError` for types that have no place in an identity (lists, structs, times of day, durations).
    """
    types = pa.types
    if types.is_dictionary(kind):
        return logical_type(kind.value_type)
    tests: tuple[tuple[LogicalType, bool], ...] = (
        ("bool", types.is_boolean(kind)),
        ("integer", types.is_integer(kind)),
        ("float", types.is_floating(kind)),
        ("timestamp", types.is_timestamp(kind)),
        ("date", types.is_date(kind)),
        ("decimal", types.is_decimal128(kind)),
        ("string", types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)),
        ("bytes", types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)),
    )
    for name, matches in tests:
        if matches:
            return name
    raise ContractError(
        f"a column of type {kind} cannot be part of an identity", hint="turn it into text or numbers in --select"
    )


def arrow_type(name: LogicalType) -> pa.DataType:
    """The canonical Arrow type of a contract type; a decimal gets 38 digits, 9 of them after the point."""
    return _ARROW_TYPES[name]


def _fields(stored: dict[str, Any]) -> dict[str, Any]:
    _check_version(stored["version"])  # first: a newer version may have fields that this one does not know
    typed = {name: tuple((column, kind) for column, kind in stored[name]) for name in _TYPED if name in stored}
    return {**stored, **typed}


def _facts(contract: Contract) -> dict[str, str]:
    """The contract's fields as a person reads them, in the order in which they are explained."""
    return {
        "identity": ", ".join(f"{name}:{kind}" for name, kind in contract.identity),
        "time": contract.time or "none",
        "hash": contract.hash,
        "scope": contract.scope,
        "timezone": contract.timezone,
        "key": contract.key_check or "none",
        "version": str(contract.version),
    }


def _check_version(version: int) -> None:
    if version != _VERSION:
        raise ContractError(
            f"this contract has version {version}; this Headrace knows version {_VERSION}",
            hint="use the Headrace version that made the table, or a newer one",
        )


def _check_identity(identity: tuple[tuple[str, LogicalType], ...]) -> None:
    names = [name for name, _ in identity]
    if not names:
        raise ContractError("the identity names no column", hint="name the identity columns with --id")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ContractError(f"the identity names {', '.join(repeated)} twice", hint="name each column once in --id")
    _check_types(identity)


def _check_types(columns: tuple[tuple[str, LogicalType], ...]) -> None:
    for name, kind in columns:
        _check_choice(f"type of column {name}", kind, get_args(LogicalType))


def _check_time(contract: Contract) -> None:
    kind = dict(contract.identity).get(contract.time) if contract.time is not None else None
    if kind is not None and kind not in _TIME_TYPES:
        raise ContractError(
            f"the time column {contract.time} is of type {kind}, not timestamp or date",
            hint=f"pin it with --type {contract.time}=timestamp, or cast it in --select",
        )


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ContractError(f"the {what} cannot be {value!r}", hint=f"choose one of: {', '.join(choices)}")


def _check_timezone(name: str) -> None:
    if name == "UTC":  # needs no time zone database, which small container images lack
        return
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError) as error:
        raise ContractError(
            f"the time zone {name!r} is not known on this machine",
            hint="use a name such as Europe/Helsinki; if it is right, install the package tzdata",
        ) from error


def _check_key_check(contract: Contract) -> None:
    if contract.key_check is not None and contract.hash != "blake2b":
        raise ContractError(f"the hash {contract.hash} takes no key", hint="use --hash blake2b, or leave the key out")
