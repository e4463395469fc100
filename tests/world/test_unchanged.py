"""A poll says *unchanged* only where what was delivered is still in the table: a validator speaks of the feed alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.feeds import Answer, Feeds, feeds_server
from support.polling import FakeClock, Rounds, hear, rounds
from support.program import Headrace

from headrace.observability.observers import observing
from headrace.observability.stages import Silent
from headrace.polling import delivery_loads, unchanged
from headrace.polling.config_file import read_settings
from headrace.polling.sources import describe
from headrace.storage import open_store, providers
from headrace.storage.records import Committed, Slice

FILE = """
database = "{database}"
[providers.p]
{source}
id = ["k"]
table = "ev"
interval = "5m"
"""
STALE = "Sun, 01 Mar 2026 00:00:00 GMT"


@dataclass
class Feed:
    """What the provider offers, by each way in which it can say that nothing has changed."""

    way: str
    folder: Path
    feeds: Feeds

    @property
    def source(self) -> str:
        return 'path = "p.csv"' if self.way == "path" else f'url = "{self.feeds.url}/p.csv"'

    def offer(self, rows: int, *, first: int = 0) -> None:
        text = "k,v\n" + "".join(f"{k},x\n" for k in range(first, first + rows))
        if self.way == "path":
            (self.folder / "p.csv").write_text(text)
            return

        def answer() -> Answer:
            asked = dict(self.feeds.headers).get("If-Modified-Since") if self.way == "modified" else None
            dated = {"Last-Modified": STALE} if self.way == "modified" else {}
            return Answer(text.encode(), 304 if asked == STALE else 200, dated, conditional=self.way == "etag")

        self.feeds.answers["/p.csv"] = answer


@pytest.fixture
def feeds() -> Iterator[Feeds]:
    with feeds_server() as opened:
        yield opened


@pytest.fixture(params=["path", "etag", "modified", "content"])
def feed(request: pytest.FixtureRequest, tmp_path: Path, feeds: Feeds) -> Feed:
    return Feed(request.param, tmp_path, feeds)


def opened(feed: Feed, url: str, **more: object) -> object:
    return rounds(feed.folder, FILE.format(database=url, source=feed.source), **more)  # type: ignore[arg-type]


def emptied(headrace: Headrace) -> None:
    headrace.query("DELETE FROM ev")


def truncated(headrace: Headrace) -> None:
    headrace.query("DELETE FROM ev" if headrace.url.startswith("sqlite") else "TRUNCATE ev")


def dropped(headrace: Headrace) -> None:
    headrace.query("DROP TABLE ev")


def one_deleted(headrace: Headrace) -> None:
    headrace.query("DELETE FROM ev WHERE k = 7")


def swapped(headrace: Headrace) -> None:
    headrace.query("ALTER TABLE ev RENAME TO ev_old")


def restored(headrace: Headrace) -> None:
    """From a copy of before the last load."""
    headrace.query("DELETE FROM ev WHERE k >= 5")


def one_replaced(headrace: Headrace) -> None:
    """As many rows as before, one of them another's."""
    other = "x'00112233445566778899aabbccddeeff'" if headrace.url.startswith("sqlite") else "gen_random_uuid()"
    headrace.query(f"UPDATE ev SET event_id = {other} WHERE k = 3")  # noqa: S608 - our own literal


def forgotten(headrace: Headrace) -> None:
    """Nothing says what was met: it is read once more."""
    headrace.query("DELETE FROM headrace_witnesses")


ACTS = [emptied, truncated, dropped, one_deleted, swapped, restored, one_replaced, forgotten]


