"""Every error that Headrace raises, in one tree.

    HeadraceError
    ├── UsageError            exit 2   the call cannot be carried out as written
    │   ├── ConfigurationError         a URL, an option or an environment variable is wrong
    │   ├── ContractError              the run's contract differs from the one stored with the table
    │   └── SchemaError                the input's columns and the table's cannot be reconciled
    ├── InputError            exit 1   an input cannot be read, or not to its end
    │   ├── StaleReceiptsError         what an unfinished run says it has done does not hold any more
    │   └── InputChangedError          it is not any more what it was when the command began
    ├── StoreError            exit 1   the database refused or failed: final
    │   ├── RetryableStoreError        the same, but running the transaction again may succeed
    │   │   └── ConnectionLostError    the server is away: restarting, failing over, or cut off
    │   ├── RefusedStoreError          what was asked for is not there, or not for this user
    │   ├── LockTimeoutError           a partition's lock was not granted in time
    │   └── LostCommitsError           the database has lost what it had confirmed
    ├── BooksError            exit 1   the books do not balance: a defect in Headrace, never ignored
    ├── WorkerError           exit 1   a worker died, hung, or its user code raised
    ├── Interrupted           exit 130/143   stopped by a signal; run again to resume
    └── VerificationError     exit 4   the table is not what the input says it should be

Whether to try again is decided by type (`retryable`), never by reading a message. A message says what happened,
`where` says where (file, row, line, column, partition), `hint` says what to do next. All of them survive `pickle`
whole, because they cross process borders. None of them may carry a password: URLs go through
`headrace.storage.safe_url` first, and what `conceal` was told of (values from the environment, headers, passwords in
addresses) is replaced wherever it turns up.
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
    """From now on `secret`, also percent-encoded, appears as `shown` in every error and every `concealed` text."""
    if len(secret) < SHORTEST_SECRET:
        return
    with _telling:
        for form in (secret, quote(secret), quote(secret, safe="")):
            _secrets.setdefault(form, shown)


def concealed(text: str) -> str:
    """`text` without the secrets that `conceal` was told of."""
    # the longest first: one secret may be part of another
    for secret in sorted(_secrets.copy(), key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, _secrets[secret])
    return text


def no_room(error: BaseException) -> bool:
    """Whether `error` says that this process has no memory left: it is about the process, then, not about its work."""
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
    """The receipts of an unfinished run do not hold any more: other rows stand there now, or their events are gone.

    The run is given up, and its input loaded by a new one.
    """


class InputChangedError(InputError):
    """An input is not any more what it was when the command looked at it: running it again reads what is there now."""


class StoreError(HeadraceError):
    """The database refused or failed, and trying the same again will not help."""


class RefusedStoreError(StoreError):
    """What was asked for is not there, or not for this user: no waiting helps."""


class RetryableStoreError(StoreError):
    """The database failed in a way that running the whole transaction again may cure."""

    retryable = True


class ConnectionLostError(RetryableStoreError):
    """The connection ended or could not be made: the server may be restarting, and is waited for (within bounds)."""


class SettledError(StoreError):
    """Rejects that were to be replayed are kept no more: somebody else has settled them meanwhile."""


class LockTimeoutError(StoreError):
    """A partition's lock was not granted in time: another loader holds it. It was waited for; nothing was changed."""


class LostCommitsError(StoreError):
    """The database has lost commits that it had confirmed."""


class BooksError(HeadraceError):
    """``read`` is not the sum of the four outcomes, or the ledger disagrees with the run."""


class WorkerError(HeadraceError):
    """A worker died or hung, or user code raised inside it."""


class Interrupted(HeadraceError):  # noqa: N818 - a stop that was asked for is no error
    """A signal stopped the run after the chunk in hand; running it again resumes."""

    exit_code = 130


class VerificationError(HeadraceError):
    """The table does not hold exactly the events the input says it should."""

    exit_code = 4
