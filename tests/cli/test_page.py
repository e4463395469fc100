"""The page about a run and its trace: what they say is what the run did, and a real browser shows it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.needs import program
from support.program import Headrace

from headrace.observability.page import page_data
from headrace.observability.recorder import Recorder
from headrace.storage.spans import Span

ROWS = 3_500 + 572
HOSTILE = "</script><b>"  # a name that would end the page's script, were it not escaped


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """A parallel load with duplicates and rejects: its report, its page, its trace."""
    folder = tmp_path_factory.mktemp("recorded")
    headrace = Headrace(f"sqlite:///{folder / 'headrace.db'}", folder)
    rows = [f"{n},2024-01-{1 + n // 150:02}T00:00:00Z,{'x' if n % 100 == 7 else 1}" for n in range(4_000)]
    (folder / "a.csv").write_text("n,at,v\n" + "\n".join([*rows[:3_500], *rows[::7]]) + "\n")
    report = headrace.load(
        *("a.csv", "--table", HOSTILE, "--id", "n,at", "--time", "at", "--type", "v=float"),
        *("--mode", "parallel", "--workers", "2", "--strategy", "locked", "--partitions", "4", "--chunk-rows", "500"),
        *("--report", "r.html", "--trace", "t.json"),
        expect=3,
    )
    return report, (folder / "r.html").read_text(), json.loads((folder / "t.json").read_text())


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """A profile, and its page, with the parallel run below the sequential one."""
    folder = tmp_path_factory.mktemp("profiled")
    headrace = Headrace(f"sqlite:///{folder / 'headrace.db'}", folder)
    rows = [f"{n},2024-01-{1 + n // 150:02}T00:00:00Z" for n in range(4_000)]
    (folder / "a.csv").write_text("n,at\n" + "\n".join([*rows, *rows[::10]]) + "\n")
    found = headrace.json(
        *("profile", "a.csv", "--table", HOSTILE, "--id", "n,at", "--time", "at", "--chunk-rows", "500"),
        *("--sample", "0", "--workers", "2", "--report", "r.html"),
    )
    return found, (folder / "r.html").read_text()


def data_of(page: str) -> dict[str, Any]:
    return dict(json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]))


class Resources(HTMLParser):
    """Every address that a page would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tables = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [str(value) for name, value in attributes if name in {"src", "href", "srcset", "action"}]
        self.tables += tag == "table"


def test_the_page_says_what_the_run_did_and_fetches_nothing(recorded: tuple[dict[str, Any], str, Any]) -> None:
    report, page, _ = recorded
    data = data_of(page)
    sums = [sum(one[at] for one in data["outcomes"]) for at in range(1, 6)]
    names = ("read", "inserted", "duplicate_in_input", "duplicate_in_store", "rejected")
    assert sums == [report[name] for name in names]
    assert [one[0] for one in data["outcomes"]] == sorted(one[0] for one in data["outcomes"])
    assert data["by_time"]
    assert sum(rows for _, rows in data["partitions"]) == ROWS
    assert [one for one, _ in data["partitions"]] == [0, 1, 2, 3]
    assert sum(one[4] for one in data["chunks"]) == ROWS
    assert sum(one[6] for one in data["chunks"]) == report["chunks"]
    assert len({worker.partition("/")[0] for worker in data["workers"]}) == 3  # the coordinator and two workers
    assert data["lanes"][0] == "coordinator"
    assert data["lanes"][-2:] == ["worker 1", "worker 2"]
    assert data["beside"] is None
    assert {"read", "prepare", "decide", "commit"} <= set(data["stages"])
    assert all(one[2] >= 0 and one[3] >= 0 for one in data["spans"])
    assert max(one[1] for one in data["memory"]) > 10
    found = Resources(page)
    assert (found.found, found.tables) == ([], 5)
    assert HOSTILE not in page
    assert data["title"] == f"Headrace: {HOSTILE}"
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page)


