"""What an option is, and the kinds of values that options have.

    Option ──► command line: a flag with its metavar, help, default and group       (`headrace.cli.options`)
          ├──► headrace.toml: `check` says whether a value fits, or what would       (`headrace.polling.config_file`)
          ├──► docs/headrace.schema.json: `schema`
          ├──► Python: the keyword of that name, read by `parsed`                   (`headrace.options.load`)
          └──► the tables of docs/reference.md

Nothing heavy is imported here: every start of the command line reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from headrace.errors import ConfigurationError
from headrace.partitioning.choices import LogicalType

__all__ = [
    "ALERTS",
    "COUNT",
    "FLAG",
    "FUNCTION",
    "SIZE",
    "SPAN",
    "TABLE",
    "TEXT",
    "TEXTS",
    "TEXTS_BY_NAME",
    "TYPES",
    "WINDOW",
    "Kind",
    "Misfit",
    "Option",
    "declared",
    "parse_seconds",
    "parse_size",
    "parse_types",
    "parse_window",
    "without_backticks",
]

_WINDOW = re.compile(r"(\d+)\s*([smhdw])", re.ASCII)
_SIZE = re.compile(r"(\d+)\s*(b|kib|mib|gib|kb|mb|gb)?", re.ASCII)
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
# the same for JSON schemas; a text with ${…} is filled in before it is checked
_SPAN_FORM = r"^\s*\d+\s*[smhdwSMHDW]\s*$|\$\{"
_SIZE_FORM = r"^\s*\d+\s*([bB]|[kKmMgG]([iI])?[bB])?\s*$|\$\{"


class Misfit(Exception):  # noqa: N818 - never leaves the reading of a file
    """A value is not of its option's kind: what is wrong with the value, and what to write instead."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.what = what
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value. `wanted` names it in messages; `read` makes the value of what stands in a file, and raises
    `ValueError` or `ConfigurationError` for what is not of this kind; `form` is its JSON schema. On the command line
    the value has the type `typed` and is shown as `metavar`.
    """

    wanted: str
    read: Callable[[Any], Any]
    form: Mapping[str, object]
    typed: Any = str
    metavar: str | None = None


def parse_window(text: str) -> timedelta | None:
    """``30d``, ``12h``, ``90m``, ``2w`` as a time span; ``all`` as ``None``. Raises `ConfigurationError`."""
    if text.strip().lower() == "all":
        return None
    match = _WINDOW.fullmatch(text.strip().lower())
    if match is None:
        raise ConfigurationError(f"{text!r} is not a time span", hint="for example 30d, 12h, 2w, 90s or all")
    try:
        return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
    except OverflowError:
        raise ConfigurationError(f"{text!r} is too long a time", hint="for a window of everything, use all") from None


def parse_seconds(text: str) -> float:
    """``30s``, ``10m``, ``2h`` as seconds. Raises `ConfigurationError`."""
    span = parse_window(text)
    if span is None:
        raise ConfigurationError(f"{text!r} is not a time span", hint="for example 30s or 10m")
    return span.total_seconds()


def parse_size(text: str) -> int:
    """``512MiB``, ``2GB`` as bytes; a number alone is bytes. Raises `ConfigurationError`."""
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise ConfigurationError(f"{text!r} is not a size", hint="for example 512MiB or 2GB")
    return int(match[1]) * _BYTES[match[2] or "b"]


def parse_types(pairs: Sequence[str]) -> Mapping[str, LogicalType]:
    """``["frp=float", "acq_time=string"]`` as a mapping. Raises `ConfigurationError`."""
    known: dict[str, LogicalType] = {kind: kind for kind in get_args(LogicalType)}
    types: dict[str, LogicalType] = {}
    for pair in pairs:
        column, _, name = pair.rpartition("=")
        if not column or name not in known:
            raise ConfigurationError(f"--type {pair!r} is not COLUMN=TYPE", hint=f"the types are {', '.join(known)}")
        types[column] = known[name]
    return types


def _that(fits: Callable[[Any], bool], made: Callable[[Any], Any] = lambda value: value) -> Callable[[Any], Any]:
    """Reads a value that `fits`, as `made` of it."""

    def read(value: Any) -> Any:
        if not fits(value):
            raise ValueError
        return made(value)

    return read


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_function(value: object) -> bool:
    return isinstance(value, str) and all(value.partition(":"))


def _of_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _types(value: object) -> dict[str, str]:
    types: dict[str, str] = _that(_of_texts)(value)
    for column, name in types.items():
        if name not in get_args(LogicalType):
            known = ", ".join(get_args(LogicalType))
            raise Misfit(f"the column {column} cannot be of type {name!r}", f"the types are {known}")
    return types


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


TEXT = Kind("a text", _that(_is_text), {"type": "string", "minLength": 1}, metavar="TEXT")
FLAG = Kind("true or false", _that(lambda value: isinstance(value, bool)), {"type": "boolean"}, bool)
COUNT = Kind("a whole number from 1 on", _that(_is_count), {"type": "integer", "minimum": 1}, int, "N")
TEXTS = Kind(
    "a list of texts",
    _that(lambda value: value != [] and _list_of(_is_text)(value), tuple),
    {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
    list[str],
)
TEXTS_BY_NAME = Kind(
    "a table of texts", _that(_of_texts), {"type": "object", "additionalProperties": {"type": "string"}}
)
TYPES = Kind(
    "a table of texts",
    _types,
    {"type": "object", "additionalProperties": {"enum": [*get_args(LogicalType)]}},
    list[str],
)
FUNCTION = Kind(
    "module:function", _that(_is_function), {"type": "string", "pattern": r"^[^:]+:.+$|\$\{"}, metavar="MODULE:FUNCTION"
)
SPAN = Kind(
    "a time such as 30s, 5m, 6h",
    _that(_is_text, parse_seconds),
    {"type": "string", "pattern": _SPAN_FORM},
    metavar="SPAN",
)
WINDOW = Kind(
    "a time such as 30d, or all",
    _that(_is_text, parse_window),
    {"type": "string", "pattern": rf"{_SPAN_FORM}|^\s*[aA][lL][lL]\s*$"},
    metavar="SPAN",
)
SIZE = Kind(
    "a size such as 256MiB", _that(_is_text, parse_size), {"type": "string", "pattern": _SIZE_FORM}, metavar="SIZE"
)
TABLE = Kind("a table", _that(lambda value: isinstance(value, dict)), {"type": "object"})
ALERTS = Kind(
    "a list of tables",
    _that(_list_of(lambda one: isinstance(one, dict))),
    {"type": "array", "items": {"$ref": "#/$defs/alert"}},
    list[str],
)
_WRITTEN = (SPAN, WINDOW, SIZE)  # kinds whose values Python may give in their own type, or as text


@dataclass(frozen=True, slots=True)
class Option:
    """An option. `group` is where ``--help`` and the reference list the option.

    `commands` are the commands that have the option on the command line; `file` is the table of ``headrace.toml`` that
    has the option as a key: ``providers``, ``parallel``, ``run`` or, for none, an empty text. `default` is written as a
    user writes it; `otherwise` says in words what holds without the option, where that is no value. `flag` is the
    command line's name where that differs, `env` an environment variable that says the same. A `first` option is among
    the ten that matter most. The value of a `secret` option is not repeated in messages: a password may be in it.

    `help` says in sentences what the option does; code stands in backticks there. `declared` fills in `help` and
    `choices`.
    """

    group: str = ""
    commands: frozenset[str] = frozenset()
    file: str = ""
    kind: Kind = TEXT
    default: object = None
    otherwise: str = ""
    example: object = None
    flag: str = ""
    metavar: str | None = None
    env: str | None = None
    first: bool = False
    secret: bool = False
    help: str = ""
    choices: tuple[str, ...] = ()

    @property
    def plain(self) -> str:
        """`help` without backticks: code with a blank in it stands in quotes."""
        return without_backticks(self.help)

    @property
    def without(self) -> str:
        """What holds without the option, code in backticks; an empty text where nothing does."""
        if self.kind is FLAG:
            return "`true`" if self.default else "`false`"
        return self.otherwise or (f"`{self.default}`" if self.default else "")

    @property
    def instance(self) -> object:
        """A value as a user writes it in a file."""
        return self.default if self.example is None else self.example

    @property
    def usual(self) -> Any:
        """The default in its own type, ``None`` if there is none."""
        return None if self.default is None else self.parsed(self.default)

    def parsed(self, value: object) -> Any:
        """`value` in its own type if it is written as text, else as it is. Raises `ConfigurationError`."""
        return self.kind.read(value) if isinstance(value, str) and self.kind in _WRITTEN else value

    def check(self, value: object) -> Any:
        """`value`, which stands in a file, in its own type. Raises `Misfit`."""
        if self.choices:
            if value not in self.choices:
                raise Misfit(f"{value!r} is not among its values", f"choose one of: {', '.join(self.choices)}")
            return value
        try:
            return self.kind.read(value)
        except (ValueError, ConfigurationError):
            shown = "it" if self.secret else repr(value)
            raise Misfit(f"{shown} is not {self.kind.wanted}", f"for example {self.instance!r}") from None

    @property
    def schema(self) -> dict[str, object]:
        """The option as a property of a JSON schema."""
        if self.choices:
            return {"enum": [*self.choices], "description": self.plain}
        return {**self.kind.form, "description": self.plain, "examples": [self.instance]}


def without_backticks(text: str) -> str:
    """`text` for a terminal or an editor: code with a blank in it stands in quotes, other code as it is."""
    return re.sub("`([^`]*)`", lambda code: f'"{code[1]}"' if " " in code[1] else code[1], text)


def declared(declaration: type) -> dict[str, Option]:
    """The options that the class `declaration` annotates, by name: ``name: Annotated[its type, Option(…), its help]``.

    The type says the kind where the option does not: the values of a ``Literal`` are its choices.
    """
    return {name: _completed(*get_args(hint)) for name, hint in declaration.__annotations__.items()}


def _completed(hint: object, option: Option, about: str) -> Option:
    some = get_args(hint)[0] if get_origin(hint) in (Union, UnionType) else hint  # without `| None`
    choices = get_args(some) if get_origin(some) is Literal else ()
    simple = FLAG if some is bool else COUNT if some is int else TEXT
    return replace(option, help=about, choices=choices, kind=simple if option.kind is TEXT else option.kind)
