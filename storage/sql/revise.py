"""Repeated events: their rows are compared with the table's, set-wise, in the database, in the transaction of their
slice.

    repeats, and events that     compared with the table's row:
    the unique key refused  ──►  no such row, or another event's ──► kept aside
      in a temporary table       report  another payload ──► kept aside
                                 update  each ID's rows after the table's, in input order:
                                         newer than all before ──► the newest takes the table's row;
                                                                   each may raise alerts
                                         the same version, another payload ──► kept aside

The comparison does not depend on the boundaries of chunks: a row is compared with the row that the table would hold if
the rows came one by one. The table's rows are locked in the order of their IDs, so that two loaders never wait in a
circle.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from numpy.typing import NDArray

from headrace.storage.postgres.written_slice import meddled
from headrace.storage.records import EVENT_ID, PROVIDER, RESERVED_COLUMNS, DifferingRow, Repeats, Slice, array_of_ids
from headrace.storage.sql.facts import Facts
from headrace.storage.value_text import asked, differing, sortable, told

__all__ = ["UNREVISED", "Aside", "Revised", "candidates", "revise"]

NONE = np.zeros(0, dtype=np.int64)
HELD = -1  # the position of the table's own row, before all that came
IN_A_STATEMENT = 10_000
COLLATIONS = {"postgresql": "C", "sqlite": "BINARY"}  # the order of a text's bytes, the same everywhere


class Revised(NamedTuple):
    """The number of rows with another payload than the table's row, and the rows that are kept as rejects.

    `newer` are the positions of those that have taken the table's row, one after the other, if anybody asks.
    """

    rows: int
    kept: Sequence[DifferingRow]
    newer: NDArray[np.int64] = NONE


UNREVISED = Revised(0, ())


@dataclass(frozen=True, slots=True)
class Aside:
    """Rows with their position (column `at`), for a temporary table.

    `lacking` are columns of the table that their input does not have: they are null here.
    """

    rows: pa.RecordBatch
    at: str
    lacking: tuple[str, ...] = ()


def candidates(piece: Slice, repeats: Repeats, inserted: bytes | None) -> Aside:
    """The slice's repeats, after those of its events that did not go in: `inserted` are the packed IDs that did."""
    events, count = piece.events, piece.events.num_rows
    positions = np.arange(count, count + repeats.rows.num_rows)
    parts = [repeats.rows]
    if inserted is not None:
        refused = pc.invert(pc.is_in(events.column(EVENT_ID), value_set=array_of_ids(inserted)))
        parts = [events.filter(refused), *parts]
        positions = np.concatenate([np.flatnonzero(refused.to_numpy(zero_copy_only=False)), positions])
    tables = [pa.Table.from_batches([part]) for part in parts if part.num_rows]
    if not tables:
        return Aside(pa.RecordBatch.from_pydict({}), "")
    # a column that the user's function gives to new events alone is null in the others
    whole = pa.concat_tables(tables, promote_options="default").combine_chunks().to_batches()[0]
    at = _unused("headrace_at", whole.schema.names)
    # and so is one that the table may have got from another input meanwhile
    lacking = [name for name in repeats.columns if name not in whole.schema.names]
    added = {name: pa.nulls(whole.num_rows) for name in lacking}
    added[at] = pa.array(positions)
    names = [*whole.schema.names, *added]
    return Aside(pa.RecordBatch.from_arrays([*whole.columns, *added.values()], names=names), at, tuple(lacking))


def revise(
    connection: sa.Connection, table: str, place: sa.TableClause, aside: Aside, repeats: Repeats, facts: Facts
) -> Revised:
    """Compare the rows of `aside`, which lie in the temporary table `place`, with those of `table`, and bring that up
    to date where `repeats` has a version. Raises `StoreError` where a trigger keeps it from that.
    """
    work = _Comparison(connection, table, place, aside, repeats, facts)
    return work.report() if repeats.version is None else work.update(repeats.version)


