"""The flag: who decides, what the values mean, who is in a canary, and what a failing flag service does (nothing)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.flags import chosen, serve
from xxhash import xxh3_64_intdigest

from headrace.errors import ConfigurationError
from headrace.options.choices import Mode
from headrace.options.flag import FLAG, Decision, in_canary

pytestmark = pytest.mark.usefixtures("no_flag")
SHARES = st.floats(0, 100)


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
