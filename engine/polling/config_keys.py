"""Every key that ``headrace.toml`` may have: one table from which the check, the message and the JSON schema come.

KEYS ──► `check`: is this value of that kind? ──► the value, or what is wrong with it and what would be right
     └─► `json_schema`: the same as JSON Schema, for editors and other programs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from headrace.errors import ConfigurationError
from headrace.events.enrich import OnError
from headrace.events.revisions import RevisionsName
from headrace.options.flag import Mode
from headrace.options.load import MissingId, parse_seconds, parse_size, parse_window
from headrace.options.shape import STRATEGIES
from headrace.partitioning.contract import HashName, LogicalType, Scope

__all__ = ["ALERT", "PARALLEL", "PROVIDER", "RUN", "SOURCES", "TOP", "Key", "Misfit", "check", "json_schema"]

SOURCES = ("url", "path", "function")
FORMATS = ("csv", "tsv", "json", "jsonl", "geojson", "parquet")


class Misfit(Exception):  # noqa: N818 - never leaves the reading of a file
    """A value is not of its key's kind: what it is, and what to write instead."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.what = what
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Key:
    """One key: the kind of its value (see `_KINDS`), what it means, an example, and the values it may have.

    What stands at a `secret` one is not repeated in messages: there may be a password in it.
    """

    kind: str
    meaning: str
    example: object
    choices: tuple[str, ...] = ()
    secret: bool = False


