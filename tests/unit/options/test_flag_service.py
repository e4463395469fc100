"""The flag service: what it is asked, what its answers mean, and what a failing one does (nothing)."""

from __future__ import annotations

import logging
import subprocess
import sys
from threading import Event, Thread

import pytest
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent
from openfeature.exception import (
    GeneralError,
    ParseError,
    ProviderFatalError,
    ProviderNotReadyError,
    TargetingKeyMissingError,
)
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider
from openfeature.provider.no_op_provider import NoOpProvider
from support.flags import chosen, register, serve

from headrace.options.choices import Mode
from headrace.options.flag import FLAG, Decision

pytestmark = pytest.mark.usefixtures("no_flag")
WAIT = 30


class Failing(InMemoryProvider):
    """A service that raises until it is mended."""

    def __init__(self, failure: Exception) -> None:
        super().__init__({FLAG: InMemoryFlag("it", {"it": "on"})})
        self.failure: Exception | None = failure

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        if self.failure is not None:
            raise self.failure
        return super().resolve_string_details(flag_key, default_value, evaluation_context)


@pytest.mark.parametrize(("value", "mode", "flag"), [(True, "parallel", "true"), (False, "sequential", "false")])
def test_a_boolean_flag(value: bool, mode: Mode, flag: str, caplog: pytest.LogCaptureFixture) -> None:
    serve(value)
    assert chosen() == Decision(mode, shadow=False, source="flag service", flag=flag)
    assert not caplog.records


def test_provider_and_table_reach_the_service() -> None:
    seen = []

    def targeted(flag: InMemoryFlag[str], context: EvaluationContext) -> FlagResolutionDetails[str]:
        seen.append(context)
        variant = "on" if context.attributes["table"] == "quakes" else "off"
        return FlagResolutionDetails(flag.variants[variant], reason=Reason.TARGETING_MATCH, variant=variant)

    flag = InMemoryFlag("off", {"on": "on", "off": "off"}, context_evaluator=targeted)
    register(InMemoryProvider({FLAG: flag}))
    assert chosen(provider="usgs", table="quakes").mode == "parallel"
    assert chosen(provider="usgs", table="fires").mode == "sequential"
    assert seen[0] == EvaluationContext("usgs", {"provider": "usgs", "table": "quakes"})


def test_a_boolean_flag_is_targeted_too() -> None:
    def targeted(flag: InMemoryFlag[bool], context: EvaluationContext) -> FlagResolutionDetails[bool]:
        return FlagResolutionDetails(context.targeting_key == "usgs", reason=Reason.TARGETING_MATCH)

    register(InMemoryProvider({FLAG: InMemoryFlag("off", {"off": False}, context_evaluator=targeted)}))
    assert [chosen(provider=name).mode for name in ("usgs", "firms")] == ["parallel", "sequential"]


def test_a_service_of_headrace_s_own_beats_the_program_s() -> None:
    serve("off")
    assert chosen().mode == "sequential"
    serve("on", "headrace")
    assert chosen().mode == "parallel"


def test_a_service_answering_with_its_own_default_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def fallback(flag: InMemoryFlag[str], context: EvaluationContext) -> FlagResolutionDetails[str]:
        return FlagResolutionDetails("off", reason=Reason.DEFAULT)

    monkeypatch.setenv(FLAG, "on")
    register(InMemoryProvider({FLAG: InMemoryFlag("off", {"off": "off"}, context_evaluator=fallback)}))
    assert chosen() == Decision("sequential", shadow=False, source="flag service", flag="off")


def test_the_no_op_service_is_none(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(FLAG, "on")
    register(NoOpProvider())
    assert chosen().source == "environment"
    assert not caplog.records


def test_a_service_without_the_flag_is_passed_over_in_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(FLAG, "shadow")
    register(InMemoryProvider({}))
    assert chosen() == Decision("sequential", shadow=True, source="environment", flag="shadow")
    assert not caplog.records


class Disabled(InMemoryProvider):
    """A service whose flag is switched off as such: by the specification it hands back the caller's default."""

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        if isinstance(self._flags[flag_key].variants["it"], bool):
            return super().resolve_string_details(flag_key, default_value, evaluation_context)
        return FlagResolutionDetails(default_value, reason=Reason.DISABLED)

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        return FlagResolutionDetails(default_value, reason=Reason.DISABLED)


@pytest.mark.parametrize("value", ["on", True])
def test_a_disabled_flag_is_no_answer(monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    monkeypatch.setenv(FLAG, "on")
    register(Disabled({FLAG: InMemoryFlag("it", {"it": value})}))
    assert chosen().source == "environment"


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "headrace.flags"]


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (ProviderNotReadyError("still connecting"), "PROVIDER_NOT_READY: still connecting"),
        (ProviderFatalError("bad key"), "PROVIDER_FATAL: bad key"),
        (GeneralError("503"), "GENERAL: 503"),
        (ParseError("not JSON"), "PARSE_ERROR: not JSON"),
        (TargetingKeyMissingError("who?"), "TARGETING_KEY_MISSING: who?"),
        (ConnectionRefusedError("no route"), "GENERAL: no route"),
    ],
)
def test_a_failing_service_is_passed_over_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: Exception, code: str
) -> None:
    monkeypatch.setenv(FLAG, "on")
    register(Failing(failure))
    for _ in range(3):
        assert chosen() == Decision("parallel", shadow=False, source="environment", flag="on")
    [warning] = warnings_of(caplog)
    assert code in warning
    assert {record.levelno for record in caplog.records if record.name == "headrace.flags"} == {logging.WARNING}


