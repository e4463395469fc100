"""What several suites share: the program under test as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import sqlalchemy as sa

from support.quick_start import QuickStart

__all__ = ["Crash", "Headrace", "crash_at", "scaled"]

WITHIN = 2400.0 if os.environ.get("HEADRACE_TEST_SCALE") == "full" else 240.0  # seconds


def scaled(whole: int, *, least: int = 1, default: int | None = None) -> int:
    """How often a slow test repeats: all of `whole` in ``make test-all``, otherwise `default` or a twenty-fifth."""
    if os.environ.get("HEADRACE_TEST_SCALE") == "full":
        return whole
    return max(least, whole // 25) if default is None else default


@dataclass
class Headrace:
    """The command line against one database, each call a process of its own."""

    url: str
    folder: Path

    def command(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "headrace", *map(str, words)]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "HEADRACE_DATABASE_URL": self.url}

    def run(self, *words: object, expect: int = 0, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        done = self._start(list(map(str, words)), b"" if stdin is None else stdin)
        assert done.returncode == expect, f"{words} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def _start(self, words: list[str], stdin: bytes) -> subprocess.CompletedProcess[str]:
        environment = self.environment()
        quick = QuickStart.of_this_process()
        with TemporaryFile() as given, TemporaryFile() as said, TemporaryFile() as complained:
            given.write(stdin)
            given.seek(0)
            if quick.serves(environment):
                code = quick.run(
                    words,
                    environment=environment,
                    folder=self.folder,
                    streams=(given, said, complained),
                    timeout=WITHIN,
                )
            else:
                code = subprocess.run(
                    self.command(*words),
                    env=environment,
                    cwd=self.folder,
                    stdin=given,
                    stdout=said,
                    stderr=complained,
                    check=False,
                    timeout=WITHIN,
                ).returncode
            texts = [_text_of(stream, "latin-1" if stdin else "utf-8") for stream in (said, complained)]
        return subprocess.CompletedProcess(words, code, *texts)

    def load(self, *words: object, expect: int = 0) -> dict[str, Any]:
        """``headrace load … --output json``; the books are checked on every call."""
        report: dict[str, Any] = json.loads(self.run("load", *words, "--output", "json", expect=expect).stdout)
        outcomes = ("inserted", "duplicate_in_input", "duplicate_in_store", "rejected")
        assert report["read"] == sum(report[name] for name in outcomes), report
        return report

    def json(self, *words: object, expect: int = 0) -> Any:
        return json.loads(self.run(*words, "--output", "json", expect=expect).stdout)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        url = self.url.replace("postgresql:", "postgresql+psycopg:")
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            result = connection.execute(sa.text(sql))
            return [tuple(row) for row in result] if result.returns_rows else []

    def query_one_if_table(self, table: str, sql: str) -> Any:
        """The first value of `sql`, ``None`` while `table` does not exist."""
        engine = sa.create_engine(self.url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
        return self.query(sql)[0][0] if sa.inspect(engine).has_table(table) else None

    def count(self, table: str) -> int:
        return int(self.query(f'SELECT count(*) FROM "{table}"')[0][0])  # noqa: S608 - a name that the test chose


def _text_of(stream: IO[bytes], encoding: str) -> str:
    stream.seek(0)
    return stream.read().decode(encoding).replace("\r\n", "\n")


class Crash(BaseException):
    """The end of a process, as far as one can have it without ending the test's own: no handler may swallow it."""


def crash_at(statement: int) -> Callable[[str], None]:
    """A statement hook that dies before the `statement`-th statement, and before every later one."""
    sent = 0

    def hook(_: str) -> None:
        nonlocal sent
        sent += 1
        if sent >= statement:
            raise Crash

    return hook
