r"""Lock keys that every loader of a table derives alike, and locks that live outside the database.

A lock only saves work: loaders that exclude each other find no duplicates at the unique key. The key stays the
safeguard against loaders that take no lock, and against loaders that still write when the lease of their lock has
ended.

**Keys.** Two loaders of one table may have different numbers of partitions, so locks are not on partitions but on
`LOCK_PARTITIONS` fixed stripes of the hash space. With *h* the last four bytes of an ID (see
`headrace.partitioning.partition`), the ID's stripe is ``(h * 64) >> 32``; partition *p* of *P*, which holds the IDs
with ``(h * P) >> 32 == p``, locks every stripe that it touches. A stripe's key is the big-endian signed 64-bit integer

    blake2b("headrace lock v1\0" + table name in UTF-8 + stripe as one byte, digest size 8)

so that tables share no keys (but by a chance of 2⁻⁶⁴ each; that, and a table of the same name in another schema, costs
a needless wait and nothing else). A loader takes several locks ascending as integers, so that no loaders wait in a
circle. Partition counts that divide 64 have no stripe in common between two partitions; others wait at the borders.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from time import monotonic
from typing import Any

from headrace.errors import ConfigurationError, LockTimeoutError, StoreError

__all__ = ["LOCK_PARTITIONS", "RedisLocks", "lock_keys", "lock_timed_out", "stripes_of"]

LOCK_PARTITIONS = 64
SECONDS_BETWEEN_TRIES = 0.05
_HASHES = 2**32
_VERSION = b"headrace lock v1\0"
_INSTALL = "pip install 'headrace[redis]'"
_LOG = logging.getLogger("headrace.locks")


def stripes_of(partition: int, partitions: int) -> range:
    """The stripes that `partition` of `partitions` touches. Raises `ValueError` if there is no such partition."""
    if not (1 <= partitions <= _HASHES and 0 <= partition < partitions):
        raise ValueError(f"there is no partition {partition} of {partitions}")
    first = -(-partition * _HASHES // partitions)  # rounded up: the first hash of this partition
    behind = -(-(partition + 1) * _HASHES // partitions)  # and the first of the next
    return range(_stripe(first), _stripe(behind - 1) + 1)


def lock_keys(table: str, partition: int, partitions: int) -> list[int]:
    """The keys that `partition` of `partitions` of `table` locks: signed 64-bit, ascending."""
    return sorted(_key(table, stripe) for stripe in stripes_of(partition, partitions))


def _stripe(hashed: int) -> int:
    return hashed * LOCK_PARTITIONS // _HASHES


def _key(table: str, stripe: int) -> int:
    text = _VERSION + table.encode() + bytes([stripe])
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big", signed=True)


def lock_timed_out(what: str, seconds: float, where: str | None) -> LockTimeoutError:
    """The error for a lock that was not granted in time; `what` names the lock."""
    return LockTimeoutError(
        f"{what} was not granted within {seconds:.1f} s: another loader holds it",
        where=where,
        hint="run the same command again to resume, or wait longer with --lock-timeout",
    )


class RedisLocks:
    """Locks on the Redis server at `url`, by redis-py's `Lock`: a random token, released only by who holds it.

    A lock ends by itself `lease` seconds after it was taken, so that a dead loader blocks other loaders no longer. A
    commit that takes longer continues without the lock, and is safe: the unique key refuses events that another loader
    wrote meanwhile. This is logged as a warning, because work is done twice.
    """

    def __init__(self, url: str, lease: float = 60.0) -> None:
        if lease <= 0:
            raise ConfigurationError(f"a lock's lease is a positive number of seconds, not {lease}")
        self._redis = _redis()
        self._lease = lease
        self._client: Any = None
        with suppress(ValueError, TypeError):
            self._client = self._redis.Redis.from_url(url, socket_connect_timeout=10, socket_timeout=10)
        if self._client is None:
            # neither the text itself nor what the parser says of it is repeated or kept as the error's context, which
            # some pickle too: it may hold a password
            raise ConfigurationError(
                "the URL of the Redis server cannot be read", hint="for example redis://host:6379/0"
            )
        self._shown = _shown(self._client.connection_pool.connection_kwargs)

    @property
    def url(self) -> str:
        """The server's URL without user and password, fit for logs."""
        return self._shown

    def close(self) -> None:
        """Release every connection. Idempotent."""
        self._client.close()

    @contextmanager
    def hold(self, keys: Sequence[int], timeout: float, *, where: str | None = None) -> Iterator[float]:
        """Take the locks of all `keys`, ascending, and hold them until the context ends; yields the seconds waited.

        Raises `LockTimeoutError` at `where` if not all locks are granted within `timeout` seconds.
        """
        place = self._shown if where is None else f"{self._shown}, {where}"
        waited = 0.0
        with ExitStack() as held:
            for key in sorted(set(keys)):
                lock = self._client.lock(_name(key), timeout=self._lease, sleep=SECONDS_BETWEEN_TRIES)
                waited += self._acquire(lock, timeout - waited, timeout, place)
                held.callback(self._release, lock, place)
            yield waited

    def _acquire(self, lock: Any, left: float, timeout: float, where: str) -> float:
        """Wait at most `left` of the `timeout` seconds for `lock`; returns how long it was."""
        try:
            if lock.acquire(blocking=False):
                return 0.0
            started = monotonic()
            if lock.acquire(blocking_timeout=max(0.0, left)):
                return monotonic() - started
        except self._redis.RedisError as error:
            raise StoreError(
                f"Redis reports: {error}", where=where, hint="is the server running? The same command run again resumes"
            ) from error
        raise lock_timed_out(f"lock {lock.name}", timeout, where)

    def _release(self, lock: Any, where: str) -> None:
        try:
            lock.release()
        except self._redis.exceptions.LockError:
            _LOG.warning(
                "%s: lock %s ended after its lease of %g s, before the commit did; the unique key kept duplicates out",
                where,
                lock.name,
                self._lease,
            )
        except self._redis.RedisError as error:
            _LOG.warning("%s: lock %s could not be released and ends with its lease: %s", where, lock.name, error)


def _redis() -> Any:
    try:
        import redis  # noqa: PLC0415 - the extra headrace[redis]
    except ImportError:
        raise ConfigurationError("locks in Redis need the package redis", hint=_INSTALL) from None
    return redis


def _name(key: int) -> str:
    return f"headrace:lock:{key % 2**64:016x}"


def _shown(parts: dict[str, Any]) -> str:
    if "path" in parts:
        return f"unix://{parts['path']}"
    return f"redis://{parts.get('host', 'localhost')}:{parts.get('port', 6379)}/{parts.get('db', 0)}"
