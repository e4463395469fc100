"""Revisions: rows of events that arrive again with another payload. The choices of the user, and the addresses of kept
rows.

ignore   the first wins; nothing is compared (the default)
report   the first wins; every other payload is kept aside in the rejects, with what differs
update   the newest by the version column wins, whatever the order of arrival
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, get_args

import pyarrow as pa

from headrace.errors import ConfigurationError
from headrace.events.choices import RevisionsName
from headrace.partitioning.contract import Contract, logical_type
from headrace.storage.records import PROVIDER
from headrace.storage.rejects import StoredReject
from headrace.storage.store import Store

if TYPE_CHECKING:  # a worker reads no inputs
    from headrace.reading.inputs import Input

__all__ = ["Revisions", "locate_revisions", "require_choice", "require_version", "revisions_for"]

# the types that both databases order alike
ORDERED = ("integer", "float", "decimal", "timestamp", "date", "string")
LOCATED_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Revisions:
    """The comparison of repeated events: `identity` columns and all other columns of the table (`columns`); the newest
    by `version` wins, or with ``None`` the first.
    """

    version: str | None
    identity: tuple[str, ...]
    columns: tuple[str, ...]


def require_choice(revisions: str, version: str | None, identity: Sequence[str] | None) -> None:
    """Raises `ConfigurationError` for an invalid combination of options."""
    if revisions not in get_args(RevisionsName):
        raise ConfigurationError(f"--revisions cannot be {revisions!r}", hint="choose ignore, report or update")
    if revisions == "update" and version is None:
        raise ConfigurationError(
            "--revisions update needs a version column",
            hint="name it with --version-column, for example --version-column updated; without one, --revisions report",
        )
    if revisions != "update" and version is not None:
        raise ConfigurationError(
            f"--version-column {version} has no effect with --revisions {revisions}", hint="add --revisions update"
        )
    if version is not None:
        _refuse_identity(version, identity or ())


def require_version(
    version: str | None, schema: pa.Schema, contract: Contract, inputs: Iterable[tuple[str, Sequence[str]]]
) -> None:
    """Raises `ConfigurationError` unless every one of `inputs` (name, columns) has the column `version`, of a type that
    has an order, and not as part of the identity.
    """
    if version is None:
        return
    for name, columns in inputs:
        if version not in columns:
            raise ConfigurationError(
                f"the input has no column {version!r}, the version column",
                where=name,
                hint=f"name another with --version-column; its columns are {', '.join(columns)}",
            )
    _refuse_identity(version, dict(contract.identity))
    kind = logical_type(schema.field(version).type)
    if kind not in ORDERED:
        raise ConfigurationError(
            f"the version column {version} is of type {kind}, which has no order that both databases share",
            hint=f"cast it in --select to one of {', '.join(ORDERED)}; on a first load, --type {version}=… does it too",
        )


def revisions_for(
    revisions: RevisionsName, version: str | None, schema: pa.Schema, contract: Contract
) -> Revisions | None:
    """The comparison of a slice's repeats, ``None`` if they are not compared."""
    if revisions == "ignore":
        return None
    provider = (PROVIDER,) if contract.scope == "provider" else ()
    return Revisions(version, (*provider, *dict(contract.identity)), tuple(schema.names))


def locate_revisions(store: Store, run_id: str, inputs: Sequence[Input]) -> None:
    """Add line and raw text to the revisions that a run has kept, because only now their rows are known.

    Idempotent, also after a crash.
    """
    by_name = {item.name: item for item in inputs}
    kept = [one for one in store.rejects.find(run_id=run_id, state=None, stage="revision") if one.reject.line is None]
    for source, group in groupby(sorted(kept, key=_place), key=lambda one: one.reject.source):
        if source in by_name:
            _locate(store, by_name[source], [one for one in group if one.reject.row is not None])


def _locate(store: Store, item: Input, kept: Sequence[StoredReject]) -> None:
    for start in range(0, len(kept), LOCATED_AT_ONCE):
        rows: Mapping[int, int] = {one.reject_id: one.reject.row or 0 for one in kept[start : start + LOCATED_AT_ONCE]}
        found = item.locate(sorted(set(rows.values())))
        store.rejects.place({reject: found[row] for reject, row in rows.items() if row in found})


def _place(stored: StoredReject) -> tuple[str, int]:
    return stored.reject.source, stored.reject.row or 0


def _refuse_identity(version: str, identity: Iterable[str]) -> None:
    if version in identity:
        raise ConfigurationError(
            f"the version column {version} is an identity column: rows that differ in it are different events",
            hint="leave it out of --id (in a new table), or name another with --version-column",
        )
