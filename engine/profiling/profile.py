"""``headrace profile``: a sample is loaded both ways in a trial database and measured; the advice follows.

    sample ─► trial 1: sequential, measured ─► the four criteria's evidence ─┐
              gauge the database there                                      ├─► verdict ─► Profile
              trial 2: parallel, with the workers that the model prefers ────┘
    --check   the whole input, both ways, in trials of their own ─► what came of the prediction

The real table is only read (for the sample's events that it holds), unless the sequential run is `in_place`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

from headrace.checking.rereading import identified
from headrace.errors import StoreError
from headrace.execution.fork_server import await_ready
from headrace.loading.agreement import in_stored_timezone, stored_contract
from headrace.loading.contract_drift import require_pinned_types
from headrace.loading.database import is_there
from headrace.loading.intake import first_rows
from headrace.loading.ownership import require_own_events
from headrace.loading.run import ingest
from headrace.observability.recorder import Recorder
from headrace.observability.stages import RunFacts
from headrace.options.load import LoadOptions, table_from_inputs
from headrace.options.shape import SEQUENTIAL
from headrace.partitioning.contract import Contract
from headrace.profiling.costs import Costs, costs_of, split, totals_of
from headrace.profiling.criteria import Criterion, examine_ids, examine_key
from headrace.profiling.model import CANDIDATES, Advice, Machine, best_workers, judge
from headrace.profiling.profile_result import Checked, Profile, Trialled
from headrace.profiling.sample import Sample
from headrace.profiling.usage import Meter, cores
from headrace.reading.inputs import Input, open_inputs
from headrace.report import Report
from headrace.runtime.scratch import scratch_folder
from headrace.storage import open_store, safe_url
from headrace.storage.digest import Digest
from headrace.storage.store import Store
from headrace.storage.trial.gauge import Gauged, Server, gauge
from headrace.storage.trial.place import Trial, trial

__all__ = ["profile"]

IDS_IN_A_BLOCK = 50_000
MOSTLY = 0.5


def profile(
    options: LoadOptions,
    inputs: Sequence[object],
    *,
    rows: int,
    workers: int | None = None,
    in_place: bool = False,
    check: bool = False,
) -> Profile:
    """Profile the load of `inputs` by a sample of about `rows` rows (0: all of them).

    `workers` fixes the number of workers that the verdict considers. Raises `HeadraceError`.
    """
    if options.enrichment is not None:
        options.enrichment.resolve()
    with ExitStack() as opened:
        folder = opened.enter_context(scratch_folder())
        table = options.table or table_from_inputs(inputs)
        real = _RealTable.look(options, table)
        options = opened.enter_context(_settled(options, real))
        items = open_inputs(inputs, options.read, folder)
        profiling = _Profiling(options, table, items, real, rows, workers, in_place=in_place)
        return profiling.carried_out(check=check)


@dataclass(frozen=True, slots=True)
class _RealTable:
    """The table that the load is for, if it is there: its URL, its stored contract (JSON), if it has one."""

    url: str
    contract: str | None

    @classmethod
    def look(cls, options: LoadOptions, table: str) -> _RealTable | None:
        """Raises `SchemaError` for a table without its unique key, or whose types are not the contract's any more."""
        if not is_there(options.to):
            return None
        with open_store(options.to) as store:
            present = store.tables.schema(table)
            if present is None:
                return None
            contract = None
            with suppress(StoreError):  # a table of the user's own, and no ledger yet
                contract = store.ledger.pinned_contract(table)
            if contract is not None:
                require_pinned_types(table, Contract.from_json(contract), present)
                require_own_events(store, table, Contract.from_json(contract), options)
            return cls(options.to, contract)


@contextmanager
def _settled(options: LoadOptions, real: _RealTable | None) -> Iterator[LoadOptions]:
    """The options with the time zone of the stored contract."""
    if real is not None and real.contract is not None and options.timezone is None:
        zone = Contract.from_json(real.contract).timezone
        options = replace(options, read=replace(options.read, timezone=zone))
    yield options


