"""The delivery of a provider at a poll: inputs to load, nothing, or unchanged content.

url       downloaded, unless the server or the content's digest says that nothing changed
path      the files that are there, unless they are the same files as the last time, or have the same content
function  called; the rows or Arrow batches that it yields
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from glob import has_magic
from hashlib import blake2b
from itertools import chain, dropwhile
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import pyarrow as pa
from xxhash import xxh3_128, xxh3_128_hexdigest

from headrace.errors import ConfigurationError, InputError
from headrace.events.alert_rule import AlertRule
from headrace.events.enrich import Enrichment, load_function
from headrace.options.load import LoadOptions
from headrace.polling.config_file import Provider, Source
from headrace.reading.fetch.http import Validators, fetch
from headrace.reading.fetch.spool import Spooled
from headrace.reading.files import Located, locate_inputs
from headrace.reading.input_spool import spool_url
from headrace.reading.inputs import ReadOptions
from headrace.reading.text_stream import readable
from headrace.version import __version__

__all__ = ["Delivery", "collect", "describe"]

SETTLED = 2  # seconds: no file system's clock is coarser
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery: `inputs` for `headrace.reading.inputs.open_inputs`, or ``unchanged``. `validators` are stored after
    the delivery is loaded.
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
    """Poll `provider`; `known` are the validators of the last loaded delivery.

    Raises `InputError`, `ConfigurationError`, `Interrupted`, and errors of the user's function unchanged.
    """
    match provider.source.kind:
        case "url":
            return _downloaded(provider, known, folder, stop)
        case "path":
            return _files(provider, known)
        case "function":
            return _called(provider.source.target)


def describe(provider: Provider) -> str:
    """A digest of everything that decides how a delivery is loaded: while it is the same, unchanged content need not be
    read again.
    """
    described = {
        "source": [provider.source.kind, provider.source.shown, _asked(provider.source)],
        "options": {name: _plain(getattr(provider.options, name)) for name in _MATTERS},
        "version": __version__,
    }
    return xxh3_128_hexdigest(json.dumps(described, sort_keys=True, default=str).encode())


def _asked(source: Source) -> str:
    """A digest of what a server is asked, query and headers included, which nobody is shown; not of the password."""
    head, _, rest = source.target.partition("://")
    host, slash, path = rest.partition("/")
    bare = [head, host.rpartition("@")[2], slash, path, sorted(source.headers.items())]
    return blake2b(json.dumps(bare).encode(), digest_size=16).hexdigest()


def _plain(value: object) -> object:
    """An option as plain data, without what only decides how fast it is carried out."""
    match value:
        case ReadOptions():
            named = {field.name: getattr(value, field.name) for field in fields(value) if field.name not in _PACE}
            return {**named, "types": sorted(value.types.items())}
        case Enrichment():
            return [value.name, value.on_error]
        case tuple():
            return [_plain(one) for one in value]
        case AlertRule():
            return [value.name, value.where, value.function, value.revisions]
    return value


# How fast a delivery is loaded, and where to: of no matter, like the database, which keeps this itself.
_PACE = ("threads", "chunk_rows", "chunk_bytes", "first_rows", "even")
_NO_MATTER = ("to", "parallel", "mode", "resume", "window", "snapshot_budget")
_MATTERS = tuple(field.name for field in fields(LoadOptions) if field.name not in _NO_MATTER)


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
        if known.etag is None and known.last_modified is None:
            return _delivered(answer.spooled, known, answer.validators)  # it was not asked: that is said
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
    found = locate_inputs(text, forced, None)
    # looked at before they are read: what changes from here on is seen at the next poll
    facts = _facts(found)
    if facts is not None and facts == known.etag:
        return Delivery(unchanged=True, validators=known)
    content = _content(found)
    validators = Validators(etag=facts, content=content)
    if content == known.content:
        return Delivery(unchanged=True, validators=validators)
    return Delivery([text], validators=validators)


def _facts(found: Sequence[Located]) -> str | None:
    """What the file system knows of these files, as a digest; ``None`` while one of them is so new that it could change
    once more without a trace. Size and time of change can be set by anybody, the time of *that* and the number cannot.
    """
    settled = time.time_ns() - SETTLED * 1_000_000_000
    if any(one.file.facts.changed > settled for one in found):
        return None
    return xxh3_128_hexdigest(json.dumps([[one.name, *one.file.facts] for one in found]).encode())


def _content(found: Sequence[Located]) -> str:
    """The digest of the files' names and contents."""
    digest = xxh3_128()
    for one in found:
        digest.update(f"{one.name}\0{one.format}\0{one.size}\0".encode("utf-8", "surrogateescape"))
        with readable(one.name), one.file.opened() as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return str(digest.hexdigest())


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
