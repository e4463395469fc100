"""The values of a verification: a pass over whole rows, one over suspects, one for the values that are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.checking.provenance import Provenance
from headrace.checking.rereading import Rereading, columns_of
from headrace.checking.row_values import OwnColumns, RowValues, Side
from headrace.checking.suspects import Suspect, Suspects
from headrace.checking.value_findings import ValueFinding, Values, ValuesOfAKind
from headrace.partitioning.identity import id_text
from headrace.storage.held import HeldColumn
from headrace.storage.store import Store

__all__ = ["ValueCheck"]

Columns = dict[str, HeldColumn]


class ValueCheck:
    """The values of the inputs and of `table`, compared in up to three passes over both; the first is enough where all
    of them agree.
    """

    def __init__(self, store: Store, table: str, read: Rereading) -> None:
        self._store = store
        self._table = table
        self._read = read
        self._provenance = Provenance(store, table, read.inputs, read.options.version_column)
        schema = columns_of(store, table)
        version = self._provenance.version if self._provenance.version in schema.names else None
        self._own = OwnColumns(schema)
        self._side = Side(store, table, schema, version)
        self._rows = RowValues(self._own, self._side, newest=self._provenance.newest)
        self.of_read = self._rows.of_read
        self.read = self._rows.read
        self.compare = self._rows.compare

    @property
    def of_held(self) -> np.dtype[Any]:
        """The record that is kept for a row of the table, after all inputs were read."""
        return self._rows.of_held

    def rows(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[Any]]]:
        """Every row's ID, receipt and what is kept of it."""
        for rows in self._store.events.rows(self._table, self._own.compared):
            yield rows.ids, rows.receipts, self._rows.held(rows)

    def told(self, folder: Path, limit: int) -> Values:
        """The result, with up to `limit` named events of each kind."""
        compared = self._own.compared.names
        left_out = [name for name in self._own.schema.names if name not in compared]
        values = Values(compared, left_out, list(self._own.lacking), self._rows.agreed)
        if self._rows.suspected:
            low = self._rows.suspects
            if low is None:  # all are looked at again
                values.agreed = 0
            suspects = Suspects(self._own, self._side, self._provenance, low, folder)
            for _ in suspects.turns(2 * (self._rows.looked_at if low is None else self._rows.suspected)):
                self._look_again(suspects)
                values.agreed += suspects.judge(limit)
            for kind, told in suspects.told.items():
                setattr(values, kind, ValuesOfAKind(told.events, told.columns, self._named(told.first)))
        return values

    def _look_again(self, suspects: Suspects) -> None:
        for number, item, prepared, tags in self._read.chunks():
            suspects.read(number, item, prepared, tags)
        for rows in self._store.events.rows(self._table, self._own.compared):
            suspects.held(rows)

    def _named(self, first: Sequence[Suspect]) -> list[ValueFinding]:
        """The suspects with their places, and the values that differ."""
        if not first:
            return []
        came = self._in_inputs(first)
        held = self._in_table([suspect.event_id for suspect in first])
        places = self._read.places.with_lines([self._read.places.of(suspect.tag) for suspect in first])
        none: Columns = {}
        return [
            ValueFinding(
                id_text(suspect.event_id),
                place,
                suspect.receipt,
                self._differing(came.get(suspect, none), held.get(suspect.event_id, none)),
            )
            for suspect, place in zip(first, places, strict=True)
        ]

    def _in_inputs(self, first: Sequence[Suspect]) -> dict[Suspect, Columns]:
        """The values of the suspects as the inputs have them."""
        suspects = {(suspect.tag, suspect.event_id): suspect for suspect in first}
        numbers = np.array([suspect.tag for suspect in first], dtype=np.int64)
        values: dict[Suspect, Columns] = {}
        for _, item, prepared, tags in self._read.chunks():
            rows = prepared.events.open()
            for at in np.flatnonzero(np.isin(tags, numbers)).tolist():
                suspect = suspects.get((int(tags[at]), prepared.ids[at].tobytes()))
                if suspect is not None and suspect not in values:
                    own = self._own.of(self._own.number(item, rows))
                    values[suspect] = dict(self._side.of_input(rows.slice(at, 1), own))
            if len(values) == len(first):
                break
        return values

    def _in_table(self, ids: Sequence[bytes]) -> dict[bytes, Columns]:
        """The values of the events as the table has them."""
        values: dict[bytes, Columns] = {}
        for rows in self._store.events.rows(self._table, self._own.compared, ids=ids):
            for at, packed in enumerate(rows.ids):
                values.setdefault(packed.tobytes(), rows.where(np.arange(len(rows.ids)) == at).columns)
        return values

    def _differing(self, came: Columns, held: Columns) -> dict[str, tuple[str | None, str | None]]:
        """Both values of each column that differs, as text."""
        both = {name: (came[name], held[name]) for name in came if name in held}
        prints = self._side.prints({name: pair[0] for name, pair in both.items()}), self._side.prints(held)
        return {
            name: (of_input.shown(0), of_table.shown(0))
            for name, (of_input, of_table) in both.items()
            if prints[0][name][0] != prints[1][name][0]
        }