class _Profiling:
    """One profile, and what its steps hand on."""

    def __init__(
        self,
        options: LoadOptions,
        table: str,
        items: Sequence[Input],
        real: _RealTable | None,
        rows: int,
        workers: int | None,
        *,
        in_place: bool,
    ) -> None:
        self._options = options
        self._table = table
        self._real = real
        self._items = items
        self._sample = Sample(items, rows)
        self._workers = workers
        self._in_place = in_place

    def carried_out(self, *, check: bool) -> Profile:
        """All steps."""
        known = list(self._known(self._sample.inputs()))
        if self._options.parallel.executor is None:
            await_ready()  # or its imports take a core from the run that is measured first
        sequential, gauged, criteria, digest = self._sequentially(known)
        total = self._sample.total or sequential.report.read
        alone = self._costs(sequential, gauged)
        machine = Machine(cores(), 0.0, gauged.scaling, gauged.writers, sequential.others(cores()))
        candidates = CANDIDATES if self._workers is None else (self._workers,)
        workers = best_workers(alone, machine, total, self._options.read.chunk_rows, candidates)
        parallel, theirs = self._trialled(self._sample, known, workers)
        started = replace(machine, start=parallel.start)
        verdict = judge(
            alone,
            started,
            rows=total,
            chunk_rows=self._options.read.chunk_rows,
            sequential_sample=sequential.report.seconds,
            parallel_costs=self._shared(parallel, gauged, alone, workers),
            parallel_sample=parallel.report.seconds - parallel.costs_agree + alone.agree,
            workers=workers,
            first_rows=first_rows(self._options.read, SEQUENTIAL),
        )
        same = digest == theirs and _books(sequential.report) == _books(parallel.report)
        criteria += [_processor(sequential, verdict), _equal(same, digest, workers)]
        found = Profile(
            table=self._table,
            database=safe_url(self._options.to),
            sequential=sequential,
            parallel=parallel,
            gauged=gauged,
            machine=started,
            groups=split(totals_of(sequential.recorded.spans)),
            costs=alone,
            criteria=criteria,
            verdict=verdict,
            strategy=self._options.parallel.strategy,
        )
        return replace(found, checked=self._checked(verdict)) if check else found

    def _known(self, inputs: Sequence[Input]) -> Iterator[bytes]:
        """The inputs' IDs under the stored contract, in packed blocks; nothing where the real table is not there."""
        if self._real is None or self._real.contract is None:
            return
        contract = Contract.from_json(self._real.contract)
        with open_store(self._real.url) as store:
            for prepared in identified(store, self._table, contract, inputs, self._options):
                for start in range(0, len(prepared.ids), IDS_IN_A_BLOCK):
                    yield prepared.ids[start : start + IDS_IN_A_BLOCK].tobytes()

    def _sequentially(self, known: list[bytes]) -> tuple[Trialled, Gauged, list[Criterion], Digest]:
        """The sequential run, and all that is asked of the place where it was."""
        with self._place(known) as place:
            if self._in_place:
                done = self._run(self._options.to, "headrace", self._sample, None)
                self._run(place.url, place.name, self._sample, None)  # the place that is looked into
            else:
                done = self._run(place.url, place.name, self._sample, None)
            with open_store(place.url) as store:
                contract = stored_contract(store, self._table)
                criteria = [
                    examine_key(place.url, self._table, exists=self._real is not None),
                    examine_ids(store, self._table, contract, self._sample, self._options),
                ]
                digest = _digest(store, self._table)
            return done, gauge(place.url, self._table), criteria, digest

    def _trialled(self, sample: Sample, known: list[bytes], workers: int | None) -> tuple[Trialled, Digest]:
        """A run in a place of its own, and the digest of what the table holds then."""
        with self._place(known) as place:
            done = self._run(place.url, place.name, sample, workers)
            with open_store(place.url) as store:
                return done, _digest(store, self._table)

    @contextmanager
    def _place(self, known: list[bytes]) -> Iterator[Trial]:
        """A place in which the table knows what the real one knows of the input."""
        with trial(self._options.to) as place:
            with open_store(place.url) as store:
                store.ledger.prepare()
                if self._real is not None:
                    place.seed(self._table, known)
                    if self._real.contract is not None:
                        store.ledger.pin_contract(self._table, self._real.contract)
            yield place

    def _run(self, url: str, name: str, sample: Sample, workers: int | None) -> Trialled:
        """Load the sample into `url`, sequentially or with `workers`, and measure."""
        how = self._options.parallel if workers is None else replace(self._options.parallel, workers=workers)
        options = replace(
            self._options, to=url, resume=False, mode="sequential" if workers is None else "parallel", parallel=how
        )
        # a sample ends with a chunk, which must be the same one in both modes
        options = replace(options, table=self._table, read=replace(options.read, even=not sample.is_everything))
        with open_store(url) as store:
            store.ledger.prepare()
            settled = in_stored_timezone(store, self._table, options)
            server, meter = Server(url, name), Meter()
            recorder = _Watched(server)
            with recorder, server, meter:
                report = ingest(store, sample.inputs(), self._table, settled, listener=recorder)
        return Trialled(report, recorder, meter.usage, server, recorder.on_cores)

    def _costs(self, done: Trialled, gauged: Gauged) -> Costs:
        return costs_of(
            done.recorded.spans,
            rows=done.report.read,
            round_trip=gauged.round_trip,
            processor=done.on_cores,
            one_writer=gauged.writers == 1,
        )

    def _shared(self, done: Trialled, gauged: Gauged, alone: Costs, workers: int) -> Costs:
        """What the parallel run cost. Where its workers had but a chunk each, they were all new to it: then what they
        do costs what it cost sequentially.
        """
        found = self._costs(done, gauged)
        if found.chunks < 2 * workers:
            return replace(alone, reader=found.reader, decider=found.decider)
        return replace(found, processor=alone.processor, agree=alone.agree)

    def _checked(self, verdict: Advice) -> Checked:
        """The whole input, both ways, in places of their own."""
        everything = Sample(self._items, 0)
        known = list(self._known(everything.inputs()))
        alone, own = self._trialled(everything, known, None)
        together, theirs = self._trialled(everything, known, verdict.candidate.workers)
        return Checked(alone.report.seconds, together.report.seconds, equal=own == theirs)


