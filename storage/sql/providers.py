"""``headrace_providers``: the state of all providers, read, claimed and saved with one statement each.

A claim and a save are upserts with a condition: the database decides in one step whether this holder may write, so that
of two hosts that claim at the same moment only one succeeds.

What a provider's last loads took is a ring of `KEPT` rows of ``headrace_past_loads``: the slot of a load is its number
modulo KEPT. ``headrace_witnesses`` has a row for each provider.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa

from headrace.storage.beliefs import LONGEST_WAIT, furthest
from headrace.storage.providers import KEPT, PastLoad, ProviderState, Witness
from headrace.storage.sql import ledger_rows
from headrace.storage.sql.database import Database
from headrace.storage.sql.schema import PAST_LOADS, PROVIDERS, WITNESSES

__all__ = ["Providers", "ring_values"]

# a statement has 65,535 parameters at most in PostgreSQL, 32,766 in SQLite; a state has 24
STATES_IN_A_STATEMENT = 1_000
_MOMENTS = ("polled_at", "next_at", "delivered_at", "newest_event")
_PLAIN = ("outcome", "error", "run_id", "empty_polls", "failures", "polls", "loads")
_SEEN = ("etag", "last_modified", "content", "description")
_OF_LOAD = ("run_id", "strategy", "workers", "chunks", "read", "inserted", "seconds", "cpu_seconds", "machine_cpu")
_COLUMNS = PROVIDERS.c


class Providers:
    """The part of a store that keeps the state of providers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.dialect

    def states(self) -> dict[str, ProviderState]:
        """Every provider's state, by its name. One statement."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(PROVIDERS)).mappings().all()
        return {row["provider"]: _state_of(row) for row in rows}

    def claim(
        self,
        names: Sequence[str],
        holder: str,
        seconds: float,
        *,
        due: datetime | None,
        believed: Mapping[str, datetime] | None = None,
    ) -> dict[str, ProviderState]:
        """Claim providers for `seconds`; returns the states, as they are now, of those that were granted.

        Not granted are those that another holder has, and those whose `next_at` is after `due` (``None``: all are due),
        unless it is also after what is `believed` of it. A claim of another that reaches further into the future than
        any (`headrace.storage.beliefs`) is not believed either. One statement.
        """
        claims = self._dialect.insert(PROVIDERS)
        free = sa.or_(
            _COLUMNS.held_until.is_(None),
            _COLUMNS.held_until <= self._dialect.now(),
            _COLUMNS.held_until > self._dialect.later(furthest(seconds)),
            _COLUMNS.holder == sa.literal(holder),  # one of our own, whose COMMIT was not answered
        )
        latest, next_at = believed or {}, _COLUMNS.next_at
        if due is not None:
            free &= sa.or_(next_at.is_(None), next_at <= self._moment(due), next_at > claims.excluded.next_at)
        granted: dict[str, ProviderState] = {}
        for block in _blocks(sorted(set(names))):
            held = {"holder": holder, "held_until": self._dialect.later(seconds)}
            rows = [{"provider": name, "next_at": self._moment(latest.get(name)), **held} for name in block]
            claim = claims.values(rows).on_conflict_do_update(
                index_elements=["provider"],
                set_={"holder": claims.excluded.holder, "held_until": claims.excluded.held_until},
                where=free,
            )
            granted |= {row["provider"]: _state_of(row) for row in self._rows(claim.returning(PROVIDERS))}
        return granted

    def renew(self, holder: str, seconds: float) -> set[str]:
        """Prolong all claims of `holder` to `seconds` from now, also lapsed ones that nobody has taken since; returns
        what it still holds. One statement.
        """
        renew = sa.update(PROVIDERS).where(_COLUMNS.holder == holder).values(held_until=self._dialect.later(seconds))
        return {row["provider"] for row in self._rows(renew.returning(_COLUMNS.provider))}

    def save(self, states: Collection[ProviderState], holder: str) -> set[str]:
        """Write `states` and end their claims, except where another holder has taken over; returns the names written.

        One statement, and if there were any loads, one more for what they took and one for what they met.
        """
        written: set[str] = set()
        for block in _blocks(sorted(states, key=lambda state: state.provider)):
            save = self._dialect.insert(PROVIDERS).values([self._values(state) for state in block])
            # written by ourselves already is what a COMMIT without an answer leaves behind
            ours = (_COLUMNS.holder == holder) | (
                _COLUMNS.holder.is_(None) & _COLUMNS.polled_at.is_not_distinct_from(save.excluded.polled_at)
            )
            every = {column.name: save.excluded[column.name] for column in PROVIDERS.columns if not column.primary_key}
            save = save.on_conflict_do_update(index_elements=["provider"], set_=every, where=ours)
            written |= self._database.write(
                partial(self._save_in, save=save.returning(_COLUMNS.provider), states=block)
            )
        return written

    def _save_in(self, connection: sa.Connection, save: Any, states: Sequence[ProviderState]) -> set[str]:
        written = {row["provider"] for row in connection.execute(save).mappings()}
        ours = [state for state in states if state.provider in written]
        loads = [
            ring_values(one.load, self._dialect.moment(one.load.polled_at)) for one in ours if one.load is not None
        ]
        self._put(connection, PAST_LOADS, loads)
        self._put(connection, WITNESSES, [_witness_values(one.witness) for one in ours if one.witness is not None])
        return written

    def _put(self, connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
        """Write `rows`, each in the place of the one with its key."""
        if rows:
            put = self._dialect.insert(table).values(rows)
            keys = [column.name for column in table.primary_key]
            others = {column.name: put.excluded[column.name] for column in table.columns if column.name not in keys}
            connection.execute(put.on_conflict_do_update(index_elements=keys, set_=others))

    def witnesses(self, providers: Collection[str]) -> dict[str, Witness]:
        """The witnesses of the last loads of `providers`, by their names. One statement."""
        found: dict[str, Witness] = {}
        with self._database.reading() as connection:
            for block in _blocks(sorted(providers)):
                rows = connection.execute(_kept_witnesses(block)).mappings()
                found |= {row["provider"]: _witness_of(row) for row in rows}
        return found

    def past_loads(self, providers: Collection[str] | None = None) -> list[PastLoad]:
        """The costs of the last loads of `providers` (``None``: of all), by provider, the oldest first. One
        statement.
        """
        with self._database.reading() as connection:
            return [_past_load_of(row) for row in connection.execute(_kept_loads(providers)).mappings()]

    def claimed(self) -> Mapping[str, str]:
        """The present holder of each claimed provider. One statement."""
        lasting = (_COLUMNS.held_until > self._dialect.now()) & (
            _COLUMNS.held_until <= self._dialect.later(furthest(0, LONGEST_WAIT))
        )
        held = sa.select(_COLUMNS.provider, _COLUMNS.holder).where(lasting)
        with self._database.reading() as connection:
            return {row["provider"]: row["holder"] for row in connection.execute(held).mappings()}

    def _rows(self, statement: Any) -> Sequence[sa.RowMapping]:
        return self._database.write(lambda connection: connection.execute(statement).mappings().all())

    def _values(self, state: ProviderState) -> dict[str, Any]:
        return {
            "provider": state.provider,
            "table_name": state.table,
            **{name: self._moment(getattr(state, name)) for name in _MOMENTS},
            **{name: getattr(state, name) for name in (*_PLAIN, *_SEEN)},
            "error": None if state.error is None else ledger_rows.storable(state.error),
            **ledger_rows.counts_values(state.counts),
            "holder": None,
            "held_until": None,
        }

    def _moment(self, moment: datetime | None) -> datetime | str | None:
        """`moment` as the database keeps it, where there is one."""
        return None if moment is None else self._dialect.moment(moment)


def _state_of(row: sa.RowMapping) -> ProviderState:
    values: dict[str, Any] = {name: row[name] for name in (*_PLAIN, *_SEEN)}
    values |= {name: None if row[name] is None else ledger_rows.moment(row[name]) for name in _MOMENTS}
    return ProviderState(row["provider"], row["table_name"], counts=ledger_rows.counts_of(row), **values)


def _blocks(items: Sequence[Any]) -> Sequence[Sequence[Any]]:
    return [items[at : at + STATES_IN_A_STATEMENT] for at in range(0, len(items), STATES_IN_A_STATEMENT)]


def ring_values(load: PastLoad, polled_at: datetime | str) -> dict[str, Any]:
    """A load as column values, in the slot that is its; `polled_at` is as the database keeps it."""
    return {
        **{name: getattr(load, name) for name in _OF_LOAD},
        "provider": load.provider,
        "table_name": load.table,
        "slot": load.number % KEPT,
        "number": load.number,
        "polled_at": polled_at,
        "stages": json.dumps(
            {name: [spans, round(wall, 6), round(cpu, 6)] for name, (spans, wall, cpu) in load.stages.items()},
            separators=(",", ":"),
        ),
    }


def _kept_loads(providers: Collection[str] | None) -> sa.Select[Any]:
    """The loads that are kept of `providers` (``None``: of all), by provider, the oldest first."""
    found = sa.select(PAST_LOADS).order_by(PAST_LOADS.c.provider, PAST_LOADS.c.number)
    return found if providers is None else found.where(PAST_LOADS.c.provider.in_(sorted(providers)))


def _past_load_of(row: sa.RowMapping) -> PastLoad:
    """A row as plain data."""
    stages = {name: (int(one[0]), float(one[1]), float(one[2])) for name, one in json.loads(row["stages"]).items()}
    return PastLoad(
        provider=row["provider"],
        table=row["table_name"],
        number=row["number"],
        polled_at=ledger_rows.moment(row["polled_at"]),
        stages=stages,
        **{name: row[name] for name in _OF_LOAD},
    )


def _witness_values(witness: Witness) -> dict[str, Any]:
    """A witness as column values."""
    return {
        "provider": witness.provider,
        "run_id": witness.run_id,
        "table_name": witness.table,
        "met": witness.met,
        "ids": witness.ids,
        "versions": witness.versions,
    }


def _kept_witnesses(providers: Collection[str]) -> sa.Select[Any]:
    """The witnesses of `providers`."""
    return sa.select(WITNESSES).where(WITNESSES.c.provider.in_(sorted(providers)))


def _witness_of(row: sa.RowMapping) -> Witness:
    """A row as plain data."""
    ids = bytes(row["ids"])
    return Witness(row["provider"], row["run_id"], row["table_name"], row["met"], ids, row["versions"])
