"""What a provider delivers at a poll: inputs to load, nothing at all, or the same as the last time.

url       downloaded, unless the server or the content's digest says that nothing changed
path      the files that are there, unless they are the same files as the last time
function  called; the rows or Arrow batches that it yields
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from glob import has_magic
from itertools import chain, dropwhile
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import pyarrow as pa
from xxhash import xxh3_128_hexdigest

from headrace.config import LoadOptions
from headrace.download import Validators, fetch
from headrace.enrich import load_function
from headrace.errors import ConfigurationError, InputError
from headrace.inputs import locate_inputs
from headrace.settings import Provider
from headrace.spool import spool_url
from headrace.spooled import Spooled
from headrace.version import __version__

__all__ = ["Delivery", "collect", "describe"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came: `inputs` for `headrace.source.open_inputs`, or ``unchanged``. `validators` are to be remembered once
    it is taken in.
    """

    inputs: Sequence[object] = ()
    unchanged: bool = False
    validators: Validators = field(default_factory=Validators)

    @property
    def again(self) -> bool:
        """Whether the inputs can be opened more than once: files can, streams cannot."""
        return all(isinstance(item, str | Spooled) for item in self.inputs)

    def discard(self) -> None:
        """Remove what was downloaded."""
        for item in self.inputs:
            if isinstance(item, Spooled):
                item.path.unlink(missing_ok=True)


def collect(provider: Provider, known: Validators, folder: Path, stop: Event) -> Delivery:
    """Poll `provider`; `known` is what the last delivery that was taken in said about itself.

    Raises `InputError`, `ConfigurationError`, `Interrupted`; what a function of the user raises passes as it is.
    """
    match provider.source.kind:
        case "url":
            return _downloaded(provider, known, folder, stop)
        case "path":
            return _files(provider, known)
        case "function":
            return _called(provider.source.target)


def describe(provider: Provider) -> str:
    """A digest of everything that decides what becomes of a delivery: while it is the same, the same content need not
    be read again.
    """
    options = provider.options
    described = {
        "source": [provider.source.kind, provider.source.shown],
        "read": [options.read.select, options.read.format, options.read.timezone, dict(options.read.types)],
        "contract": [options.table, options.identity, options.time, options.hash, options.scope],
        "missing_id": options.missing_id,
        "enrich": _enrich(options),
        "revisions": [options.revisions, options.version_column],
        "alerts": [[rule.name, rule.where, rule.function, rule.revisions] for rule in options.alerts],
        "version": __version__,
    }
    return xxh3_128_hexdigest(json.dumps(described, sort_keys=True).encode())


def _enrich(options: LoadOptions) -> list[str] | None:
    return None if options.enrichment is None else [options.enrichment.name, options.enrichment.on_error]


# By address -----------------------------------------------------------------------------------------------------


def _downloaded(provider: Provider, known: Validators, folder: Path, stop: Event) -> Delivery:
    source = provider.source
    if urlsplit(source.target).scheme == "s3":
        file = spool_url(source.target, folder, shown=source.shown)
        return _delivered(file, known, Validators(content=file.fingerprint))
    answer = fetch(
        source.target,
        folder,
        shown=source.shown,
        headers=source.headers,
        known=known,
        timeout=source.timeout,
        deadline=source.deadline,
        max_size=source.max_size,
        stop=stop,
    )
    if answer.file is None:
        return Delivery(unchanged=True, validators=answer.validators)
    return _delivered(answer.file, known, answer.validators)


def _delivered(file: Spooled, known: Validators, validators: Validators) -> Delivery:
    if file.fingerprint == known.content:
        file.path.unlink(missing_ok=True)
        return Delivery(unchanged=True, validators=validators)
    return Delivery([file] if file.size else (), validators=validators)


# By path --------------------------------------------------------------------------------------------------------


def _files(provider: Provider, known: Validators) -> Delivery:
    text, forced = provider.source.target, provider.options.read.format
    if _nothing_there(Path(text)):
        return Delivery()
    found = [f"{one.name}\0{one.fingerprint}" for one in locate_inputs(text, forced, None)]
    content = xxh3_128_hexdigest("\0".join(found).encode())
    if content == known.content:
        return Delivery(unchanged=True, validators=known)
    return Delivery([text], validators=Validators(content=content))


def _nothing_there(path: Path) -> bool:
    """Whether a folder or a pattern has no file at the moment, which is no failure: files come and go."""
    if path.is_dir():
        return not any(one.is_file() for one in path.rglob("*"))
    if path.exists() or not has_magic(str(path)):
        return False
    base = Path(path.anchor) if path.is_absolute() else Path()
    return not any(one.is_file() for one in base.glob(str(path.relative_to(path.anchor))))


# By function ----------------------------------------------------------------------------------------------------


def _called(spec: str) -> Delivery:
    result: object = load_function(spec)()
    if hasattr(result, "__arrow_c_stream__"):
        result = pa.RecordBatchReader.from_stream(result)
    if isinstance(result, str | bytes | dict) or not isinstance(result, Iterable | None):
        raise ConfigurationError(
            f"it returned a {type(result).__name__}",
            where=spec,
            hint="yield dicts or record batches, or return a table",
        )
    # what is empty is told here, before anything is opened
    parts = dropwhile(_is_empty, () if result is None else result)
    first = next(parts, None)
    if first is None:
        return Delivery()
    if isinstance(first, pa.RecordBatch | pa.Table):
        batches = _batches(chain([first], parts), first.schema, spec)
        return Delivery([pa.RecordBatchReader.from_batches(first.schema, batches)])
    return Delivery([chain([first], parts)])


def _is_empty(part: object) -> bool:
    return isinstance(part, pa.RecordBatch | pa.Table) and not part.num_rows


def _batches(parts: Iterable[object], schema: pa.Schema, spec: str) -> Iterator[pa.RecordBatch]:
    for part in parts:
        if not isinstance(part, pa.RecordBatch | pa.Table) or not part.schema.equals(schema):
            raise InputError(
                "it yields Arrow of several schemas", where=spec, hint="yield batches that all have the same columns"
            )
        yield from part.to_batches() if isinstance(part, pa.Table) else [part]
