"""What ``headrace run`` does: read the file, serve, print each round, return the exit code."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.errors import Interrupted
from headrace.observability.command import Watching, watched
from headrace.observability.progress import progress_for
from headrace.options.load import DEFAULT_FILE
from headrace.options.option import parse_seconds
from headrace.polling.config_file import read_settings
from headrace.polling.poll import Round
from headrace.polling.service import Wanted, serve
from headrace.runtime.interrupt import stopping
from headrace.runtime.scratch import sweep

__all__ = ["run"]


def run(
    config: str | None,
    providers: Sequence[str],
    told: Mapping[str, Any],
    *,
    every: str | None,
    once: bool,
    force: bool,
    reread: bool,
) -> int:
    """``headrace run``."""
    wanted = Wanted(tuple(providers), force=force, reread=reread, progress=progress_for(told["progress"]))
    settings = read_settings(config or DEFAULT_FILE)
    # the user's modules lie beside the file; the workers inherit the path
    sys.path.insert(0, str(settings.file.resolve().parent))
    pause = None if once else settings.every if every is None else parse_seconds(every)
    rounds: list[int] = []

    def tell(round_done: Round) -> None:
        rounds.append(round_done.exit_code)
        text = round_done.to_json() if told["output"] == "json" else round_done.to_text(all_of_them=pause is None)
        if text:
            print(text, flush=True)

    with watched(Watching.of(told).or_else(settings.watching)), stopping(sweep) as stop:
        try:
            serve(settings, wanted, tell, every=pause, stop=stop)
        except Interrupted as error:
            error.exit_code = stop.exit_code
            raise
        if stop.is_set():
            return stop.exit_code
    return rounds[-1] if rounds else 0