@pytest.mark.parametrize("value", [1, 0, 2.5, {"mode": "on"}, ["on"], None])
def test_a_flag_of_another_type_is_passed_over_with_one_warning(
    caplog: pytest.LogCaptureFixture, value: object
) -> None:
    serve(value)
    assert [chosen().source for _ in range(3)] == ["default"] * 3
    [warning] = warnings_of(caplog)
    assert "TYPE_MISMATCH" in warning


def test_a_second_outage_is_a_second_warning(caplog: pytest.LogCaptureFixture) -> None:
    service = Failing(GeneralError("503"))
    register(service)
    found = []
    for failure in (GeneralError("503"), None, GeneralError("504"), GeneralError("504")):
        service.failure = failure
        found.append(chosen().source)
    assert found == ["default", "flag service", "default", "default"]
    assert ["503" in one for one in warnings_of(caplog)] == [True, False]


class Slow(InMemoryProvider):
    """A service that takes until `go` to get ready."""

    def __init__(self) -> None:
        super().__init__({FLAG: InMemoryFlag("it", {"it": "on"})})
        self.begun, self.go = Event(), Event()

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        self.begun.set()
        assert self.go.wait(WAIT)


def test_a_service_counts_from_when_it_is_ready(caplog: pytest.LogCaptureFixture) -> None:
    slow, ready = Slow(), Event()

    def on_ready(details: EventDetails) -> None:
        if slow.go.is_set():  # a handler also runs at once for the provider before
            ready.set()

    api.add_handler(ProviderEvent.PROVIDER_READY, on_ready)
    starting = Thread(target=api.set_provider, args=(slow,), daemon=True)
    starting.start()
    assert slow.begun.wait(WAIT)
    assert chosen().source == "default"
    slow.go.set()
    assert ready.wait(WAIT)
    starting.join(WAIT)
    assert chosen() == Decision("parallel", shadow=False, source="flag service", flag="on")
    assert len(warnings_of(caplog)) == 1


# --- while a run is going


def test_turning_the_flag_off_takes_effect_at_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"variant": "on"}

    def current(flag: InMemoryFlag[str], context: EvaluationContext) -> FlagResolutionDetails[str]:
        return FlagResolutionDetails(flag.variants[now["variant"]], reason=Reason.STATIC)

    flag = InMemoryFlag("on", {"on": "on", "off": "off"}, context_evaluator=current)
    register(InMemoryProvider({FLAG: flag}))
    assert chosen().mode == "parallel"
    now["variant"] = "off"
    assert chosen().mode == "sequential"
    api.clear_providers()
    monkeypatch.setenv(FLAG, "on")
    assert chosen().mode == "parallel"
    monkeypatch.setenv(FLAG, "off")
    assert chosen().mode == "sequential"


# --- start-up


@pytest.mark.parametrize("explicit", ["parallel", None])
def test_without_a_service_the_sdk_is_not_even_imported(explicit: str | None) -> None:
    code = (
        "import sys; from headrace.options.flag import decide\n"
        f"decide({explicit!r}, 'usgs', 'quakes'); print(sorted(name for name in sys.modules if 'openfeature' in name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_explicit_mode_does_not_ask_the_service() -> None:
    asked = []

    def note(flag: InMemoryFlag[str], context: EvaluationContext) -> FlagResolutionDetails[str]:
        asked.append(context)
        return FlagResolutionDetails("on", reason=Reason.STATIC)

    register(InMemoryProvider({FLAG: InMemoryFlag("on", {"on": "on"}, context_evaluator=note)}))
    assert chosen("sequential").mode == "sequential"
    assert not asked
    assert chosen().mode == "parallel"
    assert len(asked) == 1
