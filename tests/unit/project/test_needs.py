"""No test skips in silence: a program that is required and missing is a failure, and nothing else may skip."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import needs

ROOT = Path(__file__).resolve().parents[3]
# but for the platform, which is no matter of what is installed
SKIPS = re.compile(
    r"pytest\.skip\(|importorskip|unittest.skip|mark\.skip\b|skipif\((?!sys\.platform |platform\.machine\(\))"
)


def test_without_a_program_a_test_skips_unless_it_is_required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("HEADRACE_REQUIRED", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        needs.program("chromium")
    monkeypatch.setenv("HEADRACE_REQUIRED", "pgbouncer,chromium")
    with pytest.raises(pytest.fail.Exception, match="HEADRACE_REQUIRED names chromium"):
        needs.program("chromium")
    (tmp_path / "chrome").touch(mode=0o755)
    assert needs.program("chromium") == str(tmp_path / "chrome")


def test_a_program_that_no_test_needs_is_not_required_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_REQUIRED", "redis")
    with pytest.raises(pytest.fail.Exception, match="what no test needs: redis"):
        needs.missing("docker", "there is none")


def test_ci_requires_every_program() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    (named,) = re.findall(r'^programs="(.*)"$', text, re.MULTILINE)
    assert tuple(named.split()) == needs.PROGRAMS


def test_no_test_skips_but_for_what_it_needs() -> None:
    own = {ROOT / "tests" / "support" / "needs.py", Path(__file__)}
    paths = [path for path in (ROOT / "tests").rglob("*.py") if path not in own]
    assert {path.name for path in paths} > {"conftest.py", "test_kill.py"}
    assert [str(path) for path in paths if SKIPS.search(path.read_text())] == []
