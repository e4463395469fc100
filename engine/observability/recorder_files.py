"""``--report`` and ``--trace``: record a run if the user wants one of the files, and write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.errors import ConfigurationError
from headrace.observability.page import write_page
from headrace.observability.perfetto import write_trace
from headrace.observability.recorder import Recorder

__all__ = ["recording", "require_writable"]


def require_writable(path: Path) -> None:
    """Raise `ConfigurationError` if a file cannot be written: before the work, not after it."""
    try:
        path.open("a").close()
    except OSError as error:
        raise ConfigurationError(f"it cannot be written ({error})", where=str(path), hint="name another") from error


@contextmanager
def recording(page: str | None, trace: str | None) -> Iterator[Recorder | None]:
    """A recorder for a run, ``None`` if neither file is wanted. The files are written when the run ends, also when
    it fails. Raises `ConfigurationError` before the run if a file cannot be written.
    """
    wanted: list[tuple[Path, Callable[[Path, Recorder], None]]] = []
    wanted += [(Path(page), write_page)] if page is not None else []
    wanted += [(Path(trace), write_trace)] if trace is not None else []
    for path, _ in wanted:
        require_writable(path)
    if not wanted:
        yield None
        return
    with Recorder() as recorder:
        try:
            yield recorder
        finally:
            for path, write in wanted:
                write(path, recorder)
