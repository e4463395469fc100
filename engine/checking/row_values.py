"""The values of rows on both sides of a verification, each row as one print, so that equal rows need not be kept.

    input: the columns that the input itself has, in the form in which the table stores them ─► print ─┐ equal: agreed
                                                                                                       ├─►
    table: the same columns, a print for each set of columns that any input has ──────────────► print ─┘ else: suspected

Only an input's own columns count, not the columns that other inputs, `--enrich` or the table itself added. Of several
rows of one event the first counts or, if the rows were loaded with revisions, the newest by a version column. Suspected
events are compared again, column by column (`headrace.checking.suspects`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.events.prepare import Prepared
from headrace.partitioning.dedup import groups, halves
from headrace.partitioning.prints import Prints, prints_of_column, row_prints
from headrace.partitioning.versions import VERSION, version_keys
from headrace.reading.inputs import Input
from headrace.storage.held import HeldColumn, HeldRows
from headrace.storage.store import Store

__all__ = ["Groups", "OwnColumns", "RowValues", "Side"]

Records = NDArray[Any]
# of more sets of columns than these no prints are kept: all rows are looked at column by column
MOST_SETS = 16
# so many suspects are looked for one by one; of more, every row is looked at
MOST_SUSPECTS = 4_000_000


class OwnColumns:
    """The sets of columns of the inputs, numbered in order of arrival; `lacking` are columns that the table lacks."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.lacking: dict[str, None] = {}
        self.sets: dict[tuple[str, ...], int] = {}

    def number(self, item: Input, rows: pa.RecordBatch) -> int:
        """The number of the set for some rows of `item`: its columns, and late columns that have a value."""
        own = set(item.columns())
        late = (name for name in rows.schema.names if rows.column(name).null_count < rows.num_rows)
        own.update(late)
        self.lacking.update(dict.fromkeys(name for name in item.columns() if name not in self.schema.names))
        return self.sets.setdefault(tuple(name for name in self.schema.names if name in own), len(self.sets))

    def of(self, number: int) -> tuple[str, ...]:
        """The columns of a set."""
        return list(self.sets)[number]

    @property
    def compared(self) -> pa.Schema:
        """The columns that any input has."""
        every = {name for names in self.sets for name in names}
        return pa.schema([field for field in self.schema if field.name in every])

    def matrix(self) -> NDArray[np.bool_]:
        """Which of `compared` are in each set, shape (sets, columns)."""
        names = self.compared.names
        return np.array([[name in own for name in names] for own in self.sets], dtype=np.bool_).reshape(-1, len(names))


class Side:
    """The values of rows as both sides compare them: `prints` of columns and the keys of a `version`."""

    def __init__(self, store: Store, table: str, schema: pa.Schema, version: str | None) -> None:
        self._schema = schema
        self._forms = store.tables.stored_forms(table)
        self.version = version

    def of_input(self, rows: pa.RecordBatch, names: Iterable[str]) -> Mapping[str, HeldColumn]:
        """Columns of an input in the form in which the table stores them."""
        return {name: HeldColumn(self._forms.stored(name, self._typed(name, rows.column(name)))) for name in names}

    def _typed(self, name: str, values: pa.Array) -> pa.Array:
        """An identity column is read in the contract's type, and may be stored in another."""
        stored_type = self._schema.field(name).type
        return values if values.type.equals(stored_type) else values.cast(stored_type)

    def prints(self, columns: Mapping[str, HeldColumn]) -> dict[str, Prints]:
        """The prints of each column."""
        return {name: prints_of_column(name, column.values, column.odd) for name, column in columns.items()}

    def keys(self, columns: Mapping[str, HeldColumn], rows: int) -> NDArray[np.bytes_]:
        """The keys by which versions are ordered, all alike where there is no version."""
        if self.version is None or self.version not in columns:
            return np.zeros(rows, dtype=VERSION)
        column = columns[self.version]
        keys = version_keys(column.values)
        if column.odd is not None:  # before or behind all that a load can bring
            texts = np.array(column.odd.to_pylist(), dtype=object)
            keys[texts == "infinity"], keys[texts == "-infinity"] = b"\2", b"\1"
        return keys


