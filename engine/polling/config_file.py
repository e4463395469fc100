"""``headrace.toml`` as plain data: providers with their sources and options, checked as a whole at once.

file ──► TOML ──► ${ENV} filled in ──► each key checked ──► Settings
                      └─► from now on concealed in messages      every problem at once: file, key, cure
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import unquote, urlsplit

from headrace.errors import ConfigurationError, conceal
from headrace.events.alert_rule import AlertRule
from headrace.options.declared import COMMAND, LOAD, Named
from headrace.options.load import LoadOptions, ParallelOptions, database_url, options_of
from headrace.options.option import TABLE, Misfit, Option
from headrace.polling.config_keys import ALERT, FETCH, PACE, PARALLEL, PROVIDER, RUN, SOURCES, TOP
from headrace.polling.schedule import Pace
from headrace.reading.input_spool import is_remote

__all__ = ["Provider", "Settings", "Source", "read_settings"]

LONGEST_NAME = 1_000  # bytes: the names of providers are keys in the database
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class Source:
    """The source of a provider's events. `target` is the address, the path or ``module:function``; `shown` is the
    target as written in the file, without user, password and query: fit for messages.

    `timeout` and `deadline` are seconds, `max_size` is bytes.
    """

    kind: Literal["url", "path", "function"]
    target: str = field(repr=False)
    shown: str
    headers: Mapping[str, str] = field(repr=False)
    timeout: float
    deadline: float
    max_size: int


@dataclass(frozen=True, slots=True)
class Provider:
    """A named source, how its events are loaded, and how often it is polled."""

    name: str
    source: Source
    options: LoadOptions
    pace: Pace
    active: bool

    @property
    def table(self) -> str:
        """The event table."""
        return self.options.table or self.name


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole file. `every` is the seconds between two rounds, ``None`` for one round; `lease` the seconds that a claim
    on a provider lasts without a sign of life; `keep_alerts` the seconds that a delivered alert is kept, ``None`` for
    ever. `watching` are fields of `headrace.observability.command.Watching`, for where the command line says nothing.
    """

    file: Path
    database: str = field(repr=False)
    parallel: ParallelOptions
    providers: tuple[Provider, ...]
    every: float | None
    downloads: int
    lease: float
    keep_alerts: float | None
    watching: Mapping[str, Any]


def read_settings(file: str | Path) -> Settings:
    """The settings in `file`. Raises `ConfigurationError` that lists every problem with its key and its cure."""
    path = Path(file)
    try:
        with path.open("rb") as stream:
            document = tomllib.load(stream)
    except FileNotFoundError:
        raise ConfigurationError(
            "there is no such file", where=str(path), hint="name it with --config; docs/headrace.toml is an example"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"it cannot be read: {error}", where=str(path), hint="it must be TOML") from None
    reader = _Reader(path)
    settings = reader.settings(document)
    if reader.problems or settings is None:
        listed = "\n".join(f"    {key}: {what}; {cure}" for key, what, cure in reader.problems)
        raise ConfigurationError(
            f"{len(reader.problems)} {'key is' if len(reader.problems) == 1 else 'keys are'} wrong:\n{listed}",
            where=str(path),
            hint="docs/reference.md lists every key; docs/headrace.schema.json lets an editor check them",
        )
    return settings


