"""The page about a run and its trace: what they say is what the run did, and a real browser shows it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests_support import Headrace

ROWS = 3_500 + 572
HOSTILE = "</script><b>"  # a name that would end the page's script, were it not escaped
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """A parallel load with duplicates and rejects: its report, its page, its trace."""
    folder = tmp_path_factory.mktemp("recorded")
    headrace = Headrace(f"sqlite:///{folder / 'headrace.db'}", folder)
    rows = [f"{n},2024-01-{1 + n // 150:02}T00:00:00Z,{'x' if n % 100 == 7 else 1}" for n in range(4_000)]
    (folder / "a.csv").write_text("n,at,v\n" + "\n".join([*rows[:3_500], *rows[::7]]) + "\n")
    report = headrace.load(
        *("a.csv", "--table", HOSTILE, "--id", "n,at", "--time", "at", "--type", "v=float"),
        *("--mode", "parallel", "--workers", "2", "--partitions", "4", "--chunk-rows", "500"),
        *("--report", "r.html", "--trace", "t.json"),
        expect=3,
    )
    return report, (folder / "r.html").read_text(), json.loads((folder / "t.json").read_text())


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
    assert sum(one[3] for one in data["chunks"]) == ROWS
    assert len({worker.partition("/")[0] for worker in data["workers"]}) == 3  # the coordinator and two workers
    assert {"read", "prepare", "decide", "commit"} <= set(data["stages"])
    assert all(one[2] >= 0 and one[3] >= 0 for one in data["spans"])
    assert max(one[1] for one in data["memory"]) > 10
    found = Resources(page)
    assert (found.found, found.tables) == ([], 5)
    assert HOSTILE not in page
    assert data["title"] == f"Headrace: {HOSTILE}"
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page)


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
        slack = 2_000  # microseconds: begin and length are read from two clocks
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
  const chart = charts.timeline, svg = chart.svg, out = document.createElement("pre");
  const press = key => svg.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const seen = { rects: document.querySelectorAll("svg rect").length, wide: document.documentElement.scrollWidth,
    room: innerWidth, back: getComputedStyle(document.body).backgroundColor };
  svg.focus(); seen.focus = document.activeElement === svg;
  press("ArrowRight"); press("ArrowRight"); seen.second = chart.told.textContent; seen.at = chart.at;
  press("+"); seen.zoomed = chart.high - chart.low; press("0"); seen.whole = chart.high - chart.low;
  const box = svg.querySelector("rect").getBoundingClientRect();
  const over = { clientX: box.x + box.width / 2, clientY: box.y + 5, bubbles: true };
  svg.dispatchEvent(new PointerEvent("pointermove", over));
  seen.hovered = chart.told.textContent;
  seen.unnamed = [...document.querySelectorAll("button")].filter(one => !one.getAttribute("aria-label")).length;
  seen.live = document.querySelectorAll("[aria-live=polite]").length;
  out.id = "seen"; out.textContent = JSON.stringify(seen); document.body.appendChild(out);
}, 200));
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")
@pytest.mark.parametrize(("wide", "dark"), [(1200, False), (1200, True), (390, False)])
def test_a_browser_draws_it_and_it_can_be_used_by_hand_and_by_keyboard(
    recorded: Any, tmp_path: Path, wide: int, dark: bool
) -> None:
    _, page, _ = recorded
    probed = tmp_path / "probed.html"
    # a window of a browser without a screen is no narrower than 500 pixels: the phone is a frame in it
    place = "parent.document.body.append(out)" if wide < 500 else "document.body.append(out)"
    probed.write_text(page.replace("</body>", PROBE.replace("document.body.appendChild(out)", place)))
    shown = probed
    if wide < 500:
        shown = tmp_path / "phone.html"
        shown.write_text(f'<iframe src="probed.html" style="width:{wide}px;height:3000px;border:0"></iframe>')
    command = [
        *(str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
        *(f"--user-data-dir={tmp_path / 'browser'}", f"--window-size={wide},2000", "--virtual-time-budget=4000"),
        *(["--blink-settings=preferredColorScheme=0"] if dark else []),
        *("--allow-file-access-from-files", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", shown.as_uri()),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert "Uncaught" not in done.stderr, done.stderr
    seen = json.loads(re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)[1].replace("&amp;", "&"))
    assert seen["rects"] > 50
    assert seen["wide"] <= seen["room"], "the page must not scroll sideways"
    assert seen["focus"]
    assert seen["at"] == 1
    assert " on a core" in seen["second"]
    assert seen["zoomed"] < seen["whole"]
    assert " on a core" in seen["hovered"]
    assert (seen["unnamed"], seen["live"]) == (0, 5)
    lightness = sum(map(int, re.findall(r"\d+", seen["back"])[:3]))
    assert (lightness < 200) == dark, seen["back"]
