"""Loads from Python in one call: opens the database and the inputs, runs `ingest`, closes everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import timedelta
from threading import Event
from typing import TypedDict, Unpack

from headrace.errors import UsageError
from headrace.events.alert_rule import AlertRule
from headrace.events.enrich import Enrich, Enrichment, OnError
from headrace.events.revisions import RevisionsName
from headrace.loading.agreement import in_stored_timezone
from headrace.loading.database import is_there, open_existing, remove_if_empty
from headrace.loading.run import ingest
from headrace.observability.progress import Progress
from headrace.observability.stages import Listener
from headrace.options.flag import Mode
from headrace.options.load import (
    DEFAULT_PROVIDER,
    LoadOptions,
    MissingId,
    ParallelOptions,
    database_url,
    parse_size,
    parse_window,
    table_from_inputs,
)
from headrace.options.shape import StrategyName
from headrace.partitioning.contract import HashName, LogicalType, Scope
from headrace.reading.inputs import Input, ReadOptions, open_inputs
from headrace.report import Report
from headrace.runtime.scratch import scratch_folder
from headrace.storage import open_store
from headrace.storage.interface import Store

__all__ = ["Named", "Plain", "load", "load_with", "opened", "options_of"]


class Plain(TypedDict, total=False):
    """The part of `Named` that the command line says in the same form."""

    to: str | None
    table: str | None
    provider: str | None
    time: str | None
    select: str | None
    window: str | timedelta | None
    hash: HashName | None
    scope: Scope | None
    timezone: str | None
    format: str | None
    chunk_rows: int
    resume: bool
    mode: Mode | None
    strategy: StrategyName
    workers: int | None
    partitions: int | None
    memory: str | int
    executor: Executor | str | None
    locks: str | None
    enrich: Enrich | str | None
    on_error: OnError
    revisions: RevisionsName
    version_column: str | None
    missing_id: MissingId | None
    prove: bool


class Named(Plain, total=False):
    """What `load` and `Engine` can be told, by name; the command line has an option for each.

    `to` is an SQLAlchemy URL (default ``HEADRACE_DATABASE_URL``, then ``sqlite:///headrace.db``); `table` defaults to
    the first file's name; `id` names the identity columns (default: those stored with the table, on a first load all);
    `time` the event time; `select` is SQL over the relation ``source``, applied chunk by chunk; `window` is how far
    back existing IDs are fetched ahead (``None`` or ``"all"``: everything); `timezone` is how times without a zone are
    read (default: as stored with the table, on a first load UTC).

    `mode` is ``"sequential"`` or ``"parallel"`` (default: as the flag ``ENABLE_PARALLEL_CHUNK_PROCESSING`` says), with
    `strategy` ``"partitioned"``, ``"upsert"`` or ``"locked"`` over `partitions`, by `workers` processes or the tasks of
    `executor` (any `concurrent.futures.Executor`, or ``"dask://host:port"``); `memory` bounds the bytes of the chunks
    on their way; `locks` is the URL of a Redis for the locks of ``"locked"``; the timeouts are in seconds.

    `enrich` gets each batch of new events as a `pyarrow.RecordBatch` and returns the same rows with columns added.
    `alerts` are `headrace.AlertRule`: what they find among the new events is written to the outbox together with
    them, and `headrace alerts deliver` delivers it; a rule with ``revisions=True`` tells of newer versions as well.
    With `on_error` ``"reject"``, rows that make any of these fail are kept as rejects instead of failing the run.

    `revisions` says what becomes of rows that come again with another payload: ``"ignore"`` (the first wins),
    ``"report"`` (likewise, and the others are kept as rejects of the stage ``revision``) or ``"update"`` (the newest by
    `version_column` wins, whatever the order of arrival).

    `missing_id` says what becomes of rows whose identity columns are all empty: ``"reject"`` or ``"keep-whole-row"``,
    where all columns of the row are its identity (default: as stored with the table, on a first load ``"reject"``).

    With `prove` the load ends with a look at the table for every event that it met. What is missing is brought again
    where the input can be read again; otherwise `headrace.errors.VerificationError` names it.
    """

    id: Sequence[str] | None
    types: Mapping[str, LogicalType] | None
    alerts: Sequence[AlertRule]
    lock_timeout: float
    task_timeout: float


def load(*inputs: object, **named: Unpack[Named]) -> Report:
    """Load `inputs` into a table, each event exactly once, and return the books.

    `inputs` are paths, globs, folders, URLs, Arrow tables and readers, pandas or polars frames, or iterables of dicts.
    What else can be said, by name, is described at `Named`. A script that says ``mode="parallel"`` must do so under
    ``if __name__ == "__main__":``, because each worker imports it.

    Raises `headrace.HeadraceError` and its kinds; each says what to do next.

    >>> import headrace
    >>> report = headrace.load("quakes.csv", id=["id"], time="time")  # doctest: +SKIP
    >>> report.inserted, report.rejected  # doctest: +SKIP
    (8998, 0)
    """
    return load_with(options_of(named), inputs)


def options_of(named: Named) -> LoadOptions:
    """`LoadOptions` from what was said by name. Raises `ConfigurationError`."""
    window = named.get("window", "30d")
    provider = named.get("provider")
    identity = named.get("id")
    timezone = named.get("timezone")
    return LoadOptions(
        to=database_url(named.get("to")),
        table=named.get("table"),
        provider=DEFAULT_PROVIDER if provider is None else provider,
        provider_named=provider is not None,
        identity=None if identity is None else tuple(identity),
        time=named.get("time"),
        hash=named.get("hash"),
        scope=named.get("scope"),
        window=parse_window(window) if isinstance(window, str) else window,
        resume=named.get("resume", True),
        timezone=timezone,
        read=ReadOptions(
            types=dict(named.get("types") or {}),
            select=named.get("select"),
            timezone=timezone or "UTC",
            chunk_rows=named.get("chunk_rows", ReadOptions().chunk_rows),
            format=named.get("format"),
        ),
        mode=named.get("mode"),
        parallel=_parallel_of(named),
        enrichment=_enrichment_of(named),
        alerts=tuple(named.get("alerts", ())),
        on_error=named.get("on_error", "fail"),
        revisions=named.get("revisions", "ignore"),
        version_column=named.get("version_column"),
        missing_id=named.get("missing_id"),
        prove=named.get("prove", False),
    )


def _parallel_of(named: Named) -> ParallelOptions:
    usual = ParallelOptions()
    memory = named.get("memory", usual.memory)
    return ParallelOptions(
        strategy=named.get("strategy", usual.strategy),
        workers=named.get("workers") or usual.workers,
        partitions=named.get("partitions"),
        memory=parse_size(memory) if isinstance(memory, str) else memory,
        lock_timeout=named.get("lock_timeout", usual.lock_timeout),
        task_timeout=named.get("task_timeout", usual.task_timeout),
        locks=named.get("locks"),
        executor=named.get("executor"),
    )


def _enrichment_of(named: Named) -> Enrichment | None:
    function = named.get("enrich")
    return None if function is None else Enrichment(function, named.get("on_error", "fail"))


def load_with(
    options: LoadOptions,
    inputs: Sequence[object],
    *,
    progress: Progress | None = None,
    stop: Event | None = None,
    listener: Listener | None = None,
) -> Report:
    """`load` for callers that hold `LoadOptions`."""
    if options.enrichment is not None:
        options.enrichment.resolve()
    with opened(options, inputs) as (store, table, items, settled):
        return ingest(store, items, table, settled, progress=progress, stop=stop, listener=listener)


@contextmanager
def opened(
    options: LoadOptions, inputs: Sequence[object], *, existing: bool = False
) -> Iterator[tuple[Store, str, list[Input], LoadOptions]]:
    """The database with its ledger, the table's name, the inputs, and the options with the stored contract's time zone;
    spooled copies are gone afterwards. `existing` refuses to make a database.

    The inputs are opened first: one that cannot be read leaves no new database behind. Nor does what is refused: the
    ledger's tables are made by `agree`, once all is agreed on.
    """
    table = options.table or table_from_inputs(inputs)
    there = is_there(options.to)
    if existing or there:
        with open_existing(options.to) if existing else open_store(options.to) as store:
            options = in_stored_timezone(store, table, options)
    with scratch_folder() as folder:
        items = open_inputs(inputs, options.read, folder)
        try:
            with open_store(options.to) as store:
                store.prepare_ledger(create=False)
                yield store, table, items, options
        except UsageError:
            if not there:
                remove_if_empty(options.to)
            raise
