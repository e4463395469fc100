"""Real FIRMS polls, served in order by a local web server, through ``headrace run``."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from support.feeds import Answer, feeds_server
from support.needs import real_data
from support.program import Headrace

FILE = """
[run]
downloads = 2
[providers.modis]
url = "{url}/fires.geojson"
table = "fires"
id = ["latitude", "longitude", "acq_date", "acq_time", "satellite"]
types = {{ frp = "float" }}
alerts = [{{ name = "large", where = "frp > 100" }}, {{ name = "night", where = "daynight = 'N' AND frp > 50" }}]
"""
RULES = {"large": "frp > 100", "night": "daynight = 'N' AND frp > 50"}


@pytest.fixture
def polls() -> list[bytes]:
    return [path.read_bytes() for path in sorted(real_data("firms").glob("modis_global_24h_*.geojson"))]


def poll(headrace: Headrace, *words: str, expect: int = 0) -> dict[str, Any]:
    """One round, whether due or not; the one provider of it."""
    done = headrace.run("run", "--force", "--output", "json", *words, expect=expect)
    (provider,) = json.loads(done.stdout)["providers"]
    return dict(provider)


def waits(headrace: Headrace) -> float:
    ((polled, following),) = headrace.query("SELECT polled_at, next_at FROM headrace_providers")
    moments = [datetime.fromisoformat(one) if isinstance(one, str) else one for one in (polled, following)]
    return float((moments[1] - moments[0]).total_seconds())


def one_alert_for_each_matching_event(headrace: Headrace) -> None:
    raised = headrace.query("SELECT rule, event_id FROM headrace_alerts ORDER BY rule, event_id")
    matching = [
        (rule, event_id)
        for rule, where in RULES.items()
        for (event_id,) in headrace.query(f"SELECT event_id FROM fires WHERE {where} ORDER BY event_id")  # noqa: S608
    ]
    assert raised == matching
    assert {rule for rule, _ in raised} == set(RULES)


@pytest.mark.parametrize("conditional", [True, False], ids=["etag", "content"])
def test_three_polls_add_what_each_brings_and_the_third_again_is_not_parsed(
    headrace: Headrace, polls: list[bytes], conditional: bool
) -> None:
    with feeds_server() as feeds:
        (headrace.folder / "headrace.toml").write_text(FILE.format(url=feeds.url))
        for body, read, inserted in zip(polls, (4227, 4571, 4971), (4227, 344, 400), strict=True):
            feeds.answers["/fires.geojson"] = Answer(body, conditional=conditional)
            found = poll(headrace)
            assert (found["outcome"], found["read"], found["inserted"]) == ("loaded", read, inserted)
            one_alert_for_each_matching_event(headrace)
        again = poll(headrace)
        assert (again["outcome"], again["read"], again["run_id"]) == ("unchanged", 0, None)
        assert feeds.statuses("/fires.geojson") == [200, 200, 200, 304 if conditional else 200]
        assert len(headrace.json("runs", "list")["runs"]) == 3
        assert headrace.count("fires") == 4971
        reread = poll(headrace, "--reread")
        assert (reread["outcome"], reread["duplicate_in_store"]) == ("loaded", 4971)
        one_alert_for_each_matching_event(headrace)
    (state,) = headrace.query("SELECT polls, failures, empty_polls, inserted, read FROM headrace_providers")
    assert state == (5, 0, 0, 4971, 4227 + 4571 + 4971 + 4971)


def test_a_server_that_is_down_is_backed_off_from_and_comes_back(headrace: Headrace, polls: list[bytes]) -> None:
    with feeds_server() as feeds:
        (headrace.folder / "headrace.toml").write_text(FILE.format(url=feeds.url))
        feeds.answers["/fires.geojson"] = Answer(polls[0])
        assert poll(headrace)["inserted"] == 4227
        port = int(feeds.url.rpartition(":")[2])
    waited = []
    for _ in range(4):
        found = poll(headrace, expect=1)
        assert found["outcome"] == "failed"
        assert "cannot be read" in found["error"]
        waited.append(waits(headrace))
    assert all(0.9 * 30 * 2**n <= wait <= 1.1 * 30 * 2**n for n, wait in enumerate(waited)), waited
    # a round that is not forced leaves it alone until then
    left = json.loads(headrace.run("run", "--output", "json").stdout)["providers"][0]
    assert left["outcome"] == "not due"
    with feeds_server(port) as feeds:
        feeds.answers["/fires.geojson"] = Answer(polls[1])
        found = poll(headrace)
        assert (found["outcome"], found["inserted"]) == ("loaded", 344)
    assert headrace.query("SELECT failures, error FROM headrace_providers") == [(0, None)]
    assert waits(headrace) == pytest.approx(300 * 0.95)
