"""What a load's stages cost, from its measurements: the numbers that the verdict is made of. Pure.

    stage totals of a run ─► Costs: seconds by whom they keep busy or waiting
                             reader        read, spool            one thread of the coordinator
                             decider       decide, snapshot       its main thread
                             worker        prepare, gather, enrich, alerts, commit: any number of workers
                             each commit   its round trips, whatever the rows

What a stage waits for counts like what it computes: both keep the one who does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from headrace.observability.stages import StageTotal, totals_of
from headrace.storage.spans import Span

__all__ = ["Costs", "Group", "costs_from", "costs_of", "round_trips", "split"]

READER = ("read", "spool")
DECIDER = ("decide", "snapshot")
PREPARING = ("prepare",)
CARRYING = ("gather", "enrich", "alerts", "commit")
DATABASE = ("commit.copy", "commit.aside", "commit.conflict", "commit.query", "commit.insert", "commit.alerts")
FOR_EACH_COMMIT = ("commit.begin", "commit.receipt", "commit.commit")
ROUND_TRIPS = ("commit.receipt", "commit.commit")  # one each; BEGIN goes out with the receipt
ROUND_TRIPS_OF_COPY = 2


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds, for each row unless said otherwise.

    `reader` and `decider` block the coordinator, `prepare` and `carry` (gather, enrich, alerts, the part of a commit
    that grows with its rows) a worker; `gather` is that part of `carry` which sequential mode does in a thread of its
    own; `commit` is what each commit takes besides, and `agree` what each run takes.
    `database` is the part of `carry` in which the database works; `processor` is time on a core of this machine, by all
    who work for the load, the database's processes included where they are on this machine.
    """

    rows: int
    chunks: int
    agree: float
    reader: float
    decider: float
    prepare: float
    carry: float
    commit: float
    database: float
    processor: float
    gather: float = 0.0

    @property
    def worker(self) -> float:
        """What a row costs a worker."""
        return self.prepare + self.carry

    def read_by_workers(self) -> Costs:
        """These costs where the workers read what the coordinator has read for a part of the input."""
        return replace(self, reader=0.0, prepare=self.prepare + self.reader)

    def with_workers(self, workers: int, alone: Costs) -> Costs:
        """These costs of a run with `workers`, corrected by those of the sequential run `alone`. Where its workers had
        but a chunk each, they were all new to it: then what they do costs what it cost sequentially.
        """
        if self.chunks < 2 * workers:
            return replace(alone, reader=self.reader, decider=self.decider)
        return replace(self, processor=alone.processor, agree=alone.agree)


def costs_of(
    spans: Sequence[Span], *, rows: int, round_trip: float, processor: float, one_writer: bool = False
) -> Costs:
    """The costs that a run's spans show; `processor` are its seconds on cores, `round_trip` those to the database and
    back. With `one_writer` a whole transaction, once it has begun, is the database's work.

    What a worker's first time at a stage took beyond the others counts neither in the stage nor in `processor`.
    """
    totals, warm = totals_of(spans), totals_of(_warm(spans))
    # what the spans would take if all were warm
    sums = {
        name: StageTotal(one.spans, warm[name].seconds / warm[name].spans * one.spans) for name, one in totals.items()
    }
    once = sum(
        one.cpu_seconds - warm[name].cpu_seconds / warm[name].spans * one.spans
        for name, one in totals.items()
        if "." not in name  # a part is in its stage's seconds already
    )
    processor = max(0.0, processor - max(0.0, once))
    return costs_from(sums, rows=rows, round_trip=round_trip, processor=processor, one_writer=one_writer)


def costs_from(
    sums: Mapping[str, StageTotal], *, rows: int, round_trip: float, processor: float, one_writer: bool = False
) -> Costs:
    """The same from the sums by stage, of which the numbers of spans and the seconds count."""

    def seconds(*names: str) -> float:
        return sum(sums[name].seconds for name in names if name in sums)

    def spans(*names: str) -> int:
        return sum(sums[name].spans for name in names if name in sums)

    commits = spans("commit")
    each = seconds(*FOR_EACH_COMMIT) / commits if commits else 0.0
    travel = spans(*DATABASE) * ROUND_TRIPS_OF_COPY * round_trip
    travel = min(travel, max(0.0, seconds("commit") - seconds(*FOR_EACH_COMMIT)))
    count = max(rows, 1)
    database = seconds("commit") - seconds("commit.begin") if one_writer else seconds(*DATABASE) - travel
    return Costs(
        rows=rows,
        chunks=spans("prepare"),
        agree=seconds("agree"),
        reader=seconds(*READER) / count,
        decider=seconds(*DECIDER) / count,
        prepare=seconds(*PREPARING) / count,
        carry=max(0.0, seconds(*CARRYING) - each * commits - travel) / count,
        commit=each + (travel / commits if commits else 0.0),
        database=max(0.0, database) / count,
        processor=processor / count,
        gather=seconds("gather") / count,
    )


def round_trips(totals: Mapping[str, StageTotal]) -> int:
    """How often a run waited for the network's two ways between it and the database while it committed."""
    beside = sum(totals[name].spans for name in ROUND_TRIPS if name in totals)
    with_events = sum(totals[name].spans for name in DATABASE if name in totals)
    return beside + with_events * ROUND_TRIPS_OF_COPY


def _warm(spans: Iterable[Span]) -> list[Span]:
    """The spans without each worker's first of its stage, in which libraries are loaded and caches filled: what every
    run has once. A stage that nobody went through twice keeps what it has.
    """
    met: set[tuple[str, str]] = set()
    later: list[Span] = []
    first: list[Span] = []
    for span in sorted(spans, key=lambda span: span.started):
        (later if (span.worker, span.stage) in met else first).append(span)
        met.add((span.worker, span.stage))
    again = {span.stage for span in later}
    return later + [span for span in first if span.stage not in again]


@dataclass(frozen=True, slots=True)
class Group:
    """Where time goes, under a name for people: wall seconds, and those on a core."""

    name: str
    seconds: float
    on_a_core: float

    @property
    def waiting(self) -> float:
        """Seconds off the core."""
        return max(0.0, self.seconds - self.on_a_core)


GROUPS: Mapping[str, tuple[str, ...]] = {
    "read": ("read",),
    "spool": ("spool",),
    "prepare": ("prepare",),
    "decide": ("decide",),
    "snapshot": ("snapshot",),
    "gather": ("gather",),
    "enrich": ("enrich",),
    "alerts": ("alerts", "commit.alerts"),
    "encode": ("commit.encode",),
    "COPY": ("commit.copy", "commit.insert"),
    "conflict path": ("commit.aside", "commit.conflict", "commit.query"),
    "receipt": ("commit.begin", "commit.receipt"),
    "locks": ("commit.locks", "commit.pause"),
    "commit": ("commit.commit",),
}


def split(totals: Mapping[str, StageTotal]) -> list[Group]:
    """The stages, gathered under the names that a profile shows; what took no time is left out."""
    found = []
    for name, stages in GROUPS.items():
        present = [totals[stage] for stage in stages if stage in totals]
        seconds = sum(one.seconds for one in present)
        if seconds:
            found.append(Group(name, seconds, min(seconds, sum(one.cpu_seconds for one in present))))
    return found
