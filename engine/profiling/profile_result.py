"""The result of a profile, as one screen of text and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from headrace.observability.chunk_costs import chunkwise
from headrace.profiling.costs import Costs, round_trips, split
from headrace.profiling.criteria import Criterion
from headrace.profiling.model import WORTH, Advice, Machine, Prediction
from headrace.profiling.trials import Trialled
from headrace.storage.trial.gauge import Gauged, Server

__all__ = ["Checked", "Profile"]

_MIB = 1 << 20
MUCH = 0.25  # of the cores
SHOWN_WAITS = 3
SHOWN_STATEMENTS = 4
KEPT_STATEMENTS = 20
STATEMENT_WIDTH = 80


@dataclass(frozen=True, slots=True)
class Checked:
    """Seconds that the whole input took in both ways, and whether the tables were `equal`."""

    sequential: float
    parallel: float
    equal: bool

    @property
    def speedup(self) -> float:
        """How many times as fast as sequential mode parallel mode was."""
        return self.sequential / self.parallel if self.parallel > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile: both runs of the sample, what the database can do, the criteria, the verdict."""

    table: str
    database: str
    sequential: Trialled
    parallel: Trialled
    gauged: Gauged
    machine: Machine
    costs: Costs
    criteria: Sequence[Criterion]
    verdict: Advice
    strategy: str
    checked: Checked | None = None

    @property
    def advice(self) -> str:
        """The recommendation in a sentence."""
        failed = [one.name for one in self.criteria if not one.holds and not one.name.startswith("the CPU")]
        if failed:
            return f"stay sequential, because this does not hold: {', '.join(failed)}"
        if self.checked is not None:
            return self._advice_from(self.checked)
        return replace(self.verdict, parallel=self.parallel_advised).advice(self.strategy)

    def _advice_from(self, checked: Checked) -> str:
        """The recommendation by what both ways really took; the model has no say any more."""
        workers = self.verdict.candidate.workers
        if not checked.equal:
            return "stay sequential, because the two ways gave different tables"
        how = f"{checked.speedup:.2f} times as fast, as measured"
        if self.parallel_advised:
            return f"--mode parallel --strategy {self.strategy} --workers {workers}: {how}"
        return f"stay sequential: {workers} workers were {how}, and less than {WORTH} is not worth the processes"

    @property
    def remarks(self) -> list[tuple[str, str]]:
        """The remarks above the pictures of the page, each under a name."""
        told = [
            ("advice", self.advice),
            *(("yes" if one.holds else "no", f"{one.name}: {one.evidence}") for one in self.criteria),
            ("expected", self._expected()),
        ]
        told += [("it took", self._outcomes())] if self.checked is not None else []
        told += [("the machine", line.strip()) for line in self._others_lines()]
        return [*told, *(("the server", line.strip()) for line in self._server_lines(self.sequential.server))]

    def _expected(self) -> str:
        return (
            f"for {self.verdict.rows:,} rows: {_range(self.verdict.sequential)} sequentially, "
            f"{_range(self.verdict.candidate)} with {self.verdict.candidate.workers} workers"
        )

    @property
    def statements(self) -> list[str]:
        """The statements that took most of the server's time, shortened; none without ``pg_stat_statements``."""
        longest = (self.sequential.server.statements or [])[:SHOWN_STATEMENTS]
        return [one.to_text(STATEMENT_WIDTH) for one in longest]

    @property
    def trustworthy(self) -> bool:
        """Whether all criteria hold that both modes need to give the same table."""
        agreed = self.checked is None or self.checked.equal
        return agreed and all(one.holds for one in self.criteria if not one.name.startswith("the CPU"))

    @property
    def parallel_advised(self) -> bool:
        """Whether parallel mode is advised: by measured times if both ways were tried in full, otherwise by the
        model.
        """
        worth = self.verdict.parallel if self.checked is None else self.checked.speedup >= WORTH
        return worth and self.trustworthy

    def to_text(self) -> str:
        """One screen."""
        report, usage, server = self.sequential.report, self.sequential.usage, self.sequential.server
        lines = [
            f"{self.table} ← provider {report.provider}, {self.database}",
            f"  sample {report.read:,} of {self.verdict.rows:,} rows in {report.chunks} chunks, sequentially: "
            f"{report.seconds:.2f} s, {report.rows_per_second:,.0f} rows/s; {report.inserted:,} new, "
            f"{report.duplicate_in_store:,} known",
            "  stage             seconds  on a core   waiting   µs/row",
            *(
                f"    {one.name:<14} {one.seconds:>8.3f} {one.on_a_core:>10.3f} {one.waiting:>9.3f} "
                f"{one.seconds / max(report.read, 1) * 1e6:>8.2f}"
                for one in split(self.sequential.totals)
            ),
            f"  this process {usage.cpu:.0%} of a core; the machine's {self.machine.cores} cores "
            f"{usage.machine_cpu:.0%} busy, {usage.machine_io_wait:.1%} waiting for disks"
            f"{self._memory()}{self._bytes()}",
            *self._others_lines(),
            *self._server_lines(server),
            *(f"  {one.to_text()}" for one in self.criteria),
            f"  expected {self._expected()}",
            *([] if self.checked is None else [f"  it took {self._outcomes()}"]),
            f"  {self.advice}",
        ]
        return "\n".join(lines)

    def _memory(self) -> str:
        peak = self.sequential.peak_bytes
        return "" if peak is None else f"; {peak / _MIB:,.0f} MiB"

    def _bytes(self) -> str:
        usage = self.sequential.usage
        if usage.bytes_read is None or usage.bytes_written is None:
            return ""
        return f"; {usage.bytes_read / _MIB:,.1f} MiB read from disks, {usage.bytes_written / _MIB:,.1f} written"

    def _others_lines(self) -> list[str]:
        others = self.machine.others
        if others < MUCH * self.machine.cores:
            return []
        return [
            f"  other processes keep {others:.1f} of the cores busy, so the seconds are rough: "
            "profile again on a quiet machine"
        ]

    def _server_lines(self, server: Server) -> list[str]:
        if self.gauged.writers == 1:
            return ["  one writer at a time (SQLite): commits are not shared"]
        trips, seconds = round_trips(self.sequential.totals), self.gauged.round_trip
        told = [f"round trip {seconds * 1000:.2f} ms, about {trips} round trips take {trips * seconds:.2f} s"]
        if self.gauged.copied:
            told.append(f"COPY over two connections {self.gauged.scaling:.2f} times as fast as over one")
        if server.cpu_seconds is not None:
            told.append(f"its processes {server.cpu_seconds:.2f} s on cores of this machine")
        if server.wal_bytes is not None:
            told.append(f"WAL {server.wal_bytes / _MIB:,.1f} MiB")
        waits = ", ".join(f"{name} {count}" for name, count in server.waits.most_common(SHOWN_WAITS))
        return [
            f"  the server: {'; '.join(told)}",
            *([f"  its sessions, sampled: {waits}"] if waits else []),
            *(f"  its statement {one}" for one in self.statements),
        ]

    def _outcomes(self) -> str:
        if self.checked is None:
            return ""
        told = [
            _outcome("sequentially", self.verdict.sequential, self.checked.sequential),
            _outcome(f"with {self.verdict.candidate.workers} workers", self.verdict.candidate, self.checked.parallel),
        ]
        return f"{'; '.join(told)}; the tables are {'equal' if self.checked.equal else 'NOT EQUAL'}"

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON."""
        verdict, server = self.verdict, self.sequential.server
        return {
            "table": self.table,
            "rows": verdict.rows,
            "sample": self.sequential.report.to_dict(),
            "sample_parallel": self.parallel.report.to_dict(),
            "stages": [asdict(one) for one in split(self.sequential.totals)],
            "process": asdict(self.sequential.usage),
            "peak_bytes": self.sequential.peak_bytes,
            "server": {
                "waits": dict(server.waits),
                "round_trips": 0 if self.gauged.writers == 1 else round_trips(self.sequential.totals),
                "cpu_seconds": server.cpu_seconds,
                "wal_bytes": server.wal_bytes,
                "statements": None
                if server.statements is None
                else [asdict(one) for one in server.statements[:KEPT_STATEMENTS]],
                **asdict(self.gauged),
            },
            "machine": asdict(self.machine),
            "costs": asdict(self.costs),
            "chunks": {
                "sequential": chunkwise(self.sequential.recorded.spans).to_dict(),
                "parallel": chunkwise(self.parallel.recorded.spans).to_dict(),
            },
            "criteria": [asdict(one) for one in self.criteria],
            "verdict": {
                "parallel": self.parallel_advised,
                "parallel_expected": verdict.parallel,
                "strategy": self.strategy,
                "workers": verdict.candidate.workers,
                "sequential_seconds": _rounded(verdict.sequential),
                "parallel_seconds": _rounded(verdict.candidate),
                "speedup": [round(one, 3) for one in (verdict.speedup_low, verdict.speedup, verdict.speedup_high)],
                "limit": verdict.candidate.bound,
                "amdahl": {str(one): round(bound, 3) for one, bound in verdict.amdahl.items()},
                "advice": self.advice,
            },
            "checked": None if self.checked is None else asdict(self.checked),
        }


def _range(one: Prediction) -> str:
    return f"{one.seconds:.2f} s ({one.low:.2f} to {one.high:.2f})"


def _outcome(how: str, expected: Prediction, seconds: float) -> str:
    error = expected.seconds / seconds - 1 if seconds else 0.0
    return f"{seconds:.2f} s {how} (the prediction was {error:+.0%} off)"


def _rounded(one: Prediction) -> list[float]:
    return [round(value, 3) for value in (one.low, one.seconds, one.high)]
