"""``headrace explain``: an event's history, or why it is not in the table.

    in the table ──► its receipt: who brought it first ──► its inputs read again: who repeated it, and when not there
    ──► is it an ID of Headrace? in another table? among the rejects? in the inputs, and which runs read them?

Without the inputs, the runs that repeated it can only be narrowed down: the ledger counts duplicates, but does not list
them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.checking.occurrences import Occurrence, Reading, occurrences, receipts_with_duplicates, rejects_of
from headrace.errors import ContractError
from headrace.loading.agreement import stored_contract
from headrace.loading.ownership import others_events, told_of_others
from headrace.options.load import LoadOptions
from headrace.partitioning.identity import NULL_TIME_US, id_text, parse_id
from headrace.reading.inputs import Input
from headrace.storage.outbox import StoredAlert
from headrace.storage.records import EVENT_ID, PROVIDER, RECEIPT, Origin
from headrace.storage.rejects import StoredReject
from headrace.storage.store import Store

__all__ = ["Explanation", "Given", "explain"]

SHOWN = 5
Given = Callable[[str], tuple[Sequence[Input], LoadOptions]]
"""The inputs that were named, opened for a table, and how they are read."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Explanation:
    """An event's row in `table` and where it came from; `origin` is ``None`` if it is not there, and `why` says why.

    `occurrences` are its rows in the inputs that were named, in that order; without any, `suspects` are the receipts
    whose duplicates may include it.
    """

    event_id: str
    table: str
    origin: Origin | None
    occurrences: Sequence[Occurrence] = ()
    suspects: Sequence[Reading] = ()
    rejects: Sequence[StoredReject] = ()
    alerts: Sequence[StoredAlert] = ()
    why: Sequence[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON: the event, and the address, receipt and run behind it (null if not ours)."""
        row = {} if self.origin is None else self.origin.row
        receipt, run = (None, None) if self.origin is None else (self.origin.receipt, self.origin.run)
        return {
            "event_id": self.event_id,
            "table": self.table,
            "found": self.origin is not None,
            "event": self.origin and {name: row[name] for name in row if name not in (EVENT_ID, RECEIPT)},
            "source": receipt and receipt.address.source,
            "first_row": receipt and receipt.address.first_row,
            "rows": receipt and receipt.address.rows,
            "partition": receipt and receipt.partition,
            "chunks": receipt and [str(chunk) for chunk in receipt.chunks],
            "receipt": receipt and receipt.receipt_id,
            "committed_at": receipt and receipt.committed_at.isoformat(),
            "run_id": run and run.run_id,
            "run_started_at": run and run.started_at and run.started_at.isoformat(),
            "headrace_version": run and run.version,
            "occurrences": [
                {**row.place.to_dict(), "readings": [self._reading(row, reading) for reading in row.readings]}
                for row in self.occurrences
            ],
            "may_have_repeated": [_reading_object(reading) for reading in self.suspects],
            "rejects": [reject.reject_id for reject in self.rejects],
            "alerts": [
                {
                    "alert_id": alert.alert_id,
                    "rule": alert.rule,
                    "state": alert.state,
                    "raised_at": alert.created_at.isoformat(),
                }
                for alert in self.alerts
            ],
            "why_not": list(self.why),
        }

    def to_text(self) -> str:
        """The story for people."""
        if self.origin is None:
            lines = [f"event {self.event_id} is not in {self.table}"]
            return "\n".join([*lines, *(f"  {one}" for one in self.why), *self._repeats(), *self._raised()])
        lines = [f"event {self.event_id} in {self.table}"]
        row = self.origin.row
        lines += [f"  {name:<20} {row[name]}" for name in row if name not in (EVENT_ID, RECEIPT)]
        return "\n".join([*lines, *_brought(self.origin), *self._raised(), *self._repeats(), *self._suspected()])

    def _repeats(self) -> list[str]:
        lines = []
        for occurrence in self.occurrences:
            lines.append(f"stands in {occurrence.place}")
            lines += [f"  {self._what(occurrence, reading)} {_when(reading)}" for reading in occurrence.readings]
            if not occurrence.readings:
                lines.append("  no run has read this input into the table")
        return lines

    def _raised(self) -> list[str]:
        return [
            f"raised alert {alert.alert_id} by rule {alert.rule} at {alert.created_at.isoformat()}: {alert.state}"
            for alert in self.alerts
        ]

    def _suspected(self) -> list[str]:
        if not self.suspects:
            return []
        lines = ["may have been repeated by (name the inputs with --in to be sure):"]
        lines += [f"  {_counted(reading)} {_when(reading)}" for reading in self.suspects[:SHOWN]]
        more = len(self.suspects) - SHOWN
        return lines + ([f"  and {more} more receipts"] if more > 0 else [])

    def _reading(self, occurrence: Occurrence, reading: Reading) -> dict[str, object]:
        return {"what": self._what(occurrence, reading), **_reading_object(reading)}

    def _what(self, occurrence: Occurrence, reading: Reading) -> str:
        """Whether this row, in this run, brought the event, repeated it, or was never reached."""
        if reading.receipt is None:
            return "not reached"
        if self.origin is None:
            return "read"
        brought = self.origin.receipt is not None and reading.receipt.receipt_id == self.origin.receipt.receipt_id
        first = next((earlier for earlier in self.occurrences if _has(earlier, reading.receipt.receipt_id)), occurrence)
        return "brought it" if brought and first is occurrence else "repeated it"


def explain(
    store: Store, event_id: str, tables: Sequence[str], options: LoadOptions, given: Given | None = None
) -> list[Explanation]:
    """Explain an event: its history in each of `tables` that has it; if none has it, the reason for each table. `given`
    opens the inputs that are searched. Raises `UsageError` if `event_id` is not an ID.
    """
    packed = parse_id(event_id)
    origins = {table: store.origin(table, packed) for table in tables}
    holders = [table for table in tables if origins[table] is not None]
    told = []
    for table in holders or tables:
        origin = origins[table]
        rows = [] if given is None else _occurrences(store, table, packed, origin, given)
        told.append(
            _absent(store, table, packed, options, rows)
            if origin is None
            else _present(store, table, packed, origin, rows, asked=given is not None)
        )
    alerts = store.outbox.of_event(packed) if told else []
    return [
        replace(explanation, alerts=[alert for alert in alerts if alert.table == explanation.table])
        for explanation in told
    ]


def _occurrences(store: Store, table: str, packed: bytes, origin: Origin | None, given: Given) -> list[Occurrence]:
    """Where the event stands in the inputs: under the provider whose event the table says it is, if it is there."""
    inputs, options = given(table)
    if origin is not None and origin.row.get(PROVIDER):
        options = replace(options, provider=str(origin.row[PROVIDER]))
    return occurrences(store, table, packed, inputs, options)


def _present(
    store: Store, table: str, packed: bytes, origin: Origin, rows: Sequence[Occurrence], *, asked: bool
) -> Explanation:
    receipt = origin.receipt
    suspects = [] if asked or receipt is None else receipts_with_duplicates(store, table, packed, receipt)
    return Explanation(id_text(packed), table, origin, rows, suspects)


def _absent(store: Store, table: str, packed: bytes, options: LoadOptions, rows: Sequence[Occurrence]) -> Explanation:
    rejects, unidentified = rejects_of(store, table, packed, options)
    why = [*_elsewhere(store, table, packed)]
    why += [
        f"kept as reject {reject.reject_id} ({reject.state}), {_at(reject)}: {reject.reject.reason}"
        for reject in rejects
    ]
    why += _read_but_gone(rows, rejects)
    if others := _of_others(store, table, options):
        why.append(f"{told_of_others(options.provider, others)}: name the provider with --provider")
    if not why:
        why.append("there is no trace of it: it was never read under this contract and provider, or it was deleted")
        why.append(
            "`headrace explain … --in INPUT` searches inputs for it, `headrace verify INPUT` names missing events"
        )
    if unidentified and not rejects:
        why.append(f"{unidentified:,} rejects cannot be identified; it may be one of them: `headrace rejects list`")
    return Explanation(
        id_text(packed), table, None, rows, rejects=rejects, why=[*_told_by_itself(packed, store, table), *why]
    )


def _of_others(store: Store, table: str, options: LoadOptions) -> Mapping[str, int]:
    try:
        return others_events(store, table, stored_contract(store, table), options.provider)
    except ContractError:
        return {}


def _told_by_itself(packed: bytes, store: Store, table: str) -> list[str]:
    """What the ID alone says: whether it is one of ours, and when its event would have happened."""
    if packed[6] >> 4 != 8 or packed[8] >> 6 != 2:  # noqa: PLR2004 - version and variant of a UUIDv8
        return ["it is not an ID of Headrace: those are UUIDs of version 8"]
    try:
        contract = stored_contract(store, table)
    except ContractError:
        return []
    if contract.layout != "time":
        return []
    since = int.from_bytes(packed[:6], "big") * 1000 + NULL_TIME_US
    try:
        moment = _EPOCH + timedelta(microseconds=since)
    except OverflowError:
        return ["its event time would be beyond the year 9999"]
    return [f"its event time would be {moment.isoformat(timespec='milliseconds')}"]


def _elsewhere(store: Store, table: str, packed: bytes) -> list[str]:
    others = (other for other in store.ledger.tables() if other != table)
    return [
        f"it is in the table {other}" for other in others if store.tables.schema(other) and store.origin(other, packed)
    ]


def _read_but_gone(rows: Sequence[Occurrence], rejects: Sequence[StoredReject]) -> list[str]:
    """What the runs over the inputs in which it stands allow to conclude."""
    if not rows:
        return []
    readings = [reading for row in rows for reading in row.readings]
    committed = [reading for reading in readings if reading.receipt is not None]
    if committed and rejects:
        return []
    if committed:
        return [f"it was loaded, and deleted since: a receipt covers its row {_when(committed[-1])}"]
    if readings:
        last = readings[-1].run
        return [f"its input was not loaded to the end: run {last.run_id[:8]} is {last.status}; load it again to resume"]
    return ["its input was never loaded into this table"]


def _brought(origin: Origin) -> list[str]:
    receipt, run = origin.receipt, origin.run
    if receipt is None:
        return ["no receipt: this row was not loaded by Headrace"]
    chunks = receipt.chunks
    lines = [f"brought by {chunks[0]}" if len(chunks) == 1 else "brought by one of these chunks:"]
    lines += [f"  {chunk}" for chunk in chunks if len(chunks) > 1]
    lines.append(f"  committed {receipt.committed_at.isoformat()} under receipt {receipt.receipt_id}")
    if run is not None:
        lines.append(f"  run {run.run_id}, provider {run.provider}, headrace {run.version}, {run.status}")
    return lines


def _when(reading: Reading) -> str:
    run = reading.run
    if reading.receipt is None:
        return f"by run {run.run_id[:8]} ({run.status})"
    at = reading.receipt.committed_at.isoformat(timespec="seconds")
    return f"at {at}, run {run.run_id[:8]}, receipt {reading.receipt.receipt_id}"


def _counted(reading: Reading) -> str:
    if reading.receipt is None:
        return ""
    counts = reading.receipt.counts
    return f"{counts.duplicate_in_input + counts.duplicate_in_store:,} duplicates in {reading.receipt.chunks[0]}"


def _reading_object(reading: Reading) -> dict[str, Any]:
    receipt = reading.receipt
    return {
        "run_id": reading.run.run_id,
        "run_status": reading.run.status,
        "receipt": receipt and receipt.receipt_id,
        "committed_at": receipt and receipt.committed_at.isoformat(),
        "chunks": receipt and [str(chunk) for chunk in receipt.chunks],
    }


def _has(occurrence: Occurrence, receipt_id: int) -> bool:
    return any(
        reading.receipt is not None and reading.receipt.receipt_id == receipt_id for reading in occurrence.readings
    )


def _at(stored: StoredReject) -> str:
    reject = stored.reject
    line = "" if reject.line is None else f", line {reject.line}"
    return f"{reject.source}{line if reject.line is not None or reject.row is None else f', row {reject.row}'}"
