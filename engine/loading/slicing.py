"""From a chunk to its slices: which partitions are committed, which of them an earlier process committed, and the
orders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from headrace.errors import StaleReceiptsError
from headrace.events.alert_judge import Alerting
from headrace.events.revisions import revisions_for
from headrace.execution.orders import CommitOrder
from headrace.loading.agreement import Agreement
from headrace.loading.met_chunk import MetChunk
from headrace.loading.open_run import OpenRun
from headrace.options.load import LoadOptions
from headrace.storage.locks import lock_keys
from headrace.storage.records import Receipt, Slice
from headrace.storage.rejects import StoredReject

__all__ = ["Slicing", "alerting", "may_reject"]

NO_RESUME = "load it as a new run with --no-resume; events already loaded will be found again as duplicates"
NO_EVENTS = pa.RecordBatch.from_arrays([], names=[])


@dataclass(frozen=True, slots=True)
class Slicing:
    """How the chunks of the run `going` are cut into slices."""

    going: OpenRun
    options: LoadOptions
    replayed: Mapping[int, StoredReject]
    """Rejects by the number of the row that replays them: the slice that carries the row settles its reject."""
    _matched: set[tuple[str, int, int]] = field(default_factory=set)

    def receipts(self, chunk: MetChunk) -> dict[int, Receipt | None]:
        """The partitions that have rows, each with the receipt of an earlier process of this run, if that committed
        the slice. A chunk without any row still leaves a receipt, for the rows that were read.

        Raises `StaleReceiptsError` if that slice had another content: the file has changed, or the select
        returns its rows in no fixed order, or new columns of the table have changed the slices.
        """
        every = range(self.going.shape.partitions)
        filled = [partition for partition in every if chunk.rows(partition) or chunk.rejects(partition)] or [0]
        return {partition: self._receipt(chunk, partition) for partition in filled}

    def _receipt(self, chunk: MetChunk, partition: int) -> Receipt | None:
        address = chunk.address
        key = (address.source, address.first_row, partition)
        receipt = self.going.receipts.get(key)
        if receipt is not None and receipt.digest != chunk.digest(partition):
            raise StaleReceiptsError(
                "the slice that begins there has other rows than when the run began", where=str(address), hint=NO_RESUME
            )
        if receipt is not None:
            self._matched.add(key)
        return receipt

    def require_all_matched(self) -> None:
        """At the end: raises `StaleReceiptsError` if a receipt is of a slice that the input does not have."""
        strange = set(self.going.receipts) - self._matched
        if strange:
            address = self.going.receipts[min(strange)].address
            raise StaleReceiptsError(
                "the input no longer has a slice there: it was cut differently when the run began",
                where=str(address),
                hint=NO_RESUME,
            )

    def order(self, chunk: MetChunk, partition: int, agreement: Agreement) -> CommitOrder:
        """The order that commits one partition of `chunk`, and with it settles the rejects that its rows replay."""
        shape, options = self.going.shape, self.options
        locked = shape.strategy == "locked"
        existing = shape.existing
        piece = Slice(
            run_id=self.going.run_id,
            table=agreement.table,
            provider=options.provider,
            address=chunk.address,
            partition=partition,
            digest=chunk.digest(partition),
            events=NO_EVENTS,
            existing="conflict" if existing == "snapshot" and not chunk.certain else existing,
            counts=chunk.counts(partition),
            rejects=chunk.rejects(partition),
            replayed={number: self.replayed[number] for number in (chunk.numbers(partition) if self.replayed else ())},
            locks=lock_keys(agreement.table, partition, shape.partitions) if locked else (),
            lock_timeout=options.parallel.lock_timeout,
        )
        revisions = revisions_for(options.revisions, options.version_column, agreement.schema, agreement.contract)
        return CommitOrder(
            piece,
            chunk.new_rows(partition),
            options.to,
            options.enrichment,
            options.parallel.locks if locked else None,
            alerting(options, agreement),
            revisions,
            chunk.repeats(partition) if revisions else None,
            chunk.spares(partition) if may_reject(options) else None,
        )


def may_reject(options: LoadOptions) -> bool:
    """Whether the user's code may turn an event into a reject, after its other rows were taken for duplicates."""
    enrich = options.enrichment is not None and options.enrichment.on_error == "reject"
    return enrich or (bool(options.alerts) and options.on_error == "reject")


def alerting(options: LoadOptions, agreement: Agreement) -> Alerting | None:
    """The rules over the columns of the table, if there are rules."""
    rules = options.alerts
    return Alerting(rules, agreement.schema, options.on_error, options.version_column) if rules else None