PROVIDER: dict[str, Key] = {
    "url": Key("text", "An address to fetch: http, https or s3.", "https://feed.example/events.csv", secret=True),
    "path": Key("text", "A file, a folder or a pattern; relative to the folder of this file.", "drop/*.csv"),
    "function": Key("function", "Your own source: called without arguments, yields dicts or Arrow.", "feeds:buoys"),
    "headers": Key("texts by name", "Sent with each request.", {"Authorization": "Bearer ${TOKEN}"}, secret=True),
    "timeout": Key("span", "Without a byte for so long, a download has failed.", "30s"),
    "deadline": Key("span", "A download that is not complete after so long has failed.", "10m"),
    "max_size": Key("size", "A larger download has failed.", "256MiB"),
    "active": Key("flag", "Whether it is polled at all.", True),
    "interval": Key("span", "The time between two polls.", "5m"),
    "slowest": Key("span", "The longest time between two polls of a provider that is empty or fails.", "6h"),
    "format": Key("choice", "If neither name nor content tells.", "csv", FORMATS),
    "select": Key("text", "DuckDB SQL over the relation source.", "SELECT * FROM source WHERE mag > 1"),
    "table": Key("text", "The event table. Default: the provider's name.", "fires"),
    "id": Key("texts", "The identity columns. Default: as stored; on a first load, all.", ["id"]),
    "missing_id": Key(
        "choice",
        "A row whose identity columns are all empty. Default: as stored; on a first load, reject.",
        "keep-whole-row",
        get_args(MissingId),
    ),
    "time": Key("text", "The event time's column.", "time"),
    "types": Key("types", "Pins columns' types on the first load.", {"confidence": "string"}),
    "timezone": Key("text", "How timestamps without a zone are read.", "UTC"),
    "hash": Key("choice", "blake2b for untrusted producers.", "xxh3_128", get_args(HashName)),
    "scope": Key("choice", "Where duplicates are sought.", "provider", get_args(Scope)),
    "window": Key("window", "How far back existing IDs are fetched ahead; all is everything.", "30d"),
    "chunk_rows": Key("count", "Rows in a chunk, committed together.", 131_072),
    "mode": Key("choice", "Default: as the feature flag says.", "sequential", get_args(Mode)),
    "prove": Key("flag", "Whether each load ends with a look at the table for every event that it met.", True),
    "enrich": Key("function", "Your function that adds columns to new events.", "geo:add_country"),
    "on_error": Key(
        "choice", "When enrich or an alert rule fails: fail the poll, or reject those rows.", "fail", get_args(OnError)
    ),
    "alerts": Key("alerts", "Rules over new events.", [{"name": "large", "where": "frp > 500"}]),
    "revisions": Key(
        "choice", "An event that comes again with other content.", "ignore", tuple(get_args(RevisionsName))
    ),
    "version_column": Key("text", "The column that says which of two revisions is the newer.", "updated"),
}
ALERT: dict[str, Key] = {
    "name": Key("text", "What the alert is called.", "large"),
    "where": Key("text", "An SQL predicate over new events.", "frp > 500"),
    "function": Key("function", "Your function from a record batch to a mask.", "rules:large"),
    "revisions": Key("flag", 'Whether newer versions raise alerts of their own; needs revisions = "update".', True),
}
RUN: dict[str, Key] = {
    "every": Key("span", "Poll again and again, so often; without it, once.", "5m"),
    "downloads": Key("count", "Downloads at a time.", 4),
    "lease": Key("span", "After so long without a sign of life, a host's claim on a provider lapses.", "60s"),
    "metrics": Key("text", "Serve metrics for Prometheus there, as --metrics does.", ":9464"),
    "slow_provider": Key("span", "Warn of a run that takes so long, as --slow-provider does.", "10m"),
    "slow_chunk": Key("span", "Warn of a chunk or slice that takes so long in a stage.", "30s"),
    "slow_query": Key("span", "Warn of a statement that takes so long in the database.", "5s"),
    "keep_alerts": Key("span", "Alerts that were delivered so long ago are deleted. Default: never.", "90d"),
}
PARALLEL: dict[str, Key] = {
    "strategy": Key("choice", "How parallel mode stays safe.", "partitioned", tuple(STRATEGIES)),
    "workers": Key("count", "Processes of parallel mode. Default: one for each core.", 2),
    "partitions": Key("count", "Default: one for each worker.", 2),
    "memory": Key("size", "For all chunks on their way.", "512MiB"),
    "executor": Key("text", "Workers elsewhere.", "dask://scheduler:8786", secret=True),
    "lock_timeout": Key("span", "How long the strategy locked waits for a lock.", "30s"),
    "task_timeout": Key("span", "A worker that takes longer for one task is replaced.", "10m"),
    "locks": Key("text", "A Redis that keeps the locks.", "redis://locks:6379", secret=True),
}
TOP: dict[str, Key] = {
    "database": Key("text", "Where to write. Default: HEADRACE_DATABASE_URL.", "${HEADRACE_DATABASE_URL}", secret=True),
    "run": Key("table", "How headrace run works.", {"every": "5m"}),
    "parallel": Key("table", "How parallel mode works, once the flag turns it on.", {"workers": 2}),
    "defaults": Key("table", "Keys that hold for every provider which does not say otherwise.", {"interval": "5m"}),
    "providers": Key("table", "A table each: [providers.NAME].", {}),
}


def check(key: Key, value: object) -> Any:
    """`value` in its own type. Raises `Misfit`."""
    return _KINDS[key.kind](key, value)


