"""The flag: who decides, what the values mean, who is in a canary, and what a failing flag service does (nothing)."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from threading import Event, Thread
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
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
from xxhash import xxh3_64_intdigest

from headrace import flags
from headrace.errors import ConfigurationError
from headrace.flags import FLAG, Decision, Mode, decide, in_canary

WAIT = 30
SHARES = st.floats(0, 100)
# from SDK 0.10 on set_provider starts a thread; before, it waited, and there was no other
register: Callable[..., None] = getattr(api, "set_provider_and_wait", api.set_provider)


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(FLAG, raising=False)
    monkeypatch.setattr(flags, "_reported", set())
    yield
    api.clear_providers()


def memory(value: object) -> InMemoryProvider:
    return InMemoryProvider({FLAG: InMemoryFlag("it", {"it": value})})


def serve(value: object, domain: str | None = None) -> None:
    register(memory(value), domain)


def chosen(explicit: Mode | None = None, provider: str = "usgs", table: str = "quakes") -> Decision:
    return decide(explicit, provider, table)


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


@pytest.mark.parametrize(
    ("explicit", "service", "environment", "mode", "source", "flag"),
    [
        ("sequential", "on", "on", "sequential", "argument", "sequential"),
        ("parallel", "off", "off", "parallel", "argument", "parallel"),
        ("parallel", "nonsense", "nonsense", "parallel", "argument", "parallel"),
        ("parallel", None, None, "parallel", "argument", "parallel"),
        (None, "on", "off", "parallel", "flag service", "on"),
        (None, "off", "on", "sequential", "flag service", "off"),
        (None, "on", "nonsense", "parallel", "flag service", "on"),
        (None, "on", None, "parallel", "flag service", "on"),
        (None, "", "on", "parallel", "environment", "on"),
        (None, None, "on", "parallel", "environment", "on"),
        (None, None, "off", "sequential", "environment", "off"),
        (None, None, "", "sequential", "default", "off"),
        (None, None, "  ", "sequential", "default", "off"),
        (None, None, None, "sequential", "default", "off"),
    ],
)
def test_an_argument_beats_a_service_beats_the_environment_beats_the_default(
    monkeypatch: pytest.MonkeyPatch,
    explicit: Mode | None,
    service: str | None,
    environment: str | None,
    mode: Mode,
    source: Literal["argument", "flag service", "environment", "default"],
    flag: str,
) -> None:
    if service is not None:
        serve(service)
    if environment is not None:
        monkeypatch.setenv(FLAG, environment)
    assert chosen(explicit) == Decision(mode, shadow=False, source=source, flag=flag)


@pytest.mark.parametrize(
    ("text", "mode", "shadow"),
    [
        *((text, "sequential", False) for text in ("off", "OFF", "false", "False", "0", "no", "No", " off\n")),
        *((text, "parallel", False) for text in ("on", "On", "true", "TRUE", "1", "yes", "YES", " on ")),
        *((text, "sequential", True) for text in ("shadow", "Shadow", " SHADOW ")),
        *((text, "sequential", False) for text in ("canary:0", "canary:0.0")),
        *((text, "parallel", False) for text in ("canary:100", "Canary:100.0", "CANARY:0100")),
    ],
)
@pytest.mark.parametrize("by_service", [False, True])
def test_values(monkeypatch: pytest.MonkeyPatch, text: str, mode: Mode, shadow: bool, by_service: bool) -> None:
    if by_service:
        serve(text)
    else:
        monkeypatch.setenv(FLAG, text)
    assert chosen() == Decision(mode, shadow, "flag service" if by_service else "environment", text.strip())


GARBAGE = [
    *("maybe", "2", "-1", "parallel", "sequential", "offf", "on off", "None", "null", "\u017fhadow", "on\0"),
    *("canary:", "canary:ten", "canary:-1", "canary:100.1", "canary:1e1", "canary:nan", "canary:inf", "canary:5%"),
    *("canary: 5", "canary:.5", "canary:5.", "canary:1,5", "canary:\u0665", "canary:5:5", f"canary:{'9' * 400}"),
]


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_from_a_service_is_refused(text: str) -> None:
    serve(text)
    with pytest.raises(ConfigurationError) as caught:
        chosen()
    assert caught.value.where == f"{FLAG} (flag service)"
    assert repr(text) in caught.value.what
    assert "canary" in (caught.value.hint or "")


@pytest.mark.parametrize("text", [text for text in GARBAGE if "\0" not in text])
def test_garbage_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(FLAG, text)
    with pytest.raises(ConfigurationError) as caught:
        chosen()
    assert caught.value.where == f"{FLAG} (environment)"
    assert caught.value.exit_code == 2


@given(st.text() | st.from_regex(r"(?i)\A(on|off|canary|shadow)\W?\w*\Z"))
def test_any_text_is_a_decision_or_a_configuration_error(text: str) -> None:
    serve(text)
    try:
        decision = chosen()
    except ConfigurationError:
        return
    assert decision.flag == (text.strip() or "off")
    assert not (decision.shadow and decision.mode == "parallel")


def test_an_unknown_mode_is_refused() -> None:
    unknown: Any = "Parallel"
    with pytest.raises(ConfigurationError, match="'Parallel'"):
        chosen(unknown)


# --- the canary


@given(st.text(), SHARES)
@example("", 0.0)
@example("", 100.0)
def test_the_canary_is_the_published_formula(provider: str, share: float) -> None:
    point = Fraction(xxh3_64_intdigest(provider.encode("utf-8")), 2**64)
    assert in_canary(provider, share) == (point < Fraction(share) / 100)


def test_who_is_in_the_canary_is_frozen() -> None:
    # the first whole percentage each of them is in
    frozen = {"": 18, "usgs": 24, "firms": 93, "opensky": 89, "default": 43, "météo-france": 89, "気象庁": 43}
    assert {name: next(share for share in range(101) if in_canary(name, share)) for name in frozen} == frozen


@given(st.text(), SHARES, SHARES)
def test_a_larger_share_only_adds(provider: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert in_canary(provider, small) <= in_canary(provider, large)


@pytest.mark.parametrize("share", [0.5, 2.5, 10, 50, 99])
def test_the_share_is_right(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    providers = 10_000
    monkeypatch.setenv(FLAG, f"canary:{share}")
    found = sum(chosen(provider=f"provider-{number}").mode == "parallel" for number in range(providers))
    chance = share / 100
    # six standard deviations of a binomial count
    assert abs(found - providers * chance) < 6 * (providers * chance * (1 - chance)) ** 0.5


def test_a_bare_canary_is_ten_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for text in ("canary", "canary:10", "canary:50"):
        monkeypatch.setenv(FLAG, text)
        found[text] = {name for name in map(str, range(1000)) if chosen(provider=name).mode == "parallel"}
    assert found["canary"] == found["canary:10"]
    assert found["canary"] < found["canary:50"]


def test_the_table_does_not_move_a_provider_in_or_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FLAG, "canary:50")
    for name in map(str, range(50)):
        assert chosen(provider=name, table="one") == chosen(provider=name, table="two")


# --- the flag service


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
        "import sys; from headrace.flags import decide\n"
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
