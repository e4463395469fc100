"""How fast a load is beside its peers, and whether what it leaves behind is right.

Each peer is a process of its own, start and imports included, on a fresh copy of the same database. Fresh, half there,
99 % there and all there, and fresh with a tenth of the input repeated; by stores of several sizes; by file formats.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.measure import server
from bench.measure.check import expected, found, verdict
from bench.measure.datasets import DATASETS, Dataset, Situation, pg_type, write_input, write_store
from bench.measure.encoded import create_table, encode_chunks
from bench.measure.harness import Bench, Run, paired, run_process, warm
from bench.peers.job import TABLE, Job
from bench.peers.registry import HEADRACE, LOWER_BOUND, OURS, PEERS, Peer, missing_peers, peer_versions

__all__ = ["SITUATIONS", "Templates", "measure"]

SITUATIONS = (
    Situation("fresh"),
    Situation("fresh, a tenth twice", repeated=0.1),
    Situation("50 % there", known=0.5),
    Situation("99 % there", known=0.99),
    Situation("all there", known=1.0),
)
FLIGHTS = 336_776
EVERYBODY = (LOWER_BOUND, *OURS, *PEERS)


@dataclass(frozen=True, slots=True)
class Group:
    """What is compared: the same input into the same store."""

    dataset: str
    rows: int
    existing: int
    situation: Situation
    kind: str

    @property
    def cell(self) -> Run:
        """As results have it."""
        return {
            "dataset": self.dataset,
            "rows": self.rows,
            "existing": self.existing,
            "situation": self.situation.name,
            "format": self.kind,
        }


def measure(bench: Bench) -> None:
    """Every group, its contenders in turn; what the results have already is left out."""
    results = bench.results("loads")
    lacking = missing_peers(bench.options.peers_python)
    results.note("peers", {peer.name: _described(peer, bench, lacking) for peer in EVERYBODY})
    for group in _groups(bench):
        peers = {peer.name: peer for peer in _contenders(bench, group) if peer.name not in lacking}

        def missing(name: str, number: int, group: Group = group) -> bool:
            return not _given_up(bench, {"peer": name, **group.cell}) and not results.has(
                peer=name, round=number, **group.cell, exit_code=0
            )

        for number, name in paired(bench.options.rounds, peers, missing):
            cell = {"peer": name, **group.cell, "round": number}
            run = cell | _one(bench, group, peers[name])
            results.add(run, **cell)
            bench.say(f"{name:<15} {run['seconds']:8.2f} s  {run['verdict']:<40} {group.cell}")


def _given_up(bench: Bench, cell: Run) -> bool:
    """Whether a contender ran out of time in this cell. Nobody else has fewer rounds than the others."""
    runs = [run for run in bench.results("loads").runs if cell.items() <= run.items()]
    return any(run["exit_code"] == "timed out" for run in runs)


def _groups(bench: Bench) -> Iterator[Group]:
    wanted = bench.options
    for existing in wanted.existing:
        for situation in SITUATIONS:
            if situation.name not in wanted.situations or not _possible(situation, wanted.rows, existing):
                continue
            for kind in wanted.formats:
                yield Group("fires", wanted.rows, existing, situation, kind)
    for rows in wanted.large:
        for kind in ("parquet", "csv"):
            yield Group("fires", rows, 0, SITUATIONS[0], kind)
    for situation in (SITUATIONS[0], SITUATIONS[-1]) if wanted.flights else ():
        for kind in wanted.formats:
            yield Group("flights", FLIGHTS, FLIGHTS if situation.known else 0, situation, kind)


def _possible(situation: Situation, rows: int, existing: int) -> bool:
    """Whether so many can be there already. What stands twice in the input is asked of an empty store only."""
    return not existing if situation.repeated else not situation.known or existing >= rows


def _contenders(bench: Bench, group: Group) -> list[Peer]:
    wanted: Sequence[str] = bench.options.peers
    return [
        peer
        for peer in EVERYBODY
        if group.kind in peer.formats
        and (peer.name in wanted or not wanted)
        and not (peer.fresh_only and (group.situation.known or group.situation.repeated))
    ]


def _one(bench: Bench, group: Group, peer: Peer) -> Run:
    """One run from a database like the others', and whether it was right."""
    dataset = DATASETS[group.dataset]
    path = write_input(bench.data, group.dataset, group.kind, group.rows, group.existing, group.situation)
    if peer is LOWER_BOUND:
        encode_chunks(path, dataset)
    url = Templates(bench).copy(group.dataset, group.existing, peer)
    warm(path)
    outcome = run_process(
        peer.command_line(_python(bench, peer), job_for(bench, url, path, dataset, peer)),
        scratch=bench.scratch,
        timeout=bench.options.timeout,
    )
    run: Run = {**outcome.figures, "exit_code": outcome.exit_code}
    if outcome.exit_code is None:
        return run | {"exit_code": "timed out", "verdict": f"not done in {bench.options.timeout:.0f} s"}
    run |= _reported(outcome.said)
    inputs = [write_store(bench.data, group.dataset, group.existing)] if group.existing else []
    judged = verdict(expected(dataset, [*inputs, path], bench.data), found(dataset, url, TABLE))
    run["other types"] = other_types(url, dataset)
    if outcome.exit_code != 0:
        last = (outcome.complaint or outcome.said).strip().splitlines()[-1:] or ["no word"]
        judged = f"failed: {last[0][:200]}"
        (bench.scratch / f"failed-{peer.name}").write_text(outcome.said + outcome.complaint)
    return run | {"verdict": judged}