class Groups(NamedTuple):
    """One bucket of both sides by event: each record's group, and for each group its expected record of the input and
    its first of the table, -1 where there is none.
    """

    read: NDArray[np.int64]
    held: NDArray[np.int64]
    expected: NDArray[np.int64]
    stored: NDArray[np.int64]

    @classmethod
    def of(cls, read: Records, held: Records, *, newest: bool, group: NDArray[np.int64] | None = None) -> Groups:
        """The records of the input and of the table; the input's `newest` count, or its first. `group` is that of each
        record, the table's after the input's, where it is known.
        """
        if group is None:
            group, _ = groups(np.concatenate([read["id"], held["id"]]))
        count = int(group.max(initial=-1)) + 1
        of_read, of_held = group[: len(read)], group[len(read) :]
        order = np.arange(len(read))
        if newest:
            order = np.lexsort((-order, read["more"]["version"]))[::-1]
        return cls(of_read, of_held, _first(of_read, order, count), _first(of_held, np.arange(len(held)), count))

    @property
    def both(self) -> NDArray[np.int64]:
        """The groups that both sides have."""
        return np.flatnonzero((self.expected >= 0) & (self.stored >= 0))


class RowValues:
    """The first pass: prints of whole rows, kept beside the IDs; which events agree, and which are suspected."""

    def __init__(self, own: OwnColumns, side: Side, *, newest: bool) -> None:
        self.own = own
        self.agreed = 0
        self.suspected = 0
        self._side = side
        self._newest = newest
        self._suspects: list[NDArray[np.uint64]] = []
        version = [] if side.version is None else [("version", VERSION)]
        self.of_read = np.dtype([("print", np.uint64), ("own", np.uint32), *version])

    @property
    def of_held(self) -> np.dtype[Any]:
        """The record that is kept for a row of the table, after all inputs were read."""
        return np.dtype([("prints", np.uint64, (self._sets,))])

    def read(self, item: Input, prepared: Prepared) -> Records:
        """The records that are kept for the events of a chunk of `item`."""
        rows = prepared.events.open()
        number = self.own.number(item, rows)
        columns = self._side.of_input(rows, self.own.of(number))
        kept = np.empty(rows.num_rows, dtype=self.of_read)
        kept["own"] = number
        kept["print"] = row_prints(self._side.prints(columns), columns, rows.num_rows)
        if self._side.version is not None:
            kept["version"] = self._side.keys(columns, rows.num_rows)
        return kept

    def held(self, rows: HeldRows) -> Records:
        """The records that are kept for rows of the table."""
        kept = np.empty(len(rows.ids), dtype=self.of_held)
        prints = self._side.prints(rows.columns)
        for names, number in list(self.own.sets.items())[: self._sets]:
            kept["prints"][:, number] = row_prints(prints, names, len(rows.ids))
        return kept

    def compare(self, read: Records, held: Records, group: NDArray[np.int64]) -> None:
        """One bucket of both sides, with the group of each record by ID, the table's after the input's."""
        groups = Groups.of(read, held, newest=self._newest, group=group)
        both = groups.both
        expected, stored = read[groups.expected[both]], held[groups.stored[both]]
        own = expected["more"]["own"]
        equal = np.zeros(len(both), dtype=np.bool_)
        if self._sets:
            equal = expected["more"]["print"] == stored["more"]["prints"][np.arange(len(both)), own]
            equal &= ~self._contested(read, groups)[both]
        self.agreed += int(equal.sum())
        self.suspected += int((~equal).sum())
        if self.suspected <= MOST_SUSPECTS:
            self._suspects.append(halves(expected["id"][~equal])[0])

    def _contested(self, read: Records, groups: Groups) -> NDArray[np.bool_]:
        """Which events have rows of other values behind the first: who brought the table's row decides which counts."""
        contested = np.zeros(len(groups.expected), dtype=np.bool_)
        if not self._newest:
            more, first = read["more"], read["more"][groups.expected[groups.read]]
            contested[groups.read[(more["print"] != first["print"]) | (more["own"] != first["own"])]] = True
        return contested

    @property
    def looked_at(self) -> int:
        """How many events both sides have."""
        return self.agreed + self.suspected

    @property
    def suspects(self) -> NDArray[np.uint64] | None:
        """The low halves of the suspected events' IDs, ascending; ``None`` if there are too many to list."""
        if self.suspected > MOST_SUSPECTS:
            return None
        return np.unique(np.concatenate([np.empty(0, np.uint64), *self._suspects]))

    @property
    def _sets(self) -> int:
        return len(self.own.sets) if len(self.own.sets) <= MOST_SETS else 0


def _first(group: NDArray[np.int64], order: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Each group's first record in `order`, -1 where it has none."""
    first = np.full(count, -1, dtype=np.int64)
    first[group[order[::-1]]] = order[::-1]
    return first
