"""Opening a run in the ledger: a new run, or the unfinished run of the same job.

The job is a digest of everything that decides which rows have which address and how they are loaded: the inputs
with their content's fingerprints, the select, the contract, the chunk size and the versions that read them. Equal job
means that a receipt of the earlier run speaks about the same rows; the digest in each receipt checks it once more.

Two processes that load the same job at the same time share its run: the receipt's key decides which of them commits a
slice, and both report the books of the whole input.

Its receipts are a belief, which is checked for each slice that is skipped (`headrace.loading.skipped_slices`). If a
receipt is no longer true, the run is superseded: it is closed for good, and a new run loads its input, which the unique
key and the snapshot make safe.

The mode is not part of the job: a run begun in parallel can be finished sequentially, and the other way round. It keeps
the shape with which it began, because its receipts are about slices of that shape.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from importlib.metadata import version
from typing import Any, Self
from uuid import uuid4

from xxhash import xxh3_128_hexdigest

from headrace.errors import HeadraceError, InputError, StoreError
from headrace.events.alert_rule import AlertRule
from headrace.loading.agreement import Agreement
from headrace.loading.run_holder import holder
from headrace.loading.run_request import asked_text, left_unfinished
from headrace.options.load import LoadOptions
from headrace.options.shape import SEQUENTIAL, Shape
from headrace.reading.inputs import Input, ReadOptions
from headrace.report import Report
from headrace.storage.records import Counts, Receipt, RunRecord
from headrace.storage.store import Store
from headrace.version import __version__

__all__ = ["OpenRun", "Superseded", "inputs_key", "open_run"]


log = logging.getLogger("headrace.ledger")
LOOKED_AT = 20  # unfinished runs of a table, the newest, that may be of the same inputs


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A running run. `started` is the database server's clock; `shape` how it cuts its input; `receipts` what an
    earlier process committed, by source, first row and partition. `job` is the key under which it can be resumed,
    `supersedes` the run that it replaces, `notes` sentences for the report.
    """

    run_id: str
    started: datetime
    shape: Shape
    receipts: Mapping[tuple[str, int, int], Receipt]
    job: str | None = None
    supersedes: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Superseded:
    """A run that this process gives up, and why. `before` is the number of runs given up before it; `counts` and
    `alerts` are what all of them committed in this process.
    """

    going: OpenRun
    because: str
    before: int
    counts: Counts
    alerts: int

    @classmethod
    def by(cls, store: Store, going: OpenRun, error: HeadraceError, earlier: Superseded | None) -> Self:
        """Given up because of `error`, after `earlier`."""
        because = f"superseded: {error.where}: {error.what}"
        known = {receipt.receipt_id for receipt in going.receipts.values()}
        own = [receipt for receipt in store.ledger.receipts(going.run_id) if receipt.receipt_id not in known]
        counts, alerts = sum((receipt.counts for receipt in own), Counts()), sum(receipt.alerts for receipt in own)
        if earlier is None:
            return cls(going, because, 0, counts, alerts)
        return cls(going, because, earlier.before + 1, earlier.counts + counts, earlier.alerts + alerts)

    def added_to(self, report: Report) -> Report:
        """The `report` of the run that does the work again, as the report of the whole command: an event that this
        command inserted counts as inserted, though the second run met it in the store.
        """
        again = min(self.counts.inserted, report.duplicate_in_store)
        return replace(
            report,
            inserted=report.inserted + again,
            duplicate_in_store=report.duplicate_in_store - again,
            revised=report.revised + self.counts.revised,
            alerts=report.alerts + self.alerts,
        )

    def __str__(self) -> str:
        return f"run {self.going.run_id} is {self.because}; a new run loads the input from its beginning"