class _Comparison:
    """The rows set aside (`came`) beside those of the table (`held`)."""

    def __init__(
        self,
        connection: sa.Connection,
        table: str,
        place: sa.TableClause,
        aside: Aside,
        repeats: Repeats,
        facts: Facts,
    ) -> None:
        self._connection = connection
        self._facts = facts
        self._aside = aside
        self._repeats = repeats
        names = dict.fromkeys([*repeats.columns, *aside.rows.schema.names])
        self._data = [name for name in names if name not in (*RESERVED_COLUMNS, aside.at)]
        self._kinds = {field.name: field.type for field in aside.rows.schema}
        self._kinds |= {one.name: one.arrow for one in facts.columns.values() if one.arrow is not None}
        self._held = sa.table(table, *map(sa.column, [*self._data, *RESERVED_COLUMNS]))
        self._came = place
        self._compared = [name for name in self._data if name in repeats.own]
        self._shown = [*self._compared, *(name for name in repeats.identity if name == PROVIDER)]

    def report(self) -> Revised:
        """Keep every row that differs from the table's row."""
        kept = self._outsiders(self._differ(self._came, self._held, self._shown), "revision")
        return Revised(len(kept), kept)

    def update(self, version: str) -> Revised:
        """Let the newest have the table's row; keep aside what has no place there, or is neither newer nor older."""
        there = self._lock()
        named = [name for name in self._repeats.identity if name in (*self._repeats.own, PROVIDER)]
        identity = self._differ(self._came, self._held, named)
        strange = [one for one in self._outsiders(identity, "revision") if one.kind != "revision"]
        self._leave_out(strange)
        ranked = self._ranked(version)
        other = sa.select(sa.func.count()).where(
            ranked.c.at != HELD, ranked.c.version.is_distinct_from(ranked.c.before)
        )
        count = self._connection.execute(other).scalar_one()
        ties = self._ties(ranked)
        steps = self._steps(ranked) if count and self._repeats.alerts is not None else []
        taken = self._take_over(ranked, version, there) if count else set()
        newer = np.array([at for event_id, at in steps if event_id in taken], dtype=np.int64)
        return Revised(count + len(ties) + len(strange), [*strange, *ties], newer)

    def _lock(self) -> int:
        """Lock the table's rows that are met again; returns how many they are."""
        rows = sa.select(self._held.c[EVENT_ID]).where(self._held.c[EVENT_ID].in_(sa.select(self._came.c[EVENT_ID])))
        locked = rows.order_by(self._held.c[EVENT_ID]).with_for_update(key_share=True).subquery()
        return self._connection.execute(sa.select(sa.func.count()).select_from(locked)).scalar_one()

    def _outsiders(self, differ: sa.ColumnElement[bool], otherwise: str) -> list[DifferingRow]:
        """The rows that `differ` from the table's, or have none there."""
        came, held = self._came, self._held
        joined = came.outerjoin(held, came.c[EVENT_ID] == held.c[EVENT_ID])
        found = sa.select(held.c[EVENT_ID], *self._both(held)).select_from(joined)
        rows = self._connection.execute(found.where(held.c[EVENT_ID].is_(None) | differ))
        return [self._difference(values, otherwise, absent=event_id is None) for event_id, *values in rows]

    def _ranked(self, version: str) -> sa.Subquery:
        """Every version of each ID, the table's first: the greatest `before` it, the `first` position that has the
        same, and the greatest of all (`top`).
        """
        came, held = self._came, self._held
        theirs = sa.select(held.c[EVENT_ID], sa.literal(HELD), self._order(held.c[version]))
        contest = sa.union_all(
            sa.select(came.c[EVENT_ID].label("id"), came.c[self._aside.at].label("at"), self._order(came.c[version])),
            theirs.where(held.c[EVENT_ID].in_(sa.select(came.c[EVENT_ID]))),
        ).subquery()
        one, at, value = contest.c.id, contest.c.at, contest.c.version
        return sa.select(
            one,
            at,
            value,
            sa.func.max(value).over(partition_by=one, order_by=at, rows=(None, -1)).label("before"),
            sa.func.min(at).over(partition_by=[one, value]).label("first"),
            sa.func.max(value).over(partition_by=one).label("top"),
        ).subquery()

    def _order(self, version: sa.ColumnElement[Any]) -> sa.Label[Any]:
        """A version as both databases order it alike; a NaN is as old as a null."""
        arrow = self._kinds[str(version.key)]
        dialect = self._connection.dialect.name
        if pa.types.is_string(arrow):
            version = sa.cast(version, sa.Text).collate(COLLATIONS[dialect])
        elif dialect == "postgresql" and (pa.types.is_floating(arrow) or pa.types.is_decimal(arrow)):
            version = sa.func.nullif(version, sa.cast("NaN", sa.Double if pa.types.is_floating(arrow) else sa.Numeric))
        return sortable(version, arrow, dialect).label("version")

    def _ties(self, ranked: sa.Subquery) -> list[DifferingRow]:
        """The rows that differ from an earlier one of the same version."""
        came, held, earlier = self._came, self._held, self._came.alias("earlier")
        tied = ranked.c.version.is_not_distinct_from(ranked.c.before)
        kept = []
        for other, meets in (
            (held, (ranked.c.first == HELD) & (held.c[EVENT_ID] == ranked.c.id)),
            (earlier, earlier.c[self._aside.at] == ranked.c.first),
        ):
            joined = sa.join(ranked, came, came.c[self._aside.at] == ranked.c.at).join(other, meets)
            differ = self._differ(came, other, self._compared)
            found = sa.select(*self._both(other)).select_from(joined).where(tied, differ)
            kept += [self._difference(values, "tie", absent=False) for values in self._connection.execute(found)]
        return kept

    def _steps(self, ranked: sa.Subquery) -> list[tuple[Any, int]]:
        """ID and position of each row that is newer than all before it."""
        newer = ranked.c.before.is_(None) | (ranked.c.version > ranked.c.before)
        found = sa.select(ranked.c.id, ranked.c.at).where(ranked.c.at != HELD, ranked.c.version.is_not(None), newer)
        return [(event_id, at) for event_id, at in self._connection.execute(found)]

    def _take_over(self, ranked: sa.Subquery, version: str, there: int) -> set[Any]:
        """Write the newest row of each ID over the table's, whole: what it does not have becomes null, but for columns
        that the database fills, which stay.

        The receipt stays: it says who brought the event. Returns the IDs of the rows that were written, if anybody
        asks.
        """
        came, held = self._came, self._held
        newest = sa.select(ranked.c.at).where(
            ranked.c.at != HELD, ranked.c.version == ranked.c.top, ranked.c.at == ranked.c.first
        )
        values = {name: value for name in self._data if (value := self._value(name)) is not None}
        values[PROVIDER] = came.c[PROVIDER]
        before, now = (self._order(table.c[version]) for table in (held, came))
        # looked at once more under the row's own lock: one that came into the table since `_lock` may be newer
        newer = before.element.is_(None) | (now.element > before.element)
        written = (held.c[EVENT_ID] == came.c[EVENT_ID]) & newer & came.c[self._aside.at].in_(newest)
        taken = sa.update(held).values(values).where(written)
        told: set[Any] = set()
        if self._repeats.alerts is None:
            self._connection.execute(taken)
        else:
            told = set(self._connection.scalars(taken.returning(held.c[EVENT_ID])))
        if self._facts.watchers:
            self._prove(written, there)
        return told

    def _value(self, name: str) -> sa.ColumnElement[Any] | None:
        """What the table's column gets from the row that takes it, ``None`` where it stays as it is."""
        came = self._came
        if name not in self._facts.filled:
            return came.c[name] if name in came.c else sa.null()
        return came.c[name] if name in came.c and name not in self._aside.lacking else None

    def _prove(self, written: sa.ColumnElement[bool], there: int) -> None:
        """Raise `StoreError` where a row that was to be written is as old as before, or is not there any more."""
        left = sa.select(sa.func.count()).select_from(self._came).where(written)
        older, found = self._connection.execute(left).scalar_one(), self._lock()
        if older or found < there:
            what = f"{older:,} rows did not change when a newer version was written over them"
            gone = f"of {there:,} rows that arrived again {found:,} are left"
            raise meddled(what if older else gone, str(self._held.name), self._facts)

    def _leave_out(self, kept: Sequence[DifferingRow]) -> None:
        for start in range(0, len(kept), IN_A_STATEMENT):
            positions = [one.at for one in kept[start : start + IN_A_STATEMENT]]
            self._connection.execute(sa.delete(self._came).where(self._came.c[self._aside.at].in_(positions)))

    def _differ(self, came: Any, other: Any, names: Sequence[str]) -> sa.ColumnElement[bool]:
        """Whether any of the columns `names` is not the same in both."""
        dialect = self._connection.dialect.name
        unlike = [differing(came.c[name], other.c[name], self._kinds[name], dialect) for name in names]
        return sa.or_(sa.false(), *unlike)

    def _both(self, other: Any) -> list[sa.ColumnElement[Any]]:
        """The position, then the compared columns of `other` and of the row that came."""
        dialect = self._connection.dialect.name
        both = [
            asked(table.c[name], self._kinds[name], dialect) for table in (other, self._came) for name in self._shown
        ]
        return [self._came.c[self._aside.at], *(one.label(None) for one in both)]

    def _difference(self, values: Sequence[Any], otherwise: Any, *, absent: bool) -> DifferingRow:
        at, *both = values
        kinds = [self._kinds[name] for name in self._shown] * 2
        texts = [told(value, kind) for value, kind in zip(both, kinds, strict=True)]
        pairs = dict(zip(self._shown, zip(texts, texts[len(self._shown) :], strict=False), strict=True))
        columns = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        if absent:
            return DifferingRow(at, "absent", {name: pair for name, pair in columns.items() if name != PROVIDER})
        strange = any(_composed(columns[name]) for name in self._repeats.identity if name in columns)
        return DifferingRow(at, "collision" if strange else otherwise, columns)


def _composed(pair: tuple[str | None, str | None]) -> bool:
    """Whether two identities differ in more than the Unicode form, which the encoding does away with."""
    one, other = (None if text is None else unicodedata.normalize("NFC", text) for text in pair)
    return one != other


def _unused(name: str, names: Sequence[str]) -> str:
    while name in names:
        name += "_"
    return name
