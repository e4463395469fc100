"""``headrace profile``: a sample is loaded both ways in a trial database and measured; the advice follows.

    sample ─► trial 1: sequential, measured ─► the four criteria's evidence ─┐
              gauge the database there                                      ├─► verdict ─► Profile
              trial 2: parallel, with the workers that the model prefers ────┘
    --check   the whole input, both ways, in trials of their own ─► what came of the prediction

`headrace.profiling.trials` measures, `headrace.profiling.model` decides. The real table is only read
(`headrace.profiling.real_table`), unless the sequential run is `in_place`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headrace.execution.fork_server import await_ready
from headrace.loading.intake import first_rows
from headrace.options.load import LoadOptions, cores, table_from_inputs
from headrace.options.shape import SEQUENTIAL
from headrace.profiling.criteria import Criterion, examine_processor, examine_tables, examine_trial
from headrace.profiling.model import CANDIDATES, Machine, best_workers, judge
from headrace.profiling.profile_result import Checked, Profile
from headrace.profiling.real_table import RealTable
from headrace.profiling.sample import Sample
from headrace.profiling.trials import Trialled, Trials
from headrace.reading.inputs import open_inputs
from headrace.runtime.scratch import scratch_folder
from headrace.storage import safe_url
from headrace.storage.trial.gauge import Gauged, gauge

__all__ = ["profile"]


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
    with scratch_folder() as folder:
        real = RealTable.look(options, options.table or table_from_inputs(inputs))
        options = real.in_its_timezone(options)
        items = open_inputs(inputs, options.read, folder)
        profiling = _Profiling(options, real, CANDIDATES if workers is None else (workers,))
        found = profiling.of_sample(Sample(items, rows), in_place=in_place)
        if not check:
            return found
        return replace(found, checked=profiling.checked(Sample(items, 0), found.verdict.candidate.workers))


class _Profiling:
    """One profile: the load, the real table, the numbers of workers to consider."""

    def __init__(self, options: LoadOptions, real: RealTable, candidates: Sequence[int]) -> None:
        self._options = options
        self._real = real
        self._candidates = candidates
        self._trials = Trials(options, real)

    def of_sample(self, sample: Sample, *, in_place: bool) -> Profile:
        """Try `sample` both ways, and judge from that."""
        known = list(self._real.known(sample.inputs(), self._options))
        if self._options.parallel.executor is None:
            await_ready()  # or its imports take a core from the run that is measured first
        sequential, gauged, criteria = self._sequentially(sample, known, in_place=in_place)
        total, chunk_rows = sample.total or sequential.report.read, self._options.read.chunk_rows
        alone = sequential.costs(gauged)
        machine = Machine(cores(), 0.0, gauged.scaling, gauged.writers, sequential.others(cores()))
        ranges = self._options.parallel.executor is None and sample.has_ranges(self._options.read)
        spread = alone.read_by_workers() if ranges else alone
        workers = best_workers(spread, machine, total, chunk_rows, self._candidates)
        parallel = self._in_its_own_place(sample, known, workers)
        machine = replace(machine, start=parallel.start)
        verdict = judge(
            alone,
            machine,
            rows=total,
            chunk_rows=chunk_rows,
            sequential_sample=sequential.report.seconds,
            parallel_costs=parallel.costs(gauged).with_workers(workers, alone),
            parallel_sample=parallel.report.seconds - parallel.costs_agree + alone.agree,
            workers=workers,
            first_rows=first_rows(self._options.read, SEQUENTIAL),
            ranges=ranges,
        )
        return Profile(
            table=self._real.name,
            database=safe_url(self._options.to),
            sequential=sequential,
            parallel=parallel,
            gauged=gauged,
            machine=machine,
            costs=alone,
            criteria=[
                *criteria,
                examine_processor(sequential, workers, verdict.amdahl.get(workers, 1.0)),
                examine_tables(sequential, parallel, workers),
            ],
            verdict=verdict,
            strategy=self._options.parallel.strategy,
        )

    def checked(self, everything: Sample, workers: int) -> Checked:
        """The whole input, both ways, in places of their own."""
        known = list(self._real.known(everything.inputs(), self._options))
        alone = self._in_its_own_place(everything, known, None)
        together = self._in_its_own_place(everything, known, workers)
        return Checked(alone.report.seconds, together.report.seconds, equal=alone.held == together.held)

    def _sequentially(
        self, sample: Sample, known: Sequence[bytes], *, in_place: bool
    ) -> tuple[Trialled, Gauged, list[Criterion]]:
        """The sequential run, and all that is asked of the place where it was."""
        with self._trials.place(known) as place:
            really = self._trials.load_in_place(sample) if in_place else None
            tried = self._trials.load(place, sample)
            criteria = examine_trial(place, self._real, sample, self._options)
            done = tried if really is None else replace(really, held=tried.held)
            return done, gauge(place.url, self._real.name), criteria

    def _in_its_own_place(self, sample: Sample, known: Sequence[bytes], workers: int | None) -> Trialled:
        with self._trials.place(known) as place:
            return self._trials.load(place, sample, workers)
