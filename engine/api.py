"""Loading from Python in one call: opens the database and the inputs, runs `ingest`, closes everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from threading import Event

from headrace.agreement import in_stored_timezone
from headrace.config import DEFAULT_PROVIDER, LoadOptions, database_url, parse_window, table_from_inputs
from headrace.database import is_there, open_existing
from headrace.ingest import ingest
from headrace.partitioning.contract import HashName, LogicalType, Scope
from headrace.progress import Progress
from headrace.report import Report
from headrace.scratch import scratch_folder
from headrace.source import Input, ReadOptions, open_inputs
from headrace.storage import open_store
from headrace.storage.base import Store

__all__ = ["load", "load_with", "opened"]


def load(
    *inputs: object,
    to: str | None = None,
    table: str | None = None,
    provider: str = DEFAULT_PROVIDER,
    id: Sequence[str] | None = None,  # noqa: A002 - the word the command line uses for the same thing
    time: str | None = None,
    select: str | None = None,
    types: Mapping[str, LogicalType] | None = None,
    window: str | timedelta | None = "30d",
    hash: HashName | None = None,  # noqa: A002 - likewise
    scope: Scope | None = None,
    timezone: str | None = None,
    chunk_rows: int = 131_072,
    resume: bool = True,
) -> Report:
    """Load `inputs` into a table, each event exactly once, and return the books.

    `inputs` are paths, globs, folders, URLs, Arrow tables and readers, pandas or polars frames, or iterables of dicts.
    `to` is an SQLAlchemy URL (default ``HEADRACE_DATABASE_URL``, then ``sqlite:///headrace.db``); `table` defaults to
    the first file's name; `id` names the identity columns (default: those stored with the table, on a first load all);
    `time` the event time; `select` is SQL over the relation ``source``, applied chunk by chunk; `window` is how far
    back existing IDs are fetched ahead (``None`` or ``"all"``: everything); `timezone` is how times without a zone are
    read (default: as stored with the table, on a first load UTC).

    Raises `headrace.HeadraceError` and its kinds; each says what to do next.

    >>> import headrace
    >>> report = headrace.load("quakes.csv", id=["id"], time="time")  # doctest: +SKIP
    >>> report.inserted, report.rejected  # doctest: +SKIP
    (8998, 0)
    """
    options = LoadOptions(
        to=database_url(to),
        table=table,
        provider=provider,
        identity=None if id is None else tuple(id),
        time=time,
        hash=hash,
        scope=scope,
        window=parse_window(window) if isinstance(window, str) else window,
        resume=resume,
        timezone=timezone,
        read=ReadOptions(types=dict(types or {}), select=select, timezone=timezone or "UTC", chunk_rows=chunk_rows),
    )
    return load_with(options, inputs)


def load_with(
    options: LoadOptions, inputs: Sequence[object], *, progress: Progress | None = None, stop: Event | None = None
) -> Report:
    """`load` for callers that hold `LoadOptions`."""
    with opened(options, inputs) as (store, table, items, settled):
        return ingest(store, items, table, settled, progress=progress, stop=stop)


@contextmanager
def opened(
    options: LoadOptions, inputs: Sequence[object], *, existing: bool = False
) -> Iterator[tuple[Store, str, list[Input], LoadOptions]]:
    """The database with its ledger, the table's name, the inputs, and the options with the stored contract's time zone;
    spooled copies are gone afterwards. `existing` refuses to make a database.

    The inputs are opened first: one that cannot be read leaves no new database behind.
    """
    table = options.table or table_from_inputs(inputs)
    if existing or is_there(options.to):
        with open_existing(options.to) as store:
            options = in_stored_timezone(store, table, options)
    with scratch_folder() as folder:
        items = open_inputs(inputs, options.read, folder)
        with open_store(options.to) as store:
            store.prepare_ledger()
            yield store, table, items, options
