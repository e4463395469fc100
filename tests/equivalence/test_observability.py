"""Metrics scraped by a real Prometheus parser and traces taken by an in-memory exporter agree with the run's report."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from support.observers import MODES, Taken, lines_of, load_all, scrape, value
from support.program import Headrace

from headrace import ConfigurationError, WorkerError
from headrace.observability.command import Watching
from headrace.observability.log_format import logging_to
from headrace.observability.metrics import INSTRUMENTS, statement_of
from headrace.observability.narrator import Narrator, Thresholds
from headrace.observability.observers import observing
from headrace.observability.prometheus import address_of, serving
from headrace.observability.stages import RunFacts, Silent

OUTCOMES = ("inserted", "duplicate_in_input", "duplicate_in_store", "rejected")


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


@pytest.fixture(params=list(MODES))
def mode(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_the_metrics_scraped_agree_with_the_reports(store_url: str, mode: str, port: int) -> None:
    with serving(f"127.0.0.1:{port}") as metrics, observing(metrics):
        reports = load_all(store_url, mode)
        samples = scrape(port)
    feed = {"provider": "p", "table": "t"}
    for outcome in OUTCOMES:
        expected = sum(getattr(report, outcome) for report in reports)
        assert expected > 0, outcome
        assert value(samples, "headrace_rows_total", **feed, outcome=outcome) == expected
    assert value(samples, "headrace_runs_total", **feed, status="done") == len(reports)
    assert value(samples, "headrace_alerts_raised_total", **feed) == sum(report.alerts for report in reports) > 0
    assert value(samples, "headrace_retries_total", **feed) == sum(report.retries for report in reports)
    assert value(samples, "headrace_lock_wait_seconds_total", **feed) == sum(one.lock_seconds for one in reports)
    assert value(samples, "headrace_run_duration_seconds_sum", **feed) == pytest.approx(sum(o.seconds for o in reports))
    last = reports[-1]
    share = (last.duplicate_in_input + last.duplicate_in_store) / last.read
    assert value(samples, "headrace_duplicates_share", **feed) == pytest.approx(share)
    assert value(samples, "headrace_newest_event_timestamp_seconds", **feed) == 1699
    assert value(samples, "headrace_workers_wanted", **feed) == last.workers
    assert value(samples, "headrace_workers_alive", **feed) == last.workers
    for state in ("sequential", "shadow", "parallel"):
        assert value(samples, "headrace_flag", **feed, state=state) == (state == mode)
    stages: dict[str, float] = defaultdict(float)
    for report in reports:
        for stage, seconds in report.stages.items():
            stages[stage] += seconds
    for stage, seconds in stages.items():
        assert value(samples, "headrace_stage_duration_seconds_sum", stage=stage) == pytest.approx(seconds)
        statement = statement_of(stage)
        if statement is not None:
            name = "headrace_database_duration_seconds_sum"
            assert value(samples, name, statement=statement) == pytest.approx(seconds)


def test_every_instrument_has_a_name_of_its_own_that_prometheus_serves(port: int) -> None:
    names = [what.name for what in INSTRUMENTS]
    assert len(set(names)) == len(names)
    with serving(f"127.0.0.1:{port}"):
        samples = scrape(port)
    assert any(name == "process_cpu_seconds_total" for name, _ in samples)
    with pytest.raises(OSError, match="refused"):
        scrape(port)


def of(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {})[name]


def test_traces_and_opentelemetrys_metrics_agree_with_the_report(store_url: str, mode: str) -> None:
    taken = Taken()
    with observing(*taken.observers), taken.tracer.start_as_current_span("a request") as caller:
        reports = load_all(store_url, mode)
    spans = taken.spans()
    runs = [span for span in spans if span.name == "headrace.run"]
    assert [of(run, "headrace.run") for run in runs] == [report.run_id for report in reports]
    by_id = {span.context.span_id: span for span in spans if span.context}
    for run, report in zip(runs, reports, strict=True):
        assert run.parent is not None
        assert run.parent.span_id == caller.get_span_context().span_id
        for name in ("read", *OUTCOMES):
            assert of(run, f"headrace.rows.{name}") == getattr(report, name)
        assert of(run, "headrace.alerts") == report.alerts
        below = [span for span in spans if _root(span, by_id) is run and span is not run]
        seconds: dict[str, float] = defaultdict(float)
        for span in below:
            seconds[span.name] += ((span.end_time or 0) - (span.start_time or 0)) / 1e9
        assert seconds == pytest.approx(dict(report.stages), abs=1e-6)
        rows = Counter[str]()
        for span in below:
            rows[span.name] += of(span, "headrace.rows")
        assert rows["read"] == rows["prepare"] == report.read
        parts = [span for span in below if span.name.startswith("commit.")]
        assert parts
        for part in parts:
            parent = by_id[part.parent.span_id] if part.parent else None
            assert parent is not None
            assert parent.name == "commit"
            assert of(parent, "headrace.partition") == of(part, "headrace.partition")
    points = taken.points()
    for outcome in OUTCOMES:
        labels = frozenset({"provider": "p", "table": "t", "outcome": outcome}.items())
        assert points["headrace.rows", labels].value == sum(getattr(report, outcome) for report in reports)
    feed = frozenset({"provider": "p", "table": "t"}.items())
    assert points["headrace.alerts.raised", feed].value == sum(report.alerts for report in reports)


def _root(span: ReadableSpan, by_id: dict[int, ReadableSpan]) -> ReadableSpan:
    while span.name != "headrace.run" and span.parent is not None and span.parent.span_id in by_id:
        span = by_id[span.parent.span_id]
    return span


def test_what_was_not_committed_is_not_counted(sqlite_url: str, port: int) -> None:
    """Negative control for promise 3: a counter that moved before the commit would show here."""
    taken = Taken()

    def broken(batch: pa.RecordBatch) -> pa.RecordBatch:
        raise RuntimeError("broken on purpose")

    with (
        serving(f"127.0.0.1:{port}") as metrics,
        observing(metrics, *taken.observers),
        pytest.raises(WorkerError),
    ):
        load_all(sqlite_url, "sequential", enrich=broken)
    points = taken.points()
    assert not [name for name, _ in points if name == "headrace.rows"]
    failed = frozenset({"provider": "p", "table": "t", "status": "failed"}.items())
    assert points["headrace.runs", failed].value == 1
    (run,) = [span for span in taken.spans() if span.name == "headrace.run"]
    assert not run.status.is_ok
    assert "broken on purpose" in str(run.status.description)


def test_an_observer_that_fails_is_left_out_and_the_run_goes_on(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard = []

    class Broken(Silent):
        def committed(self, piece: object, done: object) -> None:
            heard.append(piece)
            raise OSError("the disk of the observer is full")

    def cannot_begin(run: RunFacts) -> Silent:
        raise ValueError("no observer today")

    with observing(lambda run: Broken(), cannot_begin), caplog.at_level("ERROR", "headrace.observe"):
        reports = load_all(sqlite_url, "sequential")
    assert all(report.inserted for report in reports)
    assert len(heard) == len(reports)
    assert caplog.text.count("it is left out for the rest of the run") == len(reports)
    assert "no observer today" in caplog.text


@pytest.mark.slow
def test_opentelemetry_is_spoken_to_as_soon_as_the_process_has_imported_it(tmp_path: Path) -> None:
    script = tmp_path / "user.py"
    script.write_text(
        "import sys, headrace\n"
        "if 'sdk' in sys.argv:\n"
        "    from opentelemetry import trace\n"
        "    from opentelemetry.sdk.trace import TracerProvider\n"
        "    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, ConsoleSpanExporter\n"
        "    trace.set_tracer_provider(TracerProvider())\n"
        "    trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))\n"
        "headrace.load([{'a': 1}], to='sqlite://', table='t')\n"
        "print('imported', 'opentelemetry' in sys.modules)\n"
    )
    told = [
        subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=True).stdout
        for words in (["sdk"], [])
    ]
    assert '"name": "headrace.run"' in told[0]
    assert told[1].strip() == "imported False"


def test_a_load_serves_its_metrics_while_it_runs(sqlite_url: str, tmp_path: Path, port: int) -> None:
    headrace = Headrace(sqlite_url, tmp_path)
    words = ["load", "-", "--format", "csv", "--table", "t", "--metrics", f"127.0.0.1:{port}", "--output", "json"]
    with subprocess.Popen(
        headrace.command(*words), env=headrace.environment(), cwd=tmp_path, stdin=subprocess.PIPE, text=True
    ) as going:
        assert going.stdin is not None
        deadline = time.monotonic() + 120
        while True:
            try:
                samples = scrape(port)
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        going.stdin.write("key\n1\n")
        going.stdin.close()
        assert going.wait(120) == 0
    assert any(name == "process_start_time_seconds" for name, _ in samples)


def test_a_service_serves_the_metrics_of_all_its_rounds_and_logs_as_asked(
    sqlite_url: str, tmp_path: Path, port: int
) -> None:
    headrace = Headrace(sqlite_url, tmp_path)
    (tmp_path / "rows.csv").write_text("key\n1\n2\n")
    (tmp_path / "headrace.toml").write_text(
        f'database = "{sqlite_url}"\n[providers.p]\npath = "rows.csv"\nid = ["key"]\ninterval = "1s"\n'
    )
    words = ["run", "--every", "1s", "--metrics", f"127.0.0.1:{port}", "--log-format", "json"]
    feed = {"provider": "p", "table": "p"}
    with subprocess.Popen(
        headrace.command(*words, "--log-level", "info", "--force", "--reread"),
        env=headrace.environment(), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as going:  # fmt: skip
        deadline = time.monotonic() + 120
        runs = 0.0
        while runs < 2 and going.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
            try:
                samples = scrape(port)
            except OSError:  # it is not served yet
                continue
            runs = samples.get(("headrace_runs_total", frozenset({**feed, "status": "done"}.items())), 0.0)
        going.terminate()
        _, logged = going.communicate(timeout=120)
    assert runs >= 2
    assert value(samples, "headrace_rows_total", **feed, outcome="inserted") == 2
    assert value(samples, "headrace_rows_total", **feed, outcome="duplicate_in_store") >= 2
    began = [one for one in lines_of(logged) if one["message"].startswith("run ") and " began" in one["message"]]
    assert len(began) >= 2
    assert {one["provider"] for one in began} == {"p"}


def test_no_password_is_in_logs_metrics_or_traces(postgres_url: str, tmp_path: Path, port: int) -> None:
    secret = "s3cr3t-pass"  # noqa: S105 - one that must not turn up
    url = re.sub(r"//([^@/:]+):?[^@/]*@", rf"//\1:{secret}@", postgres_url)
    assert secret in url
    taken = Taken()
    log = tmp_path / "log"
    with (
        log.open("w") as stream,
        logging_to(stream, "json", "debug"),
        serving(f"127.0.0.1:{port}") as metrics,
        observing(metrics, Narrator(Thresholds(1e-9, 1e-9, 1e-9)), *taken.observers),
    ):
        load_all(url, "sequential")
        samples = scrape(port)
        with pytest.raises(WorkerError):
            load_all(url, "parallel", table="broken", enrich=_broken)  # a table of its own: events must be new
    told = log.read_text() + repr(samples) + "".join(span.to_json() for span in taken.spans()) + repr(taken.points())
    assert "postgres" in told
    assert secret not in told


def _broken(batch: pa.RecordBatch) -> pa.RecordBatch:
    raise RuntimeError("no")


@pytest.mark.parametrize("text", ["9464", ":", "host:", ":x", ":70000", "[::1]"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not an address"):
        address_of(text)


def test_a_port_that_is_taken_is_said(port: int) -> None:
    second = serving(f"127.0.0.1:{port}")
    with serving(f"127.0.0.1:{port}"), pytest.raises(ConfigurationError, match="metrics cannot be served"), second:
        pass


def test_thresholds_are_spans() -> None:
    assert Watching(slow_query="5s", slow_provider="2m").thresholds == Thresholds(120.0, None, 5.0)
    for wrong in ("0s", "soon"):
        with pytest.raises(ConfigurationError):
            _ = Watching(slow_chunk=wrong).thresholds
