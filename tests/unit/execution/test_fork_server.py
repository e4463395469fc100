"""Workers are forked from a process that has their libraries, and no thread that a fork could cut in two."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

STARTED = """
    import multiprocessing, os, time
    from concurrent.futures import ProcessPoolExecutor
    from pathlib import Path

    from headrace.execution.fork_server import METHOD, send_ahead

    def look():
        import sys
        threads = [task.joinpath("comm").read_text().strip() for task in Path(f"/proc/{os.getppid()}/task").iterdir()]
        loaded = [name in sys.modules for name in ("headrace.execution.tasks", "duckdb")]
        return loaded, threads, os.environ.get("OPENBLAS_NUM_THREADS")

    if __name__ == "__main__":
        send_ahead()
        assert "pyarrow" not in __import__("sys").modules
        with ProcessPoolExecutor(1, multiprocessing.get_context(METHOD)) as pool:
            print(repr(pool.submit(look).result()))
        print(repr(os.environ.get("OPENBLAS_NUM_THREADS")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which threads a process has")
@pytest.mark.parametrize("said", [None, "3"])
def test_workers_begin_with_their_libraries_and_the_fork_server_with_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    if said is None:
        monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", said)
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(STARTED))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=60)
    first, second = done.stdout.splitlines()
    loaded, threads, limit = eval(first)  # noqa: S307 - our own script's
    assert (loaded, limit, eval(second)) == ([True, False], said or "1", said)  # noqa: S307
    if said is None:
        # Arrow's allocator has a thread that gives memory back, and takes care of forks itself
        assert len([name for name in threads if not name.startswith("jemalloc")]) == 1, threads