class _Reader:
    """Reads one document and gathers its `problems`: key, what is wrong, what to do."""

    def __init__(self, file: Path) -> None:
        self.problems: list[tuple[str, str, str]] = []
        self._file = file

    def settings(self, document: Mapping[str, object]) -> Settings | None:
        """The settings; not to be used if there are `problems`."""
        top = self._table("", document, TOP)
        run = self._table("run", top.get("run", {}), RUN)
        parallel = self._parallel(self._table("parallel", top.get("parallel", {}), PARALLEL))
        usual = {name: key for name, key in PROVIDER.items() if name not in SOURCES}
        defaults = self._table("defaults", top.get("defaults", {}), usual)
        database = database_url(top.get("database"))
        _conceal_password(database)
        found = top.get("providers", {})
        if not found and not any(key.startswith("providers") for key, _, _ in self.problems):
            self._problem(
                "providers", "there is no provider", "write a table [providers.NAME] with url, path or function"
            )
        providers = [
            self._provider(name, defaults | self._table(f"providers.{name}", own, PROVIDER), database, parallel)
            for name, own in found.items()
        ]
        return Settings(
            file=self._file,
            database=database,
            parallel=parallel,
            providers=tuple(one for one in providers if one is not None),
            watching={name: value for name, value in run.items() if name in COMMAND},
            **_with_defaults({name: key for name, key in RUN.items() if name not in COMMAND}, run),
        )

    def _problem(self, key: str, what: str, cure: str) -> None:
        self.problems.append((key, what, cure))

    def _table(self, place: str, value: object, keys: Mapping[str, Option]) -> dict[str, Any]:
        """The table at `place` with its variables filled in and its values checked; what is wrong is left out."""
        if not isinstance(value, Mapping):
            self._problem(place, "it is not a table", f"write [{place}]")
            return {}
        checked: dict[str, Any] = {}
        for name, raw in value.items():
            where = f"{place}.{name}" if place else name
            if name not in keys:
                near = get_close_matches(name, keys, 1)
                self._problem(where, "there is no such key", f"did you mean {near[0]}?" if near else _known(keys))
                continue
            try:
                checked[name] = keys[name].check(raw if keys[name].kind is TABLE else _filled(raw))
            except Misfit as misfit:
                self._problem(where, misfit.what, misfit.cure)
                continue
            if name in ("url", "path"):
                checked[f"{name} as written"] = raw
        return checked

    def _parallel(self, found: dict[str, Any]) -> ParallelOptions:
        for name in ("locks", "executor"):
            _conceal_password(found.get(name, ""))
        try:
            return ParallelOptions(**found)
        except ConfigurationError as error:
            self._problem("parallel", error.what, error.hint or "")
            return ParallelOptions()

    def _provider(self, name: str, found: dict[str, Any], database: str, parallel: ParallelOptions) -> Provider | None:
        place = f"providers.{name}"
        if len(name.encode()) > LONGEST_NAME:
            self._problem(f"{place[:40]}…", f"its name has more than {LONGEST_NAME:,} bytes", "choose a shorter one")
            return None
        source = self._source(place, found)
        said = {key: value for key, value in found.items() if key in LOAD}
        said |= {"to": database, "provider": name, "table": found.get("table", name)}
        try:
            said["alerts"] = self._alerts(place, found.get("alerts", []))
            options = replace(options_of(cast("Named", said)), parallel=parallel)
        except ConfigurationError as error:
            self._problem(place, error.what, error.hint or "")
            return None
        pace = Pace(**_with_defaults(PACE, found))
        return (
            None
            if source is None
            else Provider(name, source, options, pace, found.get("active", PROVIDER["active"].usual))
        )

    def _source(self, place: str, found: dict[str, Any]) -> Source | None:
        ways = [way for way in SOURCES if way in found]
        if len(ways) != 1:
            cure = "give exactly one of url, path and function"
            self._problem(place, "it has no source" if not ways else f"it has {' and '.join(ways)}", cure)
            return None
        (way,) = ways
        target = found[way]
        if way == "url":
            if not _can_be_parsed(target) or not is_remote(target):
                self._problem(
                    f"{place}.url", "this is not an address to fetch", "http://, https:// or s3://; for a file, path"
                )
                return None
            _conceal_password(target)
            for value in found.get("headers", {}).values():
                conceal(value)
                conceal(value.partition(" ")[2])
        kind: Literal["url", "path", "function"] = "url" if way == "url" else "path" if way == "path" else "function"
        if kind == "path":
            # absolute: a function of the user's may take the process to another folder
            target = str((self._file.parent / Path(target).expanduser()).absolute())
        written = found.get(f"{way} as written", target)
        return Source(
            kind, target, shown_address(written) if kind == "url" else written, **_with_defaults(FETCH, found)
        )

    def _alerts(self, place: str, found: list[dict[str, object]]) -> tuple[AlertRule, ...]:
        rules = []
        for number, raw in enumerate(found):
            where = f"{place}.alerts[{number}]"
            table = self._table(where, raw, ALERT)
            if "name" not in table:
                self._problem(where, "the rule has no name", 'name = "large"')
                continue
            try:
                rules.append(AlertRule(**table))
            except ConfigurationError as error:
                self._problem(where, error.what, error.hint or "")
        return tuple(rules)


def shown_address(url: str) -> str:
    """`url` for messages: without user, password, query and fragment."""
    bare = re.sub(r"[?#].*", "", url, flags=re.DOTALL)
    return re.sub(r"^(\w+://)[^/]*@", r"\1", bare)


def _filled(value: object) -> object:
    """`value` with ``${NAME}`` and ``${NAME:-default}`` replaced. Raises `Misfit` for a variable that is not set."""
    if isinstance(value, str):
        return _VARIABLE.sub(_variable, value)
    if isinstance(value, list):
        return [_filled(one) for one in value]
    if isinstance(value, dict):
        return {name: _filled(one) for name, one in value.items()}
    return value


def _variable(found: re.Match[str]) -> str:
    value = os.environ.get(found[1], found[2])
    if value is None:
        raise Misfit(
            f"the environment variable {found[1]} is not set", f"set it, or give a default: ${{{found[1]}:-…}}"
        )
    if found[1] in os.environ:
        conceal(value, f"${{{found[1]}}}")
    return value


def _conceal_password(url: str) -> None:
    """Conceal the password in `url`, as it is written there and as it is meant."""
    try:
        password = urlsplit(url).password
    except ValueError:
        return
    if password:
        conceal(password)
        conceal(unquote(password))


def _can_be_parsed(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:
        return False


def _known(keys: Mapping[str, Option]) -> str:
    return f"the keys here are {', '.join(sorted(keys))}"


def _with_defaults(keys: Mapping[str, Option], found: Mapping[str, Any]) -> dict[str, Any]:
    """The value of each of `keys`: what was `found`, or else the default."""
    return {name: found.get(name, key.usual) for name, key in keys.items()}