def other_types(url: str, dataset: Dataset) -> dict[str, str]:
    """The columns of the contender's table whose types are not those of everybody's."""
    wanted = {name: pg_type(kind) for name, kind in dataset.columns.items()}
    with psycopg.connect(url) as connection:
        types = connection.execute(
            "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            [TABLE],
        ).fetchall()
    return {
        name: kind
        for name, kind in types
        if kind.replace("timestamp with time zone", "timestamptz") != wanted.get(name, kind)
    }


def _reported(said: str) -> Run:
    """What a contender says of its seconds without Python's start and the imports: the last thing that it prints."""
    try:
        return {"report_seconds": json.loads(said[said.rindex("\n{") + 1 :] if "\n{" in said else said)["seconds"]}
    except (ValueError, KeyError):
        return {}


def job_for(bench: Bench, url: str, path: Path, dataset: Dataset, peer: Peer = HEADRACE) -> Job:
    """The job of a run; its scratch folder is emptied."""
    scratch = bench.scratch / "job"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    columns = {name: pg_type(kind) for name, kind in dataset.columns.items()}
    return Job(
        url, str(path), path.suffix[1:], columns, peer.key_of(dataset.key, dataset.time), dataset.time, str(scratch)
    )


def _python(bench: Bench, peer: Peer) -> str:
    return sys.executable if peer in {*OURS, LOWER_BOUND} else bench.options.peers_python


def _described(peer: Peer, bench: Bench, lacking: dict[str, str]) -> Run:
    versions = peer_versions(bench.options.peers_python)
    packages = {name: versions.get(name) for name in peer.packages}
    packages |= {need: versions[need] for need in peer.needs if need in versions}
    return {
        "settings": peer.settings,
        "documentation": peer.documentation,
        "versions": packages,
        **({"lacking": lacking[peer.name]} if peer.name in lacking else {}),
    }


class Templates:
    """Databases with so many events in them, one for each kind of table, made once and copied for each run."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def copy(self, dataset: str, existing: int, peer: Peer) -> str:
        """The URL of a copy with `existing` events, kept the way `peer` keeps them."""
        source = self._made(dataset, existing, peer)
        return server.copy_database(self._bench.url, source, "run")

    def _made(self, dataset: str, existing: int, peer: Peer) -> str:
        store = "bound" if peer is LOWER_BOUND and not existing else peer.store
        name = f"{store.replace(',', '').replace(' ', '_')}_{dataset}_{existing}"
        if server.database_exists(self._bench.url, name):
            return name
        self._bench.say(f"preparing {name}")
        url = server.create_database(self._bench.url, f"unfinished_{name}")
        if store == "bound" or store.startswith("natural key"):
            key = peer.key_of(DATASETS[dataset].key, DATASETS[dataset].time) if store != "bound" else ()
            create_table(url, TABLE, DATASETS[dataset], key=key)
        if existing:
            self._fill(url, dataset, existing, store)
        server.settle(url)
        server.rename_database(self._bench.url, f"unfinished_{name}", name)
        return name

    def _fill(self, url: str, dataset: str, existing: int, store: str) -> None:
        """By a contender that keeps its events so: the first of each kind is the quickest."""
        path = write_store(self._bench.data, dataset, existing)
        filler = next(peer for peer in (*OURS, *PEERS) if peer.store == store)
        job = job_for(self._bench, url, path, DATASETS[dataset], filler)
        outcome = run_process(
            filler.command_line(_python(self._bench, filler), job), scratch=self._bench.scratch, timeout=7200
        )
        if outcome.exit_code:
            sys.exit(f"{filler.name} could not fill a store of {existing:,} events:\n{outcome.complaint}")
        judged = verdict(expected(DATASETS[dataset], [path], self._bench.data), found(DATASETS[dataset], url, TABLE))
        if judged != "right":
            sys.exit(f"{filler.name} filled a store of {existing:,} events wrongly: {judged}")
