"""The trials of a load: a sample is loaded into a place of its own, which knows what the real table knows.

Trials.place ─► schema or file, with the real table's contract and the sample's events that it holds ─► dropped
Trials.load ──► the run there, recorded and metered, and the digest of the table afterwards ─► Trialled
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from headrace.loading.agreement import in_stored_timezone
from headrace.loading.run import ingest
from headrace.observability.recorder import Recorder
from headrace.observability.stages import RunFacts, StageTotal, totals_of
from headrace.options.load import LoadOptions
from headrace.profiling.costs import Costs, costs_of
from headrace.profiling.real_table import RealTable
from headrace.profiling.sample import Sample
from headrace.profiling.usage import Meter, Usage
from headrace.report import Report
from headrace.storage import open_store
from headrace.storage.digest import NOTHING, Digest
from headrace.storage.trial.gauge import Gauged, Server
from headrace.storage.trial.place import Trial, trial

__all__ = ["Trialled", "Trials"]


@dataclass(frozen=True, slots=True)
class Trialled:
    """A run of a sample: its report, what was recorded and metered, and the server's view. `on_cores` are the seconds
    on cores of this process and the server between the run's agreement and its end; `held` is the digest of what the
    trial's table holds afterwards.
    """

    report: Report
    recorded: Recorder
    usage: Usage
    server: Server
    on_cores: float
    held: Digest = NOTHING

    @property
    def start(self) -> float:
        """Seconds until a worker began to work, 0 where none did."""
        home = next((span.worker.partition("/")[0] for span in self.recorded.spans if span.stage == "agree"), "")
        first = [span.started for span in self.recorded.spans if span.worker.partition("/")[0] != home]
        if not first:
            return 0.0
        # the pool is made before the run has a clock of its own: counted back from the end
        ended = max(span.started + span.seconds for span in self.recorded.spans)
        return max(0.0, self.report.seconds - (ended - min(first)) - self.costs_agree)

    @property
    def costs_agree(self) -> float:
        """Seconds of the agreement."""
        return sum(span.seconds for span in self.recorded.spans if span.stage == "agree")

    def others(self, cores: int) -> float:
        """The number of the machine's cores that other processes kept busy meanwhile."""
        own = self.usage.cpu_seconds + (self.server.cpu_seconds or 0.0)
        used = own / self.usage.seconds if self.usage.seconds else 0.0
        return min(float(cores), max(0.0, self.usage.machine_cpu * cores - used))

    @property
    def totals(self) -> dict[str, StageTotal]:
        """The sums by stage."""
        return totals_of(self.recorded.spans)

    @property
    def share_on_a_core(self) -> float:
        """The share of the stages' time in which they computed, 0 to 1."""
        whole = [total for name, total in self.totals.items() if "." not in name]
        wall = sum(total.seconds for total in whole)
        return min(wall, sum(total.cpu_seconds for total in whole)) / wall if wall else 0.0

    @property
    def peak_bytes(self) -> int | None:
        """The most memory that coordinator and workers had together, ``None`` where that is not known."""
        return max((one.coordinator + one.workers for one in self.recorded.memory), default=None)

    def costs(self, gauged: Gauged) -> Costs:
        """The costs that the run shows, where its database is as `gauged`."""
        return costs_of(
            self.recorded.spans,
            rows=self.report.read,
            round_trip=gauged.round_trip,
            processor=self.on_cores,
            one_writer=gauged.writers == 1,
        )


class Trials:
    """Loads for the table `real`, but into places of their own."""

    def __init__(self, options: LoadOptions, real: RealTable) -> None:
        self._options = options
        self._real = real

    @contextmanager
    def place(self, known: Sequence[bytes]) -> Iterator[Trial]:
        """A place in which the table has those of the real one's events whose packed IDs are `known`."""
        with trial(self._options.to) as place:
            with open_store(place.url) as store:
                store.ledger.prepare()
                if self._real.exists:
                    place.seed(self._real.name, known)
                    if self._real.contract is not None:
                        store.ledger.pin_contract(self._real.name, self._real.contract.to_json())
            yield place

    def load(self, place: Trial, sample: Sample, workers: int | None = None) -> Trialled:
        """Load `sample` into `place`, sequentially or with `workers`."""
        done = self._measured(place.url, place.name, sample, workers)
        with open_store(place.url) as store:
            blocks = store.events.fetch_ids(self._real.name)
            return replace(done, held=sum(map(Digest.of_packed, blocks), NOTHING))

    def load_in_place(self, sample: Sample) -> Trialled:
        """Load `sample` into the real table, sequentially."""
        return self._measured(self._options.to, "headrace", sample, None)

    def _measured(self, url: str, name: str, sample: Sample, workers: int | None) -> Trialled:
        how = self._options.parallel if workers is None else replace(self._options.parallel, workers=workers)
        options = replace(
            self._options,
            to=url,
            table=self._real.name,
            resume=False,
            mode="sequential" if workers is None else "parallel",
            parallel=how,
            # a sample ends with a chunk, which must be the same one in both modes
            read=replace(self._options.read, even=not sample.is_everything),
        )
        with open_store(url) as store:
            store.ledger.prepare()
            settled = in_stored_timezone(store, self._real.name, options)
            server, meter = Server(url, name), Meter()
            recorder = _Watched(server)
            with recorder, server, meter:
                report = ingest(store, sample.inputs(), self._real.name, settled, listener=recorder)
        return Trialled(report, recorder, meter.usage, server, recorder.on_cores)


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
