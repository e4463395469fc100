"""Alert rules: names, keys, what is refused before anything is loaded, and what an event raises."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import blake2b
from itertools import pairwise
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ConfigurationError, WorkerError
from headrace.events.alert_judge import Alerting, check_rules, judge
from headrace.events.alert_rule import AlertRule, alert_key, parse_rules, version_bytes
from headrace.options.load import LoadOptions

COLUMNS = pa.schema([("mag", pa.float64()), ("place", pa.string())])
ROWS = [(6.5, "here"), (3.0, "there"), (None, "here"), (math.nan, None), (7.0, "oops")]


def batch(rows: list[tuple[Any, ...]] = ROWS, columns: pa.Schema = COLUMNS) -> pa.RecordBatch:
    data = {
        field.name: pa.array(list(column), field.type)
        for field, column in zip(columns, zip(*rows, strict=True), strict=True)
    }
    ids = pa.array([number.to_bytes(16, "big") for number in range(len(rows))], pa.binary(16))
    return pa.RecordBatch.from_pydict({**data, "event_id": ids, "provider": pa.repeat("acme", len(rows))})


def raised(alerts: pa.RecordBatch | None) -> list[tuple[int, str]]:
    if alerts is None:
        return []
    ids = [int.from_bytes(one, "big") for one in alerts["event_id"].to_pylist()]
    return list(zip(ids, alerts["rule"].to_pylist(), strict=True))


def judged(*rules: AlertRule, on_error: Any = "fail", events: pa.RecordBatch | None = None) -> Any:
    return judge(Alerting(rules, COLUMNS, on_error), batch() if events is None else events, (), "here")


# Keys -----------------------------------------------------------------------------------------------------------


def test_the_key_is_frozen() -> None:
    # by another implementation: b2sum -l 128
    assert alert_key(bytes(range(16)), "strong") == "d5f280ab00ea7ca29447e4ea232c25da"
    assert alert_key(bytes(16), "caf\u00e9") == alert_key(bytes(16), "cafe\u0301") == "0ecd3ac4e8f1c8bea39cc1a21f4756b2"


def test_the_key_of_a_version_is_frozen() -> None:
    def key(value: object, kind: pa.DataType) -> str:
        (version,) = version_bytes(pa.array([value], kind))
        return alert_key(bytes(range(16)), "strong", version)

    # by another implementation: b2sum -l 128 over the ID, "strong", 00, and the version as docs/identity.md says
    assert key(10, pa.int64()) == "e4fb1545b0193f1a22f643dbe7e3b5e9"
    assert key("v2", pa.string()) == "417665ebc207d6d0d551d24366ca4efc"
    moment = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
    assert key(moment, pa.timestamp("us", tz="UTC")) == "4f60675bc4e23555660e55d71a5ae4ed"
    assert key(-1.5, pa.float64()) == "d41a302715a88a4fd883db380cb87eda"
    assert key(None, pa.int64()) == key(math.nan, pa.float64()) == "2968fcdb5f907bfff57c771556187149"
    assert key(-0.0, pa.float64()) == key(0.0, pa.float64()) != key(math.inf, pa.float64())


@given(st.binary(min_size=16, max_size=16), st.text(st.characters(codec="ascii"), min_size=1))
def test_the_key_is_what_the_reference_says(event_id: bytes, rule: str) -> None:
    assert alert_key(event_id, rule) == blake2b(event_id + rule.encode(), digest_size=16).hexdigest()


# Rules as they are given ----------------------------------------------------------------------------------------


def test_rules_are_parsed_from_the_command_line() -> None:
    assert parse_rules(["a=x = 1"], ["b=m:f"]) == (AlertRule("a", where="x = 1"), AlertRule("b", function="m:f"))
    asking = (AlertRule("a", where="x = 1"), AlertRule("b", function="m:f", revisions=True))
    assert parse_rules(["a=x = 1"], ["b=m:f"], ["b"]) == asking
    with pytest.raises(ConfigurationError, match="--alert-revisions c: there is no such rule"):
        parse_rules(["a=x = 1"], ["b=m:f"], ["c"])


@pytest.mark.parametrize(
    ("predicates", "functions", "said"),
    [
        (["strong"], [], "is not NAME=RULE"),
        (["=mag > 1"], [], "cannot be named"),
        (["a\nb=mag > 1"], [], "cannot be named"),
        (["a="], [], "empty"),
        (["a=x"], ["a=m:f"], "two alert rules are named 'a'"),
        (["caf\u00e9=x", "cafe\u0301=y"], [], "two alert rules"),
    ],
)
def test_impossible_rules_are_refused(predicates: list[str], functions: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as error:
        parse_rules(predicates, functions)
    assert error.value.hint


@pytest.mark.parametrize("both", [{}, {"where": "x", "function": "m:f"}])
def test_a_rule_is_either_sql_or_a_function(both: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="either"):
        AlertRule("a", **both)


def test_options_refuse_rules_of_one_name() -> None:
    with pytest.raises(ConfigurationError, match="two alert rules"):
        LoadOptions(alerts=(AlertRule("a", where="x"), AlertRule("a", where="y")))


def test_a_rule_that_asks_for_revisions_needs_an_update() -> None:
    rules = (AlertRule("a", where="x", revisions=True),)
    for revisions in ("ignore", "report"):
        with pytest.raises(ConfigurationError, match="alert rule a asks for revisions") as error:
            LoadOptions(alerts=rules, revisions=revisions)  # type: ignore[arg-type]
        assert "--revisions update" in str(error.value.hint)
    assert LoadOptions(alerts=rules, revisions="update", version_column="v").alerts == rules


def test_a_function_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot be sent"):
        AlertRule("a", function=lambda _: []).require_sendable()
    AlertRule("a", function=len).require_sendable()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("magnitude > 1", '"magnitude" not found'),
        ("mag >", "not a valid SQL predicate"),
        ("mag > 1; DROP TABLE events", "not a valid SQL predicate"),
        ("mag", "of type DOUBLE, not a condition"),
        ("mag > avg(mag)", "aggregates"),
        ("row_number() OVER () = 1", "window functions"),
        ("starts_with(mag, 'x')", "cannot be evaluated"),
        ("mag > (SELECT count(*) FROM read_csv('/etc/hosts'))", "disabled|Permission"),
    ],
)
def test_a_wrong_predicate_is_found_beforehand_with_the_columns_named(where: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as error:
        check_rules([AlertRule("a", where=where)], COLUMNS, all_known=True)
    assert "mag (float), place (string), event_id" in str(error.value)
    assert "alert rule a" in str(error.value)


def test_before_an_enrichment_only_the_grammar_is_judged() -> None:
    check_rules([AlertRule("a", where="country = 'FR'")], COLUMNS, all_known=False)
    with pytest.raises(ConfigurationError, match="not a valid SQL predicate"):
        check_rules([AlertRule("a", where="country =")], COLUMNS, all_known=False)


def test_a_function_that_is_not_there_is_found_beforehand() -> None:
    with pytest.raises(ConfigurationError, match="cannot be imported"):
        check_rules([AlertRule("a", function="no.such:thing")], COLUMNS, all_known=True)


# What an event raises -------------------------------------------------------------------------------------------


def test_predicates_and_functions_raise_sorted_by_event_and_rule() -> None:
    here = AlertRule("here", function=lambda events: pc.equal(events["place"], "here"))
    strong = AlertRule("a strong one", where="mag >= 6 -- and a comment")
    done = judged(here, strong)
    # DuckDB holds nan for the largest number
    assert raised(done.alerts) == [
        (0, "a strong one"),
        (0, "here"),
        (2, "here"),
        (3, "a strong one"),
        (4, "a strong one"),
    ]
    keys = [alert_key(number.to_bytes(16, "big"), rule) for number, rule in raised(done.alerts)]
    assert done.alerts["alert_key"].to_pylist() == keys
    assert judged(AlertRule("never", where="false")).alerts is None


@pytest.mark.parametrize(
    "answer",
    [
        [True, False, None, False, True],
        np.array([True, False, False, False, True]),
        pa.array([True, None, None, None, True]),
        pa.chunked_array([[True, False], [False, None, True]]),
    ],
)
def test_a_function_may_answer_in_any_form(answer: Any) -> None:
    assert raised(judged(AlertRule("f", function=lambda _: answer)).alerts) == [(0, "f"), (4, "f")]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([True], "1 booleans for 5 rows"),
        ([1, 2, 3, 4, 5], "not a boolean"),
        ("yes", "raised|returned"),
        (None, "raised|returned"),
    ],
)
def test_a_function_that_answers_something_else_fails_the_run(answer: Any, said: str) -> None:
    with pytest.raises(WorkerError, match=said):
        judged(AlertRule("f", function=lambda _: answer))


def test_columns_that_the_events_lack_are_null() -> None:
    few = batch([(6.5,), (1.0,)], pa.schema([("mag", pa.float64())]))
    rules = [AlertRule("missing", where="place IS NULL"), AlertRule("f", function=lambda e: pc.is_null(e["place"]))]
    assert raised(judged(*rules, events=few).alerts) == [(0, "f"), (0, "missing"), (1, "f"), (1, "missing")]
    untyped = judge(
        Alerting((AlertRule("n", where="country = 'FR' OR score > 3"),), COLUMNS), few, ["country", "score"], ""
    )
    assert untyped.alerts is None


def test_rows_on_which_a_rule_fails_are_told_apart() -> None:
    number = AlertRule("number", where="CAST(place AS INTEGER) > 10")
    events = batch([(1.0, "12"), (2.0, "oops"), (3.0, "3"), (4.0, "13"), (5.0, "x")])
    with pytest.raises(WorkerError, match="alert rule number raised ConversionException") as error:
        judged(number, events=events)
    assert error.value.where == "here"
    done = judged(number, on_error="reject", events=events)
    assert raised(done.alerts) == [(0, "number"), (3, "number")]
    assert [row for row, _ in done.failed] == [1, 4]
    assert done.events["mag"].to_pylist() == [1.0, 3.0, 4.0]


def test_the_payload_is_the_event_to_the_last_digit() -> None:
    columns = {
        "i": pa.array([2**62], pa.int64()),
        "f": pa.array([0.1], pa.float64()),
        "inf": pa.array([-math.inf], pa.float64()),
        'say "hi"\n': pa.array(['\u00e9"\\\n\0x']),
        "A": pa.array([True]),
        "a": pa.array([False]),
        "t": pa.array([datetime(1969, 12, 31, 23, 59, 59, 500, UTC)], pa.timestamp("us", "UTC")),
        "d": pa.array([date(2024, 2, 29)]),
        "n": pa.array([Decimal("12345678901234567890.10")], pa.decimal128(38, 2)),
        "b": pa.array([b"\0\xff"], pa.binary()),
        "gone": pa.array([None], pa.string()),
        "event_id": pa.array([bytes(range(16))], pa.binary(16)),
        "provider": pa.array(["acme"]),
    }
    events = pa.RecordBatch.from_pydict(columns)
    schema = pa.schema([field for field in events.schema if field.name not in ("event_id", "provider")])
    done = judge(Alerting((AlertRule("all", where="true"),), schema), events, (), "")
    assert done.alerts is not None
    (payload,) = done.alerts["payload"].to_pylist()
    assert json.loads(payload) == {
        "i": 2**62,
        "f": 0.1,
        "inf": "-inf",
        'say "hi"\n': '\u00e9"\\\n\0x',
        "A": True,
        "a": False,
        "t": "1969-12-31T23:59:59.000500Z",
        "d": "2024-02-29",
        "n": "12345678901234567890.10",
        "b": "AP8=",
        "event_id": str(UUID(bytes=bytes(range(16)))),
        "provider": "acme",
    }


@given(
    rows=st.lists(
        st.tuples(st.none() | st.floats(allow_nan=False), st.none() | st.text("ab", max_size=2)),
        min_size=1,
        max_size=30,
    ),
    cuts=st.lists(st.integers(0, 30), max_size=3),
)
def test_rules_agree_with_a_plain_oracle_however_the_input_is_cut(rows: list[tuple[Any, ...]], cuts: list[int]) -> None:
    rules = (AlertRule("s", where="mag >= 6"), AlertRule("p", where="place LIKE 'a%' AND mag < 0"))
    oracle = {(n, "s") for n, (mag, _) in enumerate(rows) if mag is not None and mag >= 6}
    oracle |= {
        (n, "p") for n, (mag, place) in enumerate(rows) if (place or "").startswith("a") and mag is not None and mag < 0
    }
    whole = batch(rows)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [whole.slice(start, end - start) for start, end in pairwise(edges) if end > start]
    found = [one for part in parts for one in raised(judge(Alerting(rules, COLUMNS), part, (), "").alerts)]
    assert sorted(found) == sorted(oracle)
