"""`Engine` loads batch after batch into a table and keeps the connection, the pool and the existing IDs warm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import Event, Lock
from types import TracebackType
from typing import Self, Unpack
from weakref import WeakSet

from headrace.errors import ConfigurationError
from headrace.loading.agreement import in_stored_timezone
from headrace.loading.run import ingest
from headrace.loading.session import Session
from headrace.observability.progress import Progress
from headrace.observability.stages import Listener
from headrace.options.declared import Named
from headrace.options.load import options_of, table_from_inputs
from headrace.reading.inputs import open_inputs
from headrace.report import Report
from headrace.runtime.scratch import scratch_folder
from headrace.storage import open_store

__all__ = ["Engine"]


class Engine:
    """A context manager that loads batch after batch, each event exactly once.

    It takes the keywords of `headrace.load` (`headrace.options.declared.Named`). Its warm state only saves work: other
    loaders may write to the same tables meanwhile.

    Any thread may call it: one batch is loaded at a time, the others wait. `close` lets the current batch end and
    refuses later batches. A forked process (a web server's worker) that inherits an open engine gets connections of its
    own with its first batch, and does not use its parent's.

    >>> import headrace
    >>> with headrace.Engine(to="postgresql://db/geo", table="fires", id=["key"]) as engine:  # doctest: +SKIP
    ...     for batch in feed:
    ...         report = engine.ingest(batch)
    """

    def __init__(self, **named: Unpack[Named]) -> None:
        self._options = options_of(named)
        self._open = ExitStack()
        self._session: Session | None = None
        self._turn = Lock()
        self._closing = False
        self._inherited = False
        self._prepared = False
        self._stop = Event()
        _engines.add(self)

    def __enter__(self) -> Self:
        """Open the database. Raises `StoreError` or `ConfigurationError`."""
        self._closing = False
        self._open_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._closed():
            self._open.__exit__(kind, error, trace)

    def close(self, *, stop: bool = False) -> None:
        """Wait for the current batch, refuse waiting and later batches, and release everything. Idempotent.

        With `stop` the current batch ends after its current chunks: its caller gets `Interrupted`, and what was
        committed stays; the same batch later inserts only the rest.
        """
        self._closing = True
        if stop:
            self._stop.set()
        with self._closed():
            self._open.close()

    @contextmanager
    def _closed(self) -> Iterator[None]:
        self._closing = True
        with self._turn:
            self._session = None
            self._inherited = False
            yield
            self._open = ExitStack()

    def _open_all(self) -> None:
        with ExitStack() as opened:
            self._store = opened.enter_context(open_store(self._options.to))
            self._store.ledger.prepare(create=False)
            self._prepared = True
            self._session = opened.enter_context(Session(self._store, self._options.parallel, keep=True))
            self._open = opened.pop_all()

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

        `table` and `provider` default to the engine's. `listener` is called with the run's progress
        (`headrace.observability.stages`). Raises `headrace.HeadraceError` and its subclasses.
        """
        with self._turn:
            # before the flag is looked at: who closes sets the flag first, and then the event that it finds
            self._stop = stop or Event()
            session = self._ready()
            try:
                return self._ingest(session, inputs, table, provider, progress, listener)
            except BaseException:
                # what a call has learned that did not end well is no knowledge, and what it found may have changed
                session.forget()
                self._prepared = False
                raise

    def _ingest(
        self,
        session: Session,
        inputs: tuple[object, ...],
        table: str | None,
        provider: str | None,
        progress: Progress | None,
        listener: Listener | None,
    ) -> Report:
        name = table or self._options.table or table_from_inputs(inputs)
        wanted = replace(self._options, table=name)
        if provider:
            wanted = replace(wanted, provider=provider, provider_named=True)
        options = in_stored_timezone(self._store, name, wanted)
        with scratch_folder() as folder:
            items = open_inputs(inputs, options.read, folder)
            return ingest(
                self._store,
                items,
                name,
                options,
                progress=progress,
                stop=self._stop,
                session=session,
                listener=listener,
            )

    def refresh(self) -> None:
        """Forget the existing IDs: the next batch fetches them again, with what other loaders have written."""
        with self._turn:
            if self._session is not None:
                self._session.forget()

    def _ready(self) -> Session:
        """The session, opened anew in a forked process."""
        if self._inherited and not self._closing:
            self._open_all()
            self._inherited = False
        if self._session is None or self._closing:
            raise ConfigurationError("the engine is not open", hint="use it as `with headrace.Engine(…) as engine:`")
        if not self._prepared or not self._store.is_in_place():
            self._session.forget()
            self._store.ledger.prepare(create=False)
            self._prepared = True
        return self._session

    def _leave_to_parent(self) -> None:
        """In a forked process: what is open belongs to the parent, and so does whoever held the lock."""
        self._turn = Lock()
        if self._session is not None:
            # kept for ever: closing any of it, or collecting it, could speak to the parent's server
            _parents.append((self._open, self._store, self._session))
            self._open = ExitStack()
            self._session = None
            self._inherited = True


_engines: WeakSet[Engine] = WeakSet()
_parents: list[object] = []


def _forked() -> None:
    for engine in list(_engines):
        engine._leave_to_parent()


os.register_at_fork(after_in_child=_forked)
