"""``headrace doctor --config``: what it finds wrong, each with what to do about it, against a live database."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.polling import rounds
from support.program import Headrace

from headrace.checking.doctor import CheckResult
from headrace.options.flag import FLAG
from headrace.polling.checkup import examine_settings
from headrace.storage import open_store
from headrace.storage.sql.doctor import Checks

PROVIDER = '[providers.p]\npath = "p.csv"\nid = ["n"]\ntime = "at"\n'
CSV = "n,at\n1,2026-03-01T00:00:00Z\n"


@pytest.fixture
def loaded(store_url: str, tmp_path: Path) -> Path:
    """The file of one provider that was polled once."""
    (tmp_path / "p.csv").write_text(CSV)
    with rounds(tmp_path, f'database = "{store_url}"\n{PROVIDER}') as go:
        assert go.one().counts.inserted == 1
    return tmp_path / "headrace.toml"


def changed(file: Path, old: str, new: str) -> Path:
    file.write_text(file.read_text().replace(old, new))
    return file


def ill(file: Path) -> list[CheckResult]:
    findings = [one for one in examine_settings(str(file)) if one.state != "ok"]
    assert all(one.cure for one in findings), findings
    return findings


def clock_of(file: Path) -> str:
    return next(one.seen for one in examine_settings(str(file)) if one.check == "clock skew")


def one_ill(file: Path, check: str) -> CheckResult:
    (finding,) = [one for one in ill(file) if one.check.startswith(check)]
    return finding


def test_all_is_well(loaded: Path) -> None:
    findings = list(examine_settings(str(loaded)))
    assert not ill(loaded), ill(loaded)
    checks = [one.check for one in findings]
    for check in ("configuration", f"flag {FLAG}", "database", "clock skew", "privileges", "table p", "provider p"):
        assert check in checks, checks


def test_a_contract_that_differs_is_found_before_it_is_refused(loaded: Path) -> None:
    found = one_ill(changed(loaded, 'id = ["n"]', 'id = ["n", "at"]'), "provider p")
    assert (found.state, "identity" in found.seen) == ("failed", True)
    assert "no column 'x'" in one_ill(changed(loaded, '["n", "at"]', '["x"]'), "provider p").seen


def test_a_missing_unique_key_is_found(postgres_url: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(CSV)
    with rounds(tmp_path, f'database = "{postgres_url}"\n{PROVIDER}') as go:
        go.one()
    Headrace(postgres_url, tmp_path).query("ALTER TABLE p DROP CONSTRAINT p_pkey")
    findings = ill(tmp_path / "headrace.toml")
    assert any("unique key" in one.seen and one.state == "failed" for one in findings), findings


def test_a_privilege_that_is_lacking_is_found(postgres_url: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(CSV)
    with rounds(tmp_path, f'database = "{postgres_url}"\n{PROVIDER}') as go:
        go.one()
    owner, role = Headrace(postgres_url, tmp_path), f"role_{uuid.uuid4().hex[:12]}"
    owner.query(f"CREATE ROLE {role} LOGIN")
    try:
        owner.query(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        owner.query(f"GRANT INSERT, UPDATE ON headrace_runs TO {role}")
        file = changed(tmp_path / "headrace.toml", "postgres:@", f"{role}:@")
        found = one_ill(file, "privileges")
        assert found.state == "failed"
        assert "INSERT on p" in found.seen
        assert "UPDATE on headrace_providers" in found.seen
        assert "headrace_runs" not in found.seen
        assert "SELECT on" not in found.seen
        with open_store(postgres_url.replace("postgres:@", f"{role}:@")) as store:
            assert "UPDATE on p" not in store.checks.lacking_privileges(["p"])
            assert "UPDATE on p" in store.checks.lacking_privileges(["p"], revised=["p"])
    finally:
        owner.query(f"DROP OWNED BY {role}")
        owner.query(f"DROP ROLE {role}")


def test_clocks_that_differ_are_found(loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "this machine's" in clock_of(loaded)
    monkeypatch.setattr(Checks, "server_now", lambda _: datetime.now(UTC) + timedelta(minutes=2))
    assert "ahead of" in one_ill(loaded, "clock skew").seen


def test_the_server_clock_is_the_server_s_and_a_file_has_none(postgres_url: str, sqlite_url: str) -> None:
    with open_store(postgres_url) as store:
        told = store.checks.server_now()
        assert told is not None
        assert told.tzinfo is not None
        assert abs(told - datetime.now(UTC)) < timedelta(hours=1)
    with open_store(sqlite_url) as store:
        assert store.checks.server_now() is None


RULE = '[[providers.p.alerts]]\nname = "a"\nwhere = "{}"\n'


@pytest.mark.parametrize(
    ("more", "state", "said"),
    [
        (RULE.format("n >"), "failed", "is not a valid SQL predicate"),
        (RULE.format("mag > 6"), "warning", "mag"),
        ('[[providers.p.alerts]]\nname = "a"\nfunction = "no.such:rule"\n', "failed", "cannot be imported"),
        ('revisions = "update"\nversion_column = "updated"\n', "warning", "no column 'updated'"),
        (RULE.format("n > 1") + "revisions = true\n", "failed", "asks for revisions"),
    ],
)
def test_a_rule_and_a_version_column_that_cannot_be_are_found(loaded: Path, more: str, state: str, said: str) -> None:
    loaded.write_text(loaded.read_text() + more)
    (found,) = ill(loaded)
    assert (found.state, said in found.seen) == (state, True), found


def test_the_flag_is_said_for_the_providers_and_a_value_that_means_nothing_is_found(
    loaded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FLAG, "on")
    said = [one.seen for one in examine_settings(str(loaded)) if one.check.startswith("flag")]
    assert said == ["parallel (on, by environment): p"]
    monkeypatch.setenv(FLAG, "perhaps")
    assert one_ill(loaded, "flag").state == "failed"


def test_sources_that_cannot_be_are_found(loaded: Path) -> None:
    more = '[providers.q]\npath = "none.csv"\n[providers.r]\nfunction = "nowhere:f"\n'
    more += '[providers.s]\nurl = "http://169.254.169.254/x.csv"\n'
    loaded.write_text(loaded.read_text() + more)
    states = {one.check: one.state for one in ill(loaded)}
    assert states == {"provider q": "warning", "provider r": "failed", "provider s": "failed"}


def test_a_provider_that_fails_and_one_that_is_being_polled_are_said(store_url: str, tmp_path: Path) -> None:
    with rounds(tmp_path, f'database = "{store_url}"\n{PROVIDER}') as go:
        assert go.one().outcome == "failed"
    (tmp_path / "p.csv").write_text(CSV)
    assert "has failed 1 times" in one_ill(tmp_path / "headrace.toml", "provider p").seen
    with open_store(store_url) as store:
        store.providers.claim(["p"], "host:1:a", 60.0, due=None)
    said = [one.seen for one in examine_settings(str(tmp_path / "headrace.toml"))]
    assert "it is being polled by host:1:a" in said


def test_a_file_that_is_wrong_and_a_database_that_is_not_there_yet(tmp_path: Path) -> None:
    file = tmp_path / "headrace.toml"
    file.write_text("[providers.p]\n")
    assert one_ill(file, "configuration").state == "failed"
    (tmp_path / "p.csv").write_text(CSV)
    file.write_text(f'database = "sqlite:///{tmp_path}/none.db"\n{PROVIDER}')
    assert one_ill(file, "database").state == "warning"
    assert not (tmp_path / "none.db").exists()
