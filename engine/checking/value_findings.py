"""The result of comparing values: how many events agree, which events and columns differ, as text and as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.checking.row_addresses import RowAddress

__all__ = ["ValueFinding", "Values", "ValuesOfAKind"]

SHOWN = 60  # characters of a value, on the screen
_SAID = {
    "changed": "differ from the input",
    "elsewhere": "hold other values, which another input brought or another program wrote",
    "revised": "hold a newer version, which another input brought",
}


@dataclass(frozen=True, slots=True)
class ValueFinding:
    """One event whose row differs: its place in the input, its receipt, and both values of each column that differs."""

    event_id: str
    place: RowAddress
    receipt: int
    columns: Mapping[str, tuple[str | None, str | None]]

    def __str__(self) -> str:
        pairs = (f"{name}: input {_shown(came)}, table {_shown(held)}" for name, (came, held) in self.columns.items())
        under = f"receipt {self.receipt}" if self.receipt else "no receipt"
        return f"{self.event_id} from {self.place}; {under}; {'; '.join(pairs)}"

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON."""
        return {
            "event_id": self.event_id,
            "place": self.place.to_dict(),
            "receipt": self.receipt or None,
            "columns": {name: {"input": came, "table": held} for name, (came, held) in self.columns.items()},
        }


@dataclass(slots=True)
class ValuesOfAKind:
    """How many events differ in one way, in how many of them each column does, and some of them."""

    events: int = 0
    columns: Mapping[str, int] = field(default_factory=dict)
    sample: Sequence[ValueFinding] = ()

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON."""
        return {
            "events": self.events,
            "columns": dict(self.columns),
            "sample": [finding.to_dict() for finding in self.sample],
        }


@dataclass(slots=True)
class Values:
    """What was compared: the events of the input that the table has, by `columns`; the others were `left_out`.

    `lacking` are columns of the input that the table does not have.

    `changed` is a difference. `elsewhere` and `revised` are not: the ledger knows that another load brought
    those values.
    """

    columns: Sequence[str] = ()
    left_out: Sequence[str] = ()
    lacking: Sequence[str] = ()
    agreed: int = 0
    changed: ValuesOfAKind = field(default_factory=ValuesOfAKind)
    elsewhere: ValuesOfAKind = field(default_factory=ValuesOfAKind)
    revised: ValuesOfAKind = field(default_factory=ValuesOfAKind)

    @property
    def ok(self) -> bool:
        """Whether no row was found changed, and no column is gone."""
        return not self.changed.events and not self.lacking

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON."""
        kinds = {name: values.to_dict() for name, values in self._kinds().items()}
        columns = {"columns": list(self.columns), "not_compared": list(self.left_out), "lacking": list(self.lacking)}
        return {**columns, "agreed": self.agreed, **kinds}

    def counts(self) -> list[str]:
        """The lines with the counts."""
        left_out = f"; not the input's, so not compared: {', '.join(self.left_out)}" if self.left_out else ""
        lines = [f"  values agree        {self.agreed:>12,}   ({len(self.columns)} columns{left_out})"]
        for name, values in self._kinds().items():
            if values.events or name == "changed":
                lines.append(f"  {name:<20}{values.events:>12,}" + _by_column(name, values))
        if self.lacking:
            lines.append(f"  the table has no column {', '.join(self.lacking)}, which the input has")
        return lines

    def findings(self) -> list[str]:
        """The lines that name events: all of the sample that changed, a few of the others."""
        lines = [f"    changed: {finding}" for finding in self.changed.sample]
        for name in ("elsewhere", "revised"):
            lines += [f"    {name}: {finding}" for finding in self._kinds()[name].sample[:3]]
        return lines

    def advice(self) -> list[str]:
        """The lines of advice."""
        if self.elsewhere.events:
            return ["  to compare the rows of other inputs as well, give those inputs too"]
        return []

    def _kinds(self) -> dict[str, ValuesOfAKind]:
        return {"changed": self.changed, "elsewhere": self.elsewhere, "revised": self.revised}


def _by_column(name: str, values: ValuesOfAKind) -> str:
    if not values.events:
        return ""
    by_column = ", ".join(f"{column} in {times:,}" for column, times in values.columns.items())
    return f"   {_SAID[name]}: {by_column}"


def _shown(text: str | None) -> str:
    if text is None:
        return "null"
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")