@pytest.mark.parametrize("act", ACTS)
def test_what_is_gone_from_the_table_is_loaded_again(
    feed: Feed, headrace: Headrace, act: Callable[[Headrace], None]
) -> None:
    feed.offer(5)
    with opened(feed, headrace.url) as go:  # type: ignore[attr-defined]
        assert go.one().outcome == "loaded"
        feed.offer(10)
        if feed.way == "modified":
            feed.feeds.answers["/p.csv"] = Answer(b"k,v\n" + b"".join(b"%d,x\n" % k for k in range(10)))
            go.one(300)
            feed.offer(10)
        assert go.one(300).outcome in ("loaded", "unchanged")
        assert go.one(300).outcome == "unchanged"
        act(headrace)
        assert go.one(300).outcome == "loaded"
        assert {k for (k,) in headrace.query("SELECT k FROM ev")} == set(range(10))
        assert go.one(300).outcome == "unchanged", "what is there is believed in again"


def test_the_whole_database_of_an_older_day_is_filled_up(feed: Feed, sqlite_url: str, tmp_path: Path) -> None:
    """Restored are the ledger and the table, and the validators with them; or the table alone."""
    headrace, copy = Headrace(sqlite_url, tmp_path), tmp_path / "copy.db"
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    feed.offer(5)
    with opened(feed, sqlite_url) as go:  # type: ignore[attr-defined]
        go()
    shutil.copy(file, copy)
    feed.offer(10)
    with opened(feed, sqlite_url, clock=go.clock) as go:  # type: ignore[attr-defined]
        go(300)
    shutil.copy(copy, file)
    with opened(feed, sqlite_url, clock=go.clock) as go:  # type: ignore[attr-defined]
        assert go.one(300).outcome == ("unchanged" if feed.way == "modified" else "loaded")
        if feed.way != "modified":  # that one's server said that nothing had come since the copy
            assert headrace.count("ev") == 10


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ('table = "other"', True),
        ('select = "SELECT * FROM source WHERE k < 3"', True),
        ('types = { v = "string" }', True),
        ('missing_id = "keep-whole-row"', False),
        ('headers = { Accept = "text/csv" }', True),
        ("chunk_rows = 17", None),
        ('interval = "6m"', None),
    ],
)
def test_another_treatment_of_the_same_content_reads_it_again(
    store_url: str, tmp_path: Path, feeds: Feeds, change: str, again: bool | None
) -> None:
    feed = Feed("etag", tmp_path, feeds)
    feed.offer(5)
    text = FILE.format(database=store_url, source=feed.source)
    with rounds(tmp_path, text) as go:
        go()
    name = change.partition(" =")[0]
    kept = "\n".join(line for line in text.splitlines() if not line.startswith(name))
    with rounds(tmp_path, f"{kept}\n{change}\n", clock=go.clock) as changed:
        poll = changed.one(400)
        assert poll.outcome in (("unchanged",) if again is None else ("loaded", "failed")), poll.error


def test_another_question_of_the_same_address_is_another_delivery(store_url: str, tmp_path: Path, feeds: Feeds) -> None:
    """The query and the headers are shown to nobody, and decide what comes all the same."""
    feed, clock = Feed("etag", tmp_path, feeds), FakeClock()
    feed.offer(5)
    seen = set()
    for question in ("?days=1", "?days=7", "?days=7"):
        source = f'url = "{feeds.url}/p.csv{question}"'
        with rounds(tmp_path, FILE.format(database=store_url, source=source), clock=clock) as go:
            go(300)
        seen.add(describe(read_settings(tmp_path / "headrace.toml").providers[0]))
    assert feeds.statuses(f"/p.csv{question}") == [200, 304]
    assert len(seen) == 2


def test_a_server_that_says_unchanged_without_being_asked_is_not_believed(
    store_url: str, tmp_path: Path, feeds: Feeds, headrace: Headrace
) -> None:
    feed = Feed("etag", tmp_path, feeds)
    feed.offer(5)
    with opened(feed, store_url) as go:  # type: ignore[attr-defined]
        go()
        headrace.query("DELETE FROM ev")
        feeds.answers["/p.csv"] = Answer(status=304)
        poll = go.one(300)
        assert (poll.outcome, "a request without conditions" in (poll.error or "")) == ("failed", True)
        feed.offer(5)
        go(300)
        assert headrace.count("ev") == 5


