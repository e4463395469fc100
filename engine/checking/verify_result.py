"""The result of `verify`, as one screen of text and as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.checking.audit import ReceiptDifference, named_chunks
from headrace.checking.row_addresses import RowAddress
from headrace.checking.value_findings import Values
from headrace.loading.ownership import told_of_others
from headrace.storage.digest import NOTHING, PARTS, Digest
from headrace.storage.records import Address

__all__ = ["Finding", "InputRead", "Verification"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One missing, unexpected or duplicated event.

    `place` is its first row in the input, ``None`` if the input does not have it; `receipts` are the receipts under
    which the table holds it, `chunks` the chunks of the first of these receipts.
    """

    event_id: str
    place: RowAddress | None = None
    receipts: tuple[int, ...] = ()
    chunks: tuple[Address, ...] = ()

    def __str__(self) -> str:
        told = [] if self.place is None else [f"from {self.place}"]
        if self.receipts:
            rows = f"{len(self.receipts)} rows, " if len(self.receipts) > 1 else ""
            listed = ", ".join(map(str, dict.fromkeys(self.receipts)))
            told.append(f"{rows}receipt {listed}")
            told.append(f"brought by {named_chunks(self.chunks)}" if self.chunks else "not in the ledger")
        return f"{self.event_id} {'; '.join(told)}".rstrip()

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON."""
        return {
            "event_id": self.event_id,
            "place": self.place and self.place.to_dict(),
            "receipts": list(self.receipts),
            "chunks": [str(chunk) for chunk in self.chunks],
        }


@dataclass(frozen=True, slots=True)
class InputRead:
    """One input as it was read: rows, rejects, and rows that repeat an earlier event of this or an earlier input."""

    name: str
    fingerprint: str
    size: int | None
    read: int
    rejected: int


_FIGURES = (
    *("read", "rejected", "expected", "repeated", "stored"),
    *("missing", "unexpected", "duplicated", "unreceipted"),
)
_NAMED = ("missing_sample", "unexpected_sample", "duplicated_sample", "ledger_differences")


@dataclass(slots=True)
class Verification:
    """The result of a verification.

    `expected` is the number of distinct events in the input, `repeated` how many rows repeat one. The lists name as
    many events as were asked for; the counts count all. `input_digest` is that of the distinct events, `table_digest`
    that of the table's rows that hold them or that only these inputs can have brought; `ledger_digest` is what all
    receipts say they inserted, `receipted_digest` what the table holds under them. `others` are the other providers
    with the number of their events, where something is missing and the table holds no event of `provider`.
    """

    table: str
    provider: str
    inputs: list[InputRead] = field(default_factory=list)
    read: int = 0
    rejected: int = 0
    expected: int = 0
    repeated: int = 0
    stored: int = 0
    missing: int = 0
    unexpected: int = 0
    duplicated: int = 0
    unreceipted: int = 0
    missing_sample: list[Finding] = field(default_factory=list)
    unexpected_sample: list[Finding] = field(default_factory=list)
    duplicated_sample: list[Finding] = field(default_factory=list)
    ledger_differences: list[ReceiptDifference] = field(default_factory=list)
    input_digest: Digest = NOTHING
    table_digest: Digest = NOTHING
    ledger_digest: Digest = NOTHING
    receipted_digest: Digest = NOTHING
    receipts: Sequence[tuple[int, int]] = ()
    others: Mapping[str, int] = field(default_factory=dict)
    values: Values | None = None

    @property
    def ok(self) -> bool:
        """Whether the table holds exactly the expected events, nothing under a receipt that did not bring it and, where
        they were compared, no values that were changed.
        """
        by_ids = not (self.missing or self.unexpected or self.duplicated or self.ledger_faults)
        return by_ids and (self.values is None or self.values.ok)

    @property
    def ledger_faults(self) -> list[ReceiptDifference]:
        """The receipts that hold more events than they brought, or other events."""
        return [difference for difference in self.ledger_differences if not difference.fewer]

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON."""
        return {
            "ok": self.ok,
            "compared": "IDs" if self.values is None else "IDs and values",
            "table": self.table,
            "provider": self.provider,
            **{name: getattr(self, name) for name in _FIGURES},
            **{name: [one.to_dict() for one in getattr(self, name)] for name in _NAMED},
            "other_providers": dict(self.others),
            "values": self.values and self.values.to_dict(),
            "digests": {name: digest.to_list() for name, digest in self.digests().items()},
        }

    def digests(self) -> Mapping[str, Digest]:
        """The four digests by the names that they have in JSON."""
        return {
            "input": self.input_digest,
            "table": self.table_digest,
            "ledger": self.ledger_digest,
            "receipted": self.receipted_digest,
        }

    def to_text(self) -> str:
        """One screen for people."""
        return "\n".join([*self._counts(), *self._books(), *self._findings(), *self._advice()])

    def _counts(self) -> list[str]:
        others = f", {self.unreceipted:,} of them by other programs" if self.unreceipted else ""
        return [
            f"{self._verdict()}: {self.table}",
            f"  rows read again     {self.read:>12,}   ({self.rejected:,} rejects, {self.repeated:,} repeated)",
            f"  distinct events     {self.expected:>12,}",
            f"  missing             {self.missing:>12,}",
            f"  unexpected          {self.unexpected:>12,}",
            f"  duplicated          {self.duplicated:>12,}",
            f"  rows in the table   {self.stored:>12,}   (other inputs' included{others})",
            *([] if self.values is None else self.values.counts()),
        ]

    def _verdict(self) -> str:
        """The verdict, and what it speaks of."""
        if self.values is None:
            return "VERIFIED, IDs only" if self.ok else "DIFFERENCE FOUND, only IDs compared"
        if not self.ok:
            return "DIFFERENCE FOUND, IDs and values compared"
        others = self.values.elsewhere.events + self.values.revised.events
        return "VERIFIED, IDs and values" + (
            f" ({others:,} rows hold other inputs' values, see below)" if others else ""
        )

    def _books(self) -> list[str]:
        """The digests: a line for each side, and which parts of the hash space differ."""
        lines = [f"  {'':<20}{'count':>12}   {'XOR of the IDs':<34}sum of the IDs"]
        for titles, one, other in (
            (("input", "table, these events"), self.input_digest, self.table_digest),
            (("ledger, all receipts", "table, under them"), self.ledger_digest, self.receipted_digest),
        ):
            for title, digest in zip(titles, (one, other), strict=True):
                whole = digest.whole
                lines.append(f"  {title:<20}{whole.count:>12,}   {whole.xor:032x}  {whole.sum:032x}")
            differ = one.differing(other)
            listed = f"{PARTS - len(differ)} of {PARTS} partitions agree"
            lines.append(f"  {'':<20}{listed}" + (f"; not {', '.join(map(str, differ))}" if differ else ""))
        return lines

    def _findings(self) -> list[str]:
        samples = (
            ("missing", self.missing_sample),
            ("unexpected", self.unexpected_sample),
            ("duplicated", self.duplicated_sample),
        )
        lines = [f"    {title}: {one}" for title, sample in samples for one in sample]
        lines += [] if self.values is None else self.values.findings()
        shown = self.ledger_faults or self.ledger_differences
        lines += [f"    {'ledger' if one in self.ledger_faults else 'note'}: {one}" for one in shown[:3]]
        return lines + ([f"    and {len(shown) - 3} more receipts"] if len(shown) > 3 else [])  # noqa: PLR2004

    def _advice(self) -> list[str]:
        if self.others:
            return [
                f"  {told_of_others(self.provider, self.others)}: name theirs with --provider",
                f"  to load the input for {self.provider} as well would store each event a second time",
            ]
        if self.missing:
            return ["  load the input again to add the missing events; no event will be written twice"]
        return [] if self.values is None else self.values.advice()