def test_the_page_of_a_profile_shows_both_runs_by_worker_and_by_chunk(profiled: tuple[dict[str, Any], str]) -> None:
    found, page = profiled
    data = data_of(page)
    beside = data["beside"]
    assert (data["way"], beside["way"]) == ("sequential", "parallel, 2 workers")
    assert len({worker.partition("/")[0] for worker in data["workers"]}) == 1
    # one worker may have done it all before the other was there
    workers = [f"worker {number}" for number in range(1, len({one.partition("/")[0] for one in beside["workers"]}))]
    assert workers
    assert [one for one in beside["lanes"] if one.startswith("worker")] == workers
    assert beside["lanes"][0] == "coordinator"
    busy = {beside["lanes"][one[0]] for one in beside["spans"] if data["stages"][one[1]] == "prepare"}
    assert busy
    assert busy <= set(workers)
    for run, way in ((data, "sequential"), (beside, "parallel")):
        told = found["chunks"][way]["chunks"]
        for at, name in ((1, "on_a_core"), (4, "rows"), (5, "bytes"), (6, "chunks")):
            assert sum(one[at] for one in run["chunks"]) == pytest.approx(sum(one[name] for one in told), abs=1e-4)
        waiting = sum(one[2] + one[3] for one in run["chunks"])
        assert waiting == pytest.approx(sum(one["waiting"] for one in told), abs=1e-4)
    database = [one["waiting_for_database"] for one in found["chunks"]["sequential"]["chunks"]]
    assert [one[2] for one in data["chunks"]] == pytest.approx(database, abs=1e-6)
    assert [one[6] for one in data["chunks"]] == [1] * 9
    assert [one[6] for one in beside["chunks"]] == [1] * 9
    resources = Resources(page)
    assert (resources.found, resources.tables) == ([], 7)
    assert HOSTILE not in page


def test_each_worker_and_each_thread_of_the_coordinator_has_a_lane_with_a_name() -> None:
    recorded = Recorder()
    threads = ("70/MainThread", "30/MainThread", "10/headrace-read_0", "10/MainThread", "30/other", "10/mine")
    stages = ("commit", "prepare", "read", "agree", "commit", "enrich")
    recorded.spans = [
        Span(stage, at, 1.0, 0.5, who) for at, (stage, who) in enumerate(zip(stages, threads, strict=True))
    ]
    data = page_data(recorded)
    assert dict(zip(data["workers"], data["lanes"], strict=True)) == {
        "10/headrace-read_0": "read thread",
        "10/MainThread": "coordinator",
        "10/mine": "mine",
        "70/MainThread": "worker 1",
        "30/MainThread": "worker 2/MainThread",
        "30/other": "worker 2/other",
    }
    assert [name.partition(" ")[0] for name in data["lanes"]] == ["read", "coordinator", "mine", *["worker"] * 3]
    assert [data["workers"][one[0]] for one in data["spans"]] == list(threads)


def test_the_trace_has_every_span_on_its_track_with_parts_inside_their_stages(recorded: Any) -> None:
    _, page, trace = recorded
    events = trace["traceEvents"]
    spans = [one for one in events if one["ph"] == "X"]
    drawn = [one for one in spans if "." not in one["name"] or one["name"].startswith("wait.")]
    assert len(drawn) == len(data_of(page)["spans"])
    named = {(one["pid"], one["tid"]) for one in events if one["ph"] == "M" and one["name"] == "thread_name"}
    assert {(one["pid"], one["tid"]) for one in spans} == named
    outer = [one for one in spans if one["name"] == "commit"]
    for part in (one for one in spans if one["name"].startswith("commit.")):
        slack = 2  # microseconds, to which both are rounded
        assert any(
            one["tid"] == part["tid"]
            and one["ts"] - slack <= part["ts"]
            and part["ts"] + part["dur"] <= one["ts"] + one["dur"] + slack
            for one in outer
        ), part
    assert any(one["ph"] == "C" for one in events)


