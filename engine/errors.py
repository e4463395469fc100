"""Every error that Headrace raises, in one tree.

    HeadraceError
    ├── UsageError            exit 2   the call cannot be carried out as written
    │   ├── ConfigurationError         a URL, an option or an environment variable is wrong
    │   ├── ContractError              the run's contract differs from the one stored with the table
    │   └── SchemaError                the input's columns and the table's cannot be reconciled
    ├── InputError            exit 1   an input cannot be read, or not to its end
    │   ├── StaleReceiptsError         an unfinished run's receipts are no longer true
    │   └── InputChangedError          it has changed since the command began
    ├── StoreError            exit 1   the database refused or failed: final
    │   ├── RetryableStoreError        the same, but running the transaction again may succeed
    │   │   └── ConnectionLostError    the server is away: restarting, failing over, or cut off
    │   ├── RefusedStoreError          the requested object does not exist, or not for this user
    │   ├── LockTimeoutError           a partition's lock was not granted in time
    │   └── LostCommitsError           the database has lost commits that it had confirmed
    ├── BooksError            exit 1   the books do not balance: a defect in Headrace, never ignored
    ├── WorkerError           exit 1   a worker died, hung, or its user code raised
    ├── Interrupted           exit 130/143   stopped by a signal; run again to resume
    └── VerificationError     exit 4   the table does not hold what the input says

The error's type decides whether Headrace tries again (`retryable`), never its message. A message says what happened,
`where` says where (file, row, line, column, partition), `hint` says what to do next. All errors survive `pickle`
completely, because they cross process boundaries. No error may contain a password: URLs go through
`headrace.storage.safe_url` first, and the secrets passed to `conceal` (values from the environment, headers, passwords
in addresses) are replaced wherever they occur.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from urllib.parse import quote

__all__ = [
    "BooksError",
    "ConfigurationError",
    "ConnectionLostError",
    "ContractError",
    "HeadraceError",
    "InputChangedError",
    "InputError",
    "Interrupted",
    "LockTimeoutError",
    "LostCommitsError",
    "RefusedStoreError",
    "RetryableStoreError",
    "SchemaError",
    "StaleReceiptsError",
    "StoreError",
    "UsageError",
    "VerificationError",
    "WorkerError",
    "conceal",
    "concealed",
    "no_room",
]

# Secrets of this process and what stands for each in messages. Shorter ones than this would blot out plain words.
SHORTEST_SECRET = 4
_secrets: dict[str, str] = {}
_telling = threading.Lock()


def conceal(secret: str, shown: str = "***") -> None:
    """Show `secret`, also percent-encoded, as `shown` in every later error and every `concealed` text."""
    if len(secret) < SHORTEST_SECRET:
        return
    with _telling:
        for form in (secret, quote(secret), quote(secret, safe="")):
            _secrets.setdefault(form, shown)


def concealed(text: str) -> str:
    """`text` without the secrets that were passed to `conceal`."""
    # the longest first: one secret may be part of another
    for secret in sorted(_secrets.copy(), key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, _secrets[secret])
    return text


def no_room(error: BaseException) -> bool:
    """Whether `error` says that this process has no memory left: the cause is then the process, not its work."""
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and _is_of_a_start(error))
    )


def _is_of_a_start(error: RuntimeError) -> bool:
    """Whether a thread could not be started. Python has no type for that: the place where it was raised tells."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return (
        place is not None
        and place.tb_frame.f_code is threading.Thread.start.__code__
        and place.tb_frame.f_locals["self"].ident is None  # one that has an ident was started before
    )


class HeadraceError(Exception):
    """Base of all Headrace errors.

    `what` is one sentence saying what happened, `where` an address such as ``fires.csv, line 7, column frp``, `hint`
    the next thing to do.
    """

    exit_code: int = 1
    retryable: bool = False
    run_id: str | None = None
    """The run that it ended, where there was one."""

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(concealed(what))
        self.what = concealed(what)
        self.where = None if where is None else concealed(where)
        self.hint = None if hint is None else concealed(hint)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  hint: {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Callable[..., HeadraceError], tuple[object, ...]]:
        return _rebuild, (type(self), self.what, self.where, self.hint)


def _rebuild(kind: type[HeadraceError], what: str, where: str | None, hint: str | None) -> HeadraceError:
    return kind(what, where=where, hint=hint)


class UsageError(HeadraceError):
    """The call cannot be carried out as written; nothing was changed."""

    exit_code = 2


class ConfigurationError(UsageError):
    """A URL, an option or an environment variable is wrong."""


class ContractError(UsageError):
    """The run's contract differs from the one stored with the table."""


class SchemaError(UsageError):
    """The input's columns and the table's columns cannot be reconciled."""


class InputError(HeadraceError):
    """An input cannot be read, or not to its end. `retry_after` is how many seconds its server asks to wait."""

    retry_after: float = 0.0


class StaleReceiptsError(InputError):
    """The receipts of an unfinished run are no longer true: their rows have changed, or their events are gone.

    The run is given up, and a new run loads its input.
    """


class InputChangedError(InputError):
    """An input has changed since the command first examined it: running the command again reads the present content."""


class StoreError(HeadraceError):
    """The database refused or failed, and another attempt will not help."""


class RefusedStoreError(StoreError):
    """The requested object does not exist, or not for this user: waiting does not help."""


class RetryableStoreError(StoreError):
    """The database failed, but running the whole transaction again may succeed."""

    retryable = True


class ConnectionLostError(RetryableStoreError):
    """The connection ended or could not be made: the server may be restarting, and is waited for (within bounds)."""


class SettledError(StoreError):
    """The rejects of a replay are no longer kept: somebody else has settled them meanwhile."""


class LockTimeoutError(StoreError):
    """A partition's lock was not granted in time, because another loader holds it; nothing was changed."""


class LostCommitsError(StoreError):
    """The database has lost commits that it had confirmed."""


class BooksError(HeadraceError):
    """``read`` is not the sum of the four outcomes, or the ledger disagrees with the run."""


class WorkerError(HeadraceError):
    """A worker died or hung, or user code raised inside it."""


class Interrupted(HeadraceError):  # noqa: N818 - a stop that was asked for is no error
    """A signal stopped the run after the current chunk; running it again resumes."""

    exit_code = 130


class VerificationError(HeadraceError):
    """The table does not hold exactly the events of the input."""

    exit_code = 4
