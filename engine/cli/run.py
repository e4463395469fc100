"""What ``headrace run`` does: read the file, serve, print each round, return the exit code."""

from __future__ import annotations

import sys

from headrace.errors import Interrupted
from headrace.observability.command import Watching, watched
from headrace.options.load import parse_seconds
from headrace.polling.config_file import read_settings
from headrace.polling.poll import Round
from headrace.polling.service import Wanted, serve
from headrace.runtime.interrupt import stopping
from headrace.runtime.scratch import sweep

__all__ = ["Wanted", "Watching", "run"]


def run(config: str, wanted: Wanted, every: str | None, watching: Watching, *, once: bool, output: str) -> int:
    """``headrace run``."""
    settings = read_settings(config)
    # the user's modules lie beside the file; the workers inherit the path
    sys.path.insert(0, str(settings.file.resolve().parent))
    pause = None if once else settings.every if every is None else parse_seconds(every)
    rounds: list[int] = []

    def tell(one: Round) -> None:
        rounds.append(one.exit_code)
        text = one.to_json() if output == "json" else one.to_text(all_of_them=pause is None)
        if text:
            print(text, flush=True)

    with watched(watching.or_else(settings.watching)), stopping(sweep) as stop:
        try:
            serve(settings, wanted, tell, every=pause, stop=stop)
        except Interrupted as error:
            error.exit_code = stop.exit_code
            raise
        if stop.is_set():
            return stop.exit_code
    return rounds[-1] if rounds else 0