class EmptyAfterASlice(Silent):
    """A neighbour that empties the table when the first slice of a run was committed, once."""

    def __init__(self, headrace: Headrace) -> None:
        self._headrace, self._done = headrace, False

    def committed(self, piece: Slice, done: Committed) -> None:
        if not self._done:
            self._done = True
            emptied(self._headrace)


@pytest.mark.parametrize("bad", ["", "x,x\n"], ids=["no reject", "a reject"])
def test_events_that_go_while_a_poll_loads_them_are_missed_by_the_next_one(
    store_url: str, headrace: Headrace, tmp_path: Path, bad: str
) -> None:
    (tmp_path / "p.csv").write_text("k,v\n" + "".join(f"{k},x\n" for k in range(20)) + bad)
    text = FILE.format(database=store_url, source='path = "p.csv"') + 'types = { k = "integer" }\nchunk_rows = 10\n'
    neighbour = EmptyAfterASlice(headrace)
    with rounds(tmp_path, text) as go:
        with observing(lambda _: neighbour):
            assert go.one().outcome == "loaded"
        assert headrace.count("ev") < 20
        assert go.one(300).outcome == "loaded"
        assert headrace.count("ev") == 20
        assert go.one(300).outcome == "unchanged"


def test_rows_that_were_rejected_are_not_missed(store_url: str, tmp_path: Path, feeds: Feeds) -> None:
    (tmp_path / "moody.py").write_text(
        "import pyarrow.compute as pc\n"
        "def enrich(events):\n"
        "    if pc.any(pc.equal(events.column('k'), 3)).as_py(): raise ValueError('made up')\n"
        "    return events\n"
    )
    feed = Feed("path", tmp_path, feeds)
    feed.offer(5)
    text = FILE.format(database=store_url, source=feed.source) + 'enrich = "moody:enrich"\non_error = "reject"\n'
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        with rounds(tmp_path, text) as go:
            poll = go.one()
            assert (poll.counts.inserted, poll.counts.rejected) == (4, 1)
            assert go.one(300).outcome == "unchanged"


