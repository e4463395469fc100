"""``headrace explain``: which run, file and chunk of rows brought an event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.errors import StoreError
from headrace.partitioning.identity import id_text, parse_id
from headrace.storage.base import EVENT_ID, RECEIPT, Origin, Store

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """An event's row in `table` and where it came from."""

    event_id: str
    table: str
    origin: Origin

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON: the event, and the address, receipt and run behind it (null if not ours)."""
        receipt, run = self.origin.receipt, self.origin.run
        return {
            "event_id": self.event_id,
            "table": self.table,
            "event": {name: value for name, value in self.origin.row.items() if name not in (EVENT_ID, RECEIPT)},
            "source": receipt and receipt.address.source,
            "first_row": receipt and receipt.address.first_row,
            "rows": receipt and receipt.address.rows,
            "partition": receipt and receipt.partition,
            "chunks": receipt and [str(chunk) for chunk in receipt.spans or [receipt.address]],
            "receipt": receipt and receipt.receipt_id,
            "committed_at": receipt and receipt.committed_at.isoformat(),
            "run_id": run and run.run_id,
            "run_started_at": run and run.started_at and run.started_at.isoformat(),
            "headrace_version": run and run.version,
        }

    def to_text(self) -> str:
        """The story for people."""
        lines = [f"event {self.event_id} in {self.table}"]
        lines += [f"  {name:<20} {value}" for name, value in self.origin.row.items() if name not in (EVENT_ID, RECEIPT)]
        receipt, run = self.origin.receipt, self.origin.run
        if receipt is None:
            return "\n".join([*lines, "no receipt: this row was not loaded by Headrace"])
        chunks = receipt.spans or (receipt.address,)
        lines.append(f"brought by {chunks[0]}" if len(chunks) == 1 else "brought by one of these chunks:")
        lines += [f"  {chunk}" for chunk in chunks if len(chunks) > 1]
        lines.append(f"  committed {receipt.committed_at.isoformat()} under receipt {receipt.receipt_id}")
        if run is not None:
            lines.append(f"  run {run.run_id}, provider {run.provider}, headrace {run.version}, {run.status}")
        return "\n".join(lines)


def explain(store: Store, event_id: str, tables: Sequence[str]) -> Explanation:
    """Find the event in `tables`. Raises `StoreError` if none of them has it."""
    packed = parse_id(event_id)
    for table in tables:
        origin = store.origin(table, packed)
        if origin is not None:
            return Explanation(id_text(packed), table, origin)
    raise StoreError(
        f"no event {event_id} in {', '.join(tables) or 'this database, which has no event tables'}",
        hint="`headrace rejects list` shows rows that were kept aside; an event that was never read has no trace",
    )