def open_run(
    store: Store,
    agreement: Agreement,
    inputs: Sequence[Input],
    options: LoadOptions,
    shape: Shape,
    workers: int,
    *,
    given_up: Superseded | None = None,
) -> OpenRun:
    """Resume the job's unfinished run if there is one (and `options.resume`), else start a new run of this `shape`.

    The run that is `given_up` is superseded by it. Another process may have done so already: then its run is joined,
    once. What is given up after that is done again by a run that nobody shares.
    """
    told = _job(agreement, inputs, options)
    durable = all(item.durable for item in inputs)
    job = None if not durable or (given_up is not None and given_up.before) else _digest(told)
    left = store.ledger.unfinished_runs(agreement.table, job, limit=LOOKED_AT) if options.resume and job else []
    earlier = next((run for run in left if run.job == job), None)
    if earlier is not None and (given_up is None or earlier.run_id != given_up.going.run_id):
        started = store.ledger.reopen_run(earlier.run_id, holder())
        receipts = {
            (r.address.source, r.address.first_row, r.partition): r for r in store.ledger.receipts(earlier.run_id)
        }
        shape = Shape.from_json(earlier.shape)
        return OpenRun(earlier.run_id, started, shape, receipts, job, earlier.supersedes)
    before, because = (None, None) if given_up is None else (given_up.going.run_id, given_up.because)
    asked = asked_text(told)
    record = _record(agreement, inputs, options, job)
    record = replace(record, asked=asked, supersedes=before, **_how(shape, workers))
    run = store.ledger.start_run(record, because=because)
    if run.started_at is None:
        raise StoreError("the database gave no start time for the run")
    said = left_unfinished(left, inputs, asked) if before is None else None
    if said is not None:
        log.warning("%s", said)
    return OpenRun(run.run_id, run.started_at, shape, {}, job, before, () if said is None else (said,))


def inputs_key(inputs: Sequence[Input], options: LoadOptions) -> str:
    """Identify the rows that these inputs give, whatever the chunk size."""
    fingerprints = sorted([item.name, item.fingerprint] for item in inputs)
    return _digest({"inputs": fingerprints, "select": options.read.select, "provider": options.provider})


def _job(agreement: Agreement, inputs: Sequence[Input], options: LoadOptions) -> dict[str, object]:
    _refuse_twice([item.name for item in inputs])
    return {
        "table": agreement.table,
        "provider": options.provider,
        # the columns that it knows grow while a run goes on: only whether it looks at them decides
        "contract": replace(agreement.contract, others=()).to_json(),
        **({"missing_id": "keep-whole-row"} if agreement.keeps_missing else {}),
        "inputs": [[item.name, item.fingerprint] for item in inputs],
        "read": _what_is_read(options.read),
        "enrich": None if options.enrichment is None else options.enrichment.name,
        "alerts": sorted(_what_is_told(rule) for rule in options.alerts),
        **_what_is_revised(options),
        "versions": [__version__, version("duckdb")],
    }


def _what_is_read(read: ReadOptions) -> dict[str, object]:
    """The options that decide which rows stand at which address; the number of threads does not."""
    settings = {field.name: getattr(read, field.name) for field in fields(read) if field.name != "threads"}
    return {**settings, "types": dict(read.types)}


def _what_is_revised(options: LoadOptions) -> dict[str, object]:
    """A slice that was committed without a look at its revisions must not be skipped by a run that asks for them."""
    return {} if options.revisions == "ignore" else {"revisions": [options.revisions, options.version_column]}


def _what_is_told(rule: AlertRule) -> list[str]:
    return [rule.name, rule.what, *(["revisions"] if rule.revisions else [])]


def _refuse_twice(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"the input {twice[0]!r} was named twice", hint="name each input once")


def _record(agreement: Agreement, inputs: Sequence[Input], options: LoadOptions, job: str | None) -> RunRecord:
    described = [_described(item, agreement, options) for item in inputs]
    return RunRecord(
        run_id=uuid4().hex,
        table=agreement.table,
        provider=options.provider,
        job=job,
        inputs_key=inputs_key(inputs, options),
        inputs=json.dumps(described, ensure_ascii=False),
        mode="sequential",
        strategy="sequential",
        workers=1,
        version=__version__,
        holder=holder(),
    )


def _how(shape: Shape, workers: int) -> dict[str, Any]:
    mode = "sequential" if shape == SEQUENTIAL else "parallel"
    return {"mode": mode, "strategy": shape.strategy, "workers": workers, "shape": shape.to_json()}


def _described(item: Input, agreement: Agreement, options: LoadOptions) -> dict[str, object]:
    """What `headrace.loading.replay` needs to read a row again as it was read: a file's own columns in their order
    (known for the inputs that were looked into), and the select.
    """
    known = {"name": item.name, "fingerprint": item.fingerprint, "size": item.size}
    columns = {"columns": agreement.columns[item.name]} if item.durable and item.name in agreement.columns else {}
    # `headrace.checking.provenance` asks for it
    version = {} if options.version_column is None else {"version_column": options.version_column}
    return {**known, **columns, **version, **({} if options.read.select is None else {"select": options.read.select})}


def _digest(value: object) -> str:
    return xxh3_128_hexdigest(json.dumps(value, sort_keys=True, default=str).encode())