def test_a_delivery_without_events_is_believed_without_a_question(
    store_url: str, tmp_path: Path, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, feed = hear(monkeypatch), Feed("etag", tmp_path, feeds)
    feed.offer(0)
    with opened(feed, store_url) as go:  # type: ignore[attr-defined]
        assert go.one().outcome == "empty"
        heard.take()
        assert go.one(300).outcome == "unchanged"
        assert len(heard.take()) == 3


def test_of_many_events_some_bear_witness(
    store_url: str, tmp_path: Path, feeds: Feeds, headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_loads, "MOST", 100)
    feed = Feed("etag", tmp_path, feeds)
    feed.offer(3_000)
    with opened(feed, store_url) as go, open_store(store_url) as store:  # type: ignore[attr-defined]
        go()
        kept = store.providers.witnesses(["p"])["p"]
        assert kept.met == 3_000
        assert 90 <= len(kept.ids) // 16 <= 100
        assert len({kept.ids[at : at + 16] for at in range(0, len(kept.ids), 16)}) == len(kept.ids) // 16
        assert go.one(300).outcome == "unchanged"
        headrace.query("DELETE FROM ev WHERE k % 5 = 0")  # one in five: missed once in ten billion times
        assert go.one(300).outcome == "loaded"
        assert headrace.count("ev") == 3_000
    assert providers.MOST >= 20_000


@pytest.mark.parametrize("column", ["v", "at"])
def test_an_older_version_that_a_restore_brought_back_is_revised_again(
    store_url: str, tmp_path: Path, headrace: Headrace, column: str
) -> None:
    """Under `revisions = "update"` the events are all there, and still the table is not what the feed says."""
    text = FILE.format(database=store_url, source='path = "p.csv"')
    text += f'revisions = "update"\nversion_column = "{column}"\n'
    feed = tmp_path / "p.csv"

    def offer(version: int) -> None:
        feed.write_text(f"k,v,at\n1,{version},2026-03-0{version}T00:00:00Z\n2,1,2026-03-01T00:00:00Z\n")

    with rounds(tmp_path, text) as go:
        offer(1)
        go()
        headrace.query("CREATE TABLE copy AS SELECT * FROM ev")
        offer(2)
        assert go.one(300).counts.revised == 1
        assert go.one(300).outcome == "unchanged"
        older = f"(SELECT {column} FROM copy WHERE copy.event_id = ev.event_id)"  # noqa: S608 - our own names
        headrace.query(f"UPDATE ev SET {column} = {older}")  # noqa: S608
        assert go.one(300).outcome == "loaded"
        assert headrace.query("SELECT v FROM ev ORDER BY k") == [(2,), (1,)]
        assert go.one(300).outcome == "unchanged"


# Files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def polled(store_url: str, tmp_path: Path, feeds: Feeds) -> Iterator[tuple[Rounds, Path]]:
    feed = Feed("path", tmp_path, feeds)
    feed.offer(2)
    with opened(feed, store_url) as go:  # type: ignore[attr-defined]
        go()
        yield go, tmp_path / "p.csv"


def in_place(file: Path, text: str) -> None:
    file.write_text(text)


def by_rename(file: Path, text: str) -> None:
    other = file.with_suffix(".new")
    other.write_text(text)
    other.rename(file)


def by_link(file: Path, text: str) -> None:
    other = file.with_suffix(".other")
    other.write_text(text)
    file.unlink()
    file.symlink_to(other)


@pytest.mark.parametrize("how", [in_place, by_rename, by_link])
@pytest.mark.parametrize("settled", [False, True])
def test_a_file_replaced_under_the_same_size_and_time_is_another_file(
    polled: tuple[Rounds, Path],
    headrace: Headrace,
    how: Callable[[Path, str], None],
    settled: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go, file = polled
    if settled:  # long after it was written, so that the file system's word is taken for it
        monkeypatch.setattr("headrace.polling.sources.SETTLED", -1)
        go(300)
    before, text = file.stat(), file.read_text()
    how(file, text.replace("0,", "7,").replace("1,", "8,"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert go.one(300).outcome == "loaded"
    assert sorted(k for (k,) in headrace.query("SELECT k FROM ev")) == [0, 1, 7, 8]


def test_a_file_that_was_only_touched_or_copied_is_the_same(polled: tuple[Rounds, Path]) -> None:
    go, file = polled
    file.touch()
    assert go.one(300).outcome == "unchanged"
    by_rename(file, file.read_text())
    assert go.one(300).outcome == "unchanged"
    by_rename(file, file.read_text() + "9,x\n")
    assert go.one(300).outcome == "loaded"


def test_a_settled_file_is_not_read_to_see_that_it_is_the_same(
    polled: tuple[Rounds, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    go, _ = polled
    monkeypatch.setattr("headrace.polling.sources.SETTLED", -1)
    assert go.one(300).outcome == "unchanged"  # read once more, and its facts kept
    monkeypatch.setattr("headrace.polling.sources._content", lambda _: pytest.fail("it was read"))
    assert go.one(300).outcome == "unchanged"


def test_negative_control_a_believer_says_unchanged(
    store_url: str, tmp_path: Path, feeds: Feeds, headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unchanged, "_held", lambda *given: frozenset(given[1]))
    feed = Feed("etag", tmp_path, feeds)
    feed.offer(5)
    with opened(feed, store_url) as go:  # type: ignore[attr-defined]
        go()
        headrace.query("DELETE FROM ev")
        assert go.one(300).outcome == "unchanged"
        assert headrace.count("ev") == 0