def _text(key: Key, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(key, value, "a text")
    return value


def _choice(key: Key, value: object) -> str:
    if value not in key.choices:
        raise Misfit(f"{value!r} is not among its values", f"choose one of: {', '.join(key.choices)}")
    return str(value)


def _flag(key: Key, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, value, "true or false")
    return value


def _count(key: Key, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _wrong(key, value, "a whole number from 1 on")
    return value


def _texts(key: Key, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
        raise _wrong(key, value, "a list of texts")
    return tuple(value)


def _texts_by_name(key: Key, value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise _wrong(key, value, "a table of texts")
    return value


def _types(key: Key, value: object) -> dict[str, str]:
    types = _texts_by_name(key, value)
    for column, kind in types.items():
        if kind not in get_args(LogicalType):
            raise Misfit(f"the column {column} cannot be of type {kind!r}", f"the types are {_listed(LogicalType)}")
    return types


def _function(key: Key, value: object) -> str:
    text = _text(key, value)
    module, colon, name = text.partition(":")
    if not module or not colon or not name:
        raise _wrong(key, value, "module:function")
    return text


def _parsed(parse: Callable[[str], Any], kind: str) -> Callable[[Key, object], Any]:
    def checked(key: Key, value: object) -> Any:
        try:
            return parse(_text(key, value))
        except (ConfigurationError, Misfit):
            raise _wrong(key, value, kind) from None

    return checked


def _table(key: Key, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _wrong(key, value, "a table")
    return value


def _tables(key: Key, value: object) -> list[dict[str, object]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _wrong(key, value, "a list of tables")
    return value


_KINDS: dict[str, Callable[[Key, object], Any]] = {
    "text": _text,
    "choice": _choice,
    "flag": _flag,
    "count": _count,
    "texts": _texts,
    "texts by name": _texts_by_name,
    "types": _types,
    "function": _function,
    "span": _parsed(parse_seconds, "a time such as 30s, 5m, 6h"),
    "window": _parsed(parse_window, "a time such as 30d, or all"),
    "size": _parsed(parse_size, "a size such as 256MiB"),
    "table": _table,
    "alerts": _tables,
}


def _wrong(key: Key, value: object, wanted: str) -> Misfit:
    return Misfit(f"{'it' if key.secret else repr(value)} is not {wanted}", f"for example {key.example!r}")


def _listed(kind: Any) -> str:
    return ", ".join(get_args(kind))


# JSON schema ----------------------------------------------------------------------------------------------------

_SPAN = r"^\s*\d+\s*[smhdwSMHDW]\s*$|\$\{"
_SHAPES: dict[str, Mapping[str, object]] = {
    "text": {"type": "string", "minLength": 1},
    "flag": {"type": "boolean"},
    "count": {"type": "integer", "minimum": 1},
    "texts": {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
    "texts by name": {"type": "object", "additionalProperties": {"type": "string"}},
    "types": {"type": "object", "additionalProperties": {"enum": [*get_args(LogicalType)]}},
    "function": {"type": "string", "pattern": r"^[^:]+:.+$|\$\{"},
    "span": {"type": "string", "pattern": _SPAN},
    "window": {"type": "string", "pattern": rf"{_SPAN}|^\s*[aA][lL][lL]\s*$"},
    "size": {"type": "string", "pattern": r"^\s*\d+\s*([bB]|[kKmMgG]([iI])?[bB])?\s*$|\$\{"},
    "table": {"type": "object"},
}


def json_schema() -> dict[str, object]:
    """The form of ``headrace.toml`` as a JSON schema (draft 2020-12)."""
    alert = _object(ALERT) | {
        "required": ["name"],
        "oneOf": [{"required": [way]} for way in ("where", "function")],
    }
    source = {"oneOf": [{"required": [way]} for way in SOURCES]}
    properties: dict[str, object] = {name: _property(key) for name, key in TOP.items()}
    properties["run"] = _object(RUN)
    properties["parallel"] = _object(PARALLEL)
    properties["defaults"] = _object({name: key for name, key in PROVIDER.items() if name not in SOURCES})
    properties["providers"] = {
        "type": "object",
        "propertyNames": {"minLength": 1},
        "additionalProperties": _object(PROVIDER) | source,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "headrace.toml",
        "description": "Providers, and where their events go.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "required": ["providers"],
        "$defs": {"alert": alert},
    }


def _object(keys: Mapping[str, Key]) -> dict[str, object]:
    properties = {name: _property(key) for name, key in keys.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _property(key: Key) -> dict[str, object]:
    if key.kind == "choice":
        return {"enum": [*key.choices], "description": key.meaning}
    if key.kind == "alerts":
        return {"type": "array", "items": {"$ref": "#/$defs/alert"}, "description": key.meaning}
    return {**_SHAPES[key.kind], "description": key.meaning, "examples": [key.example]}
