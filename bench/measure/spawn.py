"""Runs a command to its end and says what the kernel accounts for it.

    python -I -S spawn.py STDOUT STDERR SECONDS COMMAND...

A process of its own, and a small one: a child's peak memory is never less than its parent's was when it was started,
and the driver holds tables.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time


def main(out_path: str, err_path: str, timeout: float, command: list[str]) -> dict[str, object]:
    """Start, wait, measure; the whole process group is killed when its time is up."""
    late = threading.Event()
    with open(out_path, "wb") as out, open(err_path, "wb") as err:  # noqa: PTH123 - pathlib would double the start
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
        timer = threading.Timer(timeout, lambda: (late.set(), os.killpg(process.pid, signal.SIGKILL)))
        timer.daemon = True
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        timer.cancel()
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss << 10,
        "exit_code": None if late.is_set() else os.waitstatus_to_exitcode(status),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:])))
