"""`Engine`: batch after batch into a table, with the connection, the pool and the existing IDs kept warm."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from threading import Event
from types import TracebackType
from typing import Self, Unpack

from headrace.agreement import in_stored_timezone
from headrace.api import Named, options_of
from headrace.config import table_from_inputs
from headrace.errors import ConfigurationError
from headrace.ingest import ingest
from headrace.progress import Progress
from headrace.report import Report
from headrace.scratch import scratch_folder
from headrace.session import Session
from headrace.source import open_inputs
from headrace.stages import Listener
from headrace.storage import open_store

__all__ = ["Engine"]


class Engine:
    """A context manager that loads one batch after the other, each event exactly once.

    It takes what `headrace.load` takes (`headrace.api.Named`), and one thread at a time. What it keeps only saves work:
    other loaders may write to the same tables meanwhile.

    >>> import headrace
    >>> with headrace.Engine(to="postgresql://db/geo", table="fires", id=["key"]) as engine:  # doctest: +SKIP
    ...     for batch in feed:
    ...         report = engine.ingest(batch)
    """

    def __init__(self, **named: Unpack[Named]) -> None:
        self._options = options_of(named)
        self._open = ExitStack()
        self._session: Session | None = None

    def __enter__(self) -> Self:
        """Open the database. Raises `StoreError` or `ConfigurationError`."""
        with ExitStack() as opened:
            self._store = opened.enter_context(open_store(self._options.to))
            self._store.prepare_ledger()
            self._session = opened.enter_context(Session(self._store, self._options.parallel, keep=True))
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None
        self._open.__exit__(kind, error, trace)

    def ingest(
        self,
        *inputs: object,
        table: str | None = None,
        provider: str | None = None,
        progress: Progress | None = None,
        stop: Event | None = None,
        listener: Listener | None = None,
    ) -> Report:
        """Load `inputs` (Arrow, data frames, iterables of dicts, paths, URLs) and return the balanced books.

        `table` and `provider` are the engine's, unless said. `listener` hears what the run does
        (`headrace.stages`). Raises `headrace.HeadraceError` and its kinds.
        """
        if self._session is None:
            raise ConfigurationError("the engine is not open", hint="use it as `with headrace.Engine(…) as engine:`")
        name = table or self._options.table or table_from_inputs(inputs)
        wanted = replace(self._options, table=name, provider=provider or self._options.provider)
        options = in_stored_timezone(self._store, name, wanted)
        with scratch_folder() as folder:
            items = open_inputs(inputs, options.read, folder)
            return ingest(
                self._store,
                items,
                name,
                options,
                progress=progress,
                stop=stop,
                session=self._session,
                listener=listener,
            )

    def refresh(self) -> None:
        """Forget the existing IDs: the next batch fetches them again, with what other loaders have written."""
        if self._session is not None:
            self._session.forget()
