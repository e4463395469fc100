"""The command line, which kills itself before its NUMBER-th statement: ``python -m world.victim NUMBER WORD...``."""

from __future__ import annotations

import os
import signal
import sys

from world.moments import Moments, listen

from headrace.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    moments = Moments()
    number = int(sys.argv.pop(1))
    with listen(moments), moments.at("statement", number, lambda: os.kill(os.getpid(), signal.SIGKILL)):
        main()