class _Watched(Recorder):
    """A recorder that measures the seconds on cores, the server's too, between the run's agreement and its end: what
    comes before every run has once, and no row costs it.
    """

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self.on_cores = 0.0

    def began(self, run: RunFacts) -> None:
        """Keep the run's facts."""
        super().began(run)
        self._server.look()
        self._served = self._server.cpu_seconds or 0.0
        self._used = time.process_time()

    def ended(self, report: Report) -> None:
        """Keep the books; the run's sessions are still there."""
        super().ended(report)
        self.on_cores = time.process_time() - self._used
        self._server.look()
        self.on_cores += (self._server.cpu_seconds or 0.0) - self._served


def _digest(store: Store, table: str) -> Digest:
    found = Digest()
    for packed in store.events.fetch_ids(table):
        found += Digest.of_packed(packed)
    return found


def _books(report: Report) -> tuple[int, ...]:
    return (
        report.read,
        report.inserted,
        report.duplicate_in_input,
        report.duplicate_in_store,
        report.rejected,
    )


def _processor(done: Trialled, verdict: Advice) -> Criterion:
    spans = totals_of(done.recorded.spans)
    outer = [total for name, total in spans.items() if "." not in name]
    wall = sum(total.seconds for total in outer)
    on_a_core = min(wall, sum(total.cpu_seconds for total in outer))
    share = on_a_core / wall if wall else 0.0
    workers = verdict.candidate.workers
    return Criterion(
        "the CPU is the bottleneck, and its work can be shared",
        share >= MOSTLY,
        f"{share:.0%} of the stages' time is spent on a core; "
        f"Amdahl's bound for {workers} workers is {verdict.amdahl.get(workers, 1.0):.2f}",
    )


def _equal(same: bool, digest: Digest, workers: int) -> Criterion:
    whole = digest.whole
    told = f"{whole.count:,} events, digest {whole.xor:032x}"[:60]
    how = f"sequentially and with {workers} workers"
    return Criterion(
        "sequential and parallel give the same table",
        same,
        f"{how}: {told} and the same books" if same else f"{how} the digests or the books differ",
    )