def test_a_run_that_fails_leaves_its_page_and_a_file_that_cannot_be_written_stops_it(
    sqlite_url: str, tmp_path: Path
) -> None:
    headrace = Headrace(sqlite_url, tmp_path)
    (tmp_path / "a.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(100)))
    (tmp_path / "bad.py").write_text("def fail(events):\n    raise ValueError('on purpose')\n")
    headrace.run("load", "a.csv", "--id", "n", "--report", "nowhere/r.html", expect=2)
    assert not (tmp_path / "headrace.db").exists()
    headrace.run("load", "a.csv", "--id", "n", "--enrich", "bad:fail", "--report", "r.html", expect=1)
    assert "on purpose" in data_of((tmp_path / "r.html").read_text())["state"]


PROBE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const out = document.createElement("pre");
  const seen = { rects: document.querySelectorAll("svg rect").length, wide: document.documentElement.scrollWidth,
    room: innerWidth, back: getComputedStyle(document.body).backgroundColor, charts: {} };
  for (const name of Object.keys(charts).filter(name => /^(timeline|chunks)/.test(name))) {
    const chart = charts[name], svg = chart.svg, used = seen.charts[name] = { last: chart.last };
    const press = key => svg.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    svg.focus(); used.focus = document.activeElement === svg;
    press("ArrowRight"); press("ArrowRight"); used.second = chart.told.textContent; used.at = chart.at;
    press("+"); used.zoomed = chart.high - chart.low; press("0"); used.whole = chart.high - chart.low;
    const box = svg.querySelector("rect").getBoundingClientRect();
    const over = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, bubbles: true };
    chart.told.textContent = ""; svg.dispatchEvent(new PointerEvent("pointermove", over));
    used.hovered = chart.told.textContent;
    used.named = document.getElementById(svg.getAttribute("aria-labelledby")).textContent;
    if (!chart.lanes) {
      for (const mark of chart.marks.filter(mark => mark.x === 0)) { mark.low *= 1000; mark.high *= 1000; }
      chart.range(2, chart.last);
      used.highest = Math.min(...[...svg.querySelectorAll("rect")].map(one => +one.getAttribute("y")));
    }
    used.lanes = [...svg.querySelectorAll("text")].map(one => one.textContent);
  }
  const labels = [...document.querySelectorAll("button")].map(one => one.getAttribute("aria-label"));
  seen.unnamed = labels.filter(one => !one).length;
  seen.ambiguous = labels.length - new Set(labels).size;
  seen.live = document.querySelectorAll("[aria-live=polite]").length;
  out.id = "seen"; out.textContent = JSON.stringify(seen); document.body.appendChild(out);
}, 200));
</script></body>"""


def shown_by_chromium(page: str, folder: Path, wide: int, dark: bool) -> dict[str, Any]:
    """What a browser makes of the page, used by keyboard and pointer."""
    probed = folder / "probed.html"
    # a window of a browser without a screen is no narrower than 500 pixels: the phone is a frame in it
    place = "parent.document.body.append(out)" if wide < 500 else "document.body.append(out)"
    probed.write_text(page.replace("</body>", PROBE.replace("document.body.appendChild(out)", place)))
    shown = probed
    if wide < 500:
        shown = folder / "phone.html"
        shown.write_text(f'<iframe src="probed.html" style="width:{wide}px;height:3000px;border:0"></iframe>')
    command = [
        *(program("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
        *(f"--user-data-dir={folder / 'browser'}", f"--window-size={wide},2000", "--virtual-time-budget=4000"),
        *(["--blink-settings=preferredColorScheme=0"] if dark else []),
        *("--allow-file-access-from-files", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", shown.as_uri()),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120, env={**os.environ, "HOME": str(folder)}
    )
    assert "Uncaught" not in done.stderr, done.stderr
    seen = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)[1].replace("&amp;", "&")
    return dict(json.loads(seen))


@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize(("wide", "dark"), [(1200, False), (1200, True), (390, False)])
def test_a_browser_draws_it_and_it_can_be_used_by_hand_and_by_keyboard(
    recorded: Any, profiled: Any, tmp_path: Path, wide: int, dark: bool, runs: int
) -> None:
    page = recorded[1] if runs == 1 else profiled[1]
    seen = shown_by_chromium(page, tmp_path, wide, dark)
    assert seen["rects"] > 50
    assert seen["wide"] <= seen["room"], "the page must not scroll sideways"
    charts = seen["charts"]
    assert list(charts) == ["timeline", "chunks", "timeline-beside", "chunks-beside"][: 2 * runs]
    for used in charts.values():
        assert used["focus"]
        assert used["at"] == 1
        assert " on a core" in used["second"]
        assert used["zoomed"] < used["whole"]
        assert " on a core" in used["hovered"]
    for name in ("chunks", "chunks-beside")[:runs]:
        # a giant out of view sets no scale: the highest bar takes at least half of the 170 pixels
        assert 7.99 <= charts[name]["highest"] <= 8 + 170 * 0.55, name
    assert len({used["named"] for used in charts.values()}) == 2 * runs
    assert (seen["unnamed"], seen["ambiguous"], seen["live"]) == (0, 0, 3 + 2 * runs)
    if runs == 2:
        assert charts["timeline"]["last"] == charts["timeline-beside"]["last"], "two runs, one time axis"
        assert set(data_of(page)["beside"]["lanes"]) <= set(charts["timeline-beside"]["lanes"])
        assert "waiting for the database" in charts["chunks-beside"]["second"]
    lightness = sum(map(int, re.findall(r"\d+", seen["back"])[:3]))
    assert (lightness < 200) == dark, seen["back"]
