"""What a poll does not do: proved by the statements that reach the database, and by what the web server was asked.

Each count has a negative control: the same count with the optimisation taken away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from support.feeds import Answer, Feeds, feeds_server
from support.polling import Rounds, hear, rounds

from headrace.errors import StoreError
from headrace.loading.session import Session
from headrace.polling.delivery_loads import DeliveryLoads
from headrace.polling.poll import Round
from headrace.polling.sources import Delivery
from headrace.reading import inputs
from headrace.storage import open_store
from headrace.storage.outbox import Attempt
from headrace.storage.providers import ProviderState
from headrace.storage.records import Counts
from headrace.storage.sql.outbox import Outbox
from headrace.storage.sql.providers import Providers

HEADER = b"n,at\n"
NAMES = [f"p{number:03}" for number in range(100)]
BUSY = NAMES[::10]
# what one provider with events costs: the contract twice, the unfinished run, the run, the receipt, the events, the
# receipt's books, their sum, the end of the run
STATEMENTS_OF_A_LOAD = 9


def rows(first: int, count: int) -> bytes:
    return b"".join(b"%d,2026-03-01T00:00:%02dZ\n" % (n, n % 60) for n in range(first, first + count))


def file(database: str, feeds: Feeds, names: list[str]) -> str:
    head = f'database = "{database}"\n[defaults]\nid = ["n"]\ntime = "at"\ninterval = "5m"\nwindow = "all"\n'
    return head + "".join(f'[providers.{name}]\nurl = "{feeds.url}/{name}.csv"\ntable = "events"\n' for name in names)


def usual_round(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Round, list[str]]:
    """A round over 100 providers of which 10 have events, into a table that is there, and its statements."""
    heard = hear(monkeypatch)
    with feeds_server() as feeds, rounds(folder, file(url, feeds, NAMES)) as go:
        feeds.answers = {f"/{name}.csv": Answer(HEADER) for name in NAMES}
        feeds.answers |= {f"/{name}.csv": Answer(HEADER + rows(0, 7)) for name in BUSY}
        assert go().counts == Counts(read=70, inserted=70)
        feeds.answers |= {f"/{name}.csv": Answer(HEADER + b"\n") for name in NAMES}
        feeds.answers |= {f"/{name}.csv": Answer(HEADER + rows(5, 7)) for name in BUSY}
        heard.take()
        return go(300), heard.take()


def looks(url: str) -> int:
    """In how many statements this database says what columns a table has."""
    sent: list[str] = []
    with open_store(url, on_statement=sent.append) as store:
        store.tables.schema("events")  # the first look of a connection asks more
        sent.clear()
        store.tables.schema("events")
    return len([one for one in sent if not one.startswith("BEGIN")])


def cost_of_a_round(url: str) -> int:
    """All states, the claim, the save, what the loads took and met; what the ten brought before, and whether the table
    still has it; whose contract made the table's IDs; the existing IDs, once; and for each of the ten a look at the
    table, which takes as many statements as the database has catalogues, the load, in its transaction whether the table
    is as it was (in SQLite a number, in PostgreSQL its lock and the look again, and the events' savepoint), and the
    rows that some duplicates repeat, with what their columns are.
    """
    postgres = url.startswith("postgresql")
    as_it_was = 1 + looks(url) + 1 if postgres else 1
    repeated = 2 if postgres else 1 + looks(url)
    return 5 + 2 + 1 + 1 + len(BUSY) * (looks(url) + STATEMENTS_OF_A_LOAD + as_it_was + repeated)


def test_a_hundred_providers_ninety_of_them_empty_cost_an_exact_number_of_statements(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, statements = usual_round(store_url, tmp_path, monkeypatch)
    assert [poll.outcome for poll in found.polls].count("empty") == 90
    assert found.counts == Counts(read=70, inserted=50, duplicate_in_store=20)
    states = [one for one in statements if "headrace_providers" in one]
    assert [one.split()[0] for one in states] == ["SELECT", "INSERT", "INSERT"]  # read all, claim, save all
    kept = [one for one in statements if "headrace_past_loads" in one]
    assert [one.split()[0] for one in kept] == ["INSERT"]  # what ten loads took, in one statement
    met = [one for one in statements if "headrace_witnesses" in one]
    assert [one.split()[0] for one in met] == ["SELECT", "INSERT"]
    read = [one for one in statements if "event_id, events.headrace_receipt" in one or " TO STDOUT" in one]
    assert len([one for one in read if "LIMIT" in one]) == 1  # whose contract made the IDs, once for the table
    assert len([one for one in read if "LIMIT" not in one]) == len(BUSY)  # rows repeated, once in ten minutes for each
    existing = [one for one in statements if "event_id" in one and one.startswith(("SELECT", "WITH"))]
    assert len([one for one in existing if one not in read]) == 2  # one table: is it still there, and what else is
    kinds = Counter(" ".join(one.split()[:2]) for one in statements)
    assert len(statements) == cost_of_a_round(store_url), kinds


def test_a_round_in_which_nothing_is_due_costs_one_statement(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = hear(monkeypatch)
    with feeds_server() as feeds, rounds(tmp_path, file(store_url, feeds, NAMES)) as go:
        feeds.answers = {f"/{name}.csv": Answer(HEADER) for name in NAMES}
        go()
        heard.take()
        asked = len(feeds.asked)
        assert {poll.outcome for poll in go(60).polls} == {"not due"}
        assert len(heard.take()) == 1
        assert len(feeds.asked) == asked == 100


def no_early_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs._Source, "is_empty", lambda _: False)


def state_by_state(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = Providers.save

    def one_by_one(self: Providers, states: Collection[ProviderState], holder: str) -> set[str]:
        return set().union(*(at_once(self, [state], holder) for state in states))

    monkeypatch.setattr(Providers, "save", one_by_one)


def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(self: Session, *given: Any) -> Any:
        self.forget()
        return original(self, *given)

    original = Session.known
    monkeypatch.setattr(Session, "known", known)


@pytest.mark.parametrize("take_away", [no_early_exit, state_by_state, nothing_kept])
def test_negative_control_the_statements_are_more_without(
    take_away: Callable[[pytest.MonkeyPatch], None],
    sqlite_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take_away(monkeypatch)
    _, statements = usual_round(sqlite_url, tmp_path, monkeypatch)
    assert len(statements) > cost_of_a_round(sqlite_url)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Delivery]:
    """The deliveries that were opened to be parsed."""
    opened: list[Delivery] = []
    original = DeliveryLoads.load

    def load(self: DeliveryLoads, provider: Any, delivery: Delivery, folder: Path, *, first: bool) -> Any:
        opened.append(delivery)
        return original(self, provider, delivery, folder, first=first)

    monkeypatch.setattr(DeliveryLoads, "load", load)
    return opened


ONE = """
database = "{database}"
[providers.p]
url = "{url}/p.csv"
id = ["n"]
interval = "5m"
slowest = "{slowest}"
"""
SELECT = 'select = "SELECT {}"\n'


@pytest.mark.parametrize("how", ["etag", "modified", "content"])
def test_an_unchanged_download_is_not_parsed(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsed: list[Delivery], how: str
) -> None:
    heard = hear(monkeypatch)
    dated = {"Last-Modified": "Sun, 01 Mar 2026 00:00:00 GMT"} if how == "modified" else {}
    text = ONE.replace("{database}", sqlite_url).replace("{slowest}", "6h")
    with feeds_server() as feeds, rounds(tmp_path, text.replace("{url}", feeds.url)) as go:

        def answer() -> Answer:
            sent = dict(feeds.headers).get("If-Modified-Since")
            fresh = how != "modified" or sent != dated["Last-Modified"]
            return Answer(HEADER + rows(0, 3), 200 if fresh else 304, dated, conditional=how == "etag")

        feeds.answers["/p.csv"] = answer
        assert (go.one().outcome, len(parsed)) == ("loaded", 1)
        heard.take()
        assert (go.one(300).outcome, len(parsed)) == ("unchanged", 1)
        assert len(heard.take()) == 3 + 2  # what it brought, and whether it is still there
        assert feeds.statuses("/p.csv")[-1] == (200 if how == "content" else 304)
    # another select makes other events of the same content: it is parsed again
    with feeds_server() as feeds:
        feeds.answers["/p.csv"] = Answer(HEADER + rows(0, 3))
        changed = text.replace("{url}", feeds.url) + SELECT.format("n + 10 AS n FROM source")
        with rounds(tmp_path, changed, clock=go.clock) as again:
            assert (again.one(300).counts.inserted, len(parsed)) == (3, 2)


def test_a_poll_whose_select_leaves_nothing_touches_no_table(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = hear(monkeypatch)
    text = ONE.replace("{database}", sqlite_url).replace("{slowest}", "6h")
    with feeds_server() as feeds:
        text = text.replace("{url}", feeds.url) + SELECT.format("* FROM source WHERE n > 5")
        feeds.answers["/p.csv"] = Answer(HEADER + rows(0, 5))
        with rounds(tmp_path, text) as go:
            heard.take()
            assert go.one().outcome == "empty"
            assert len(heard.take()) == 3
            feeds.answers["/p.csv"] = Answer(HEADER + rows(0, 7))
            assert go.one(300).counts.inserted == 1


def test_a_quiet_provider_is_polled_less_often_and_normally_again_when_it_delivers(
    sqlite_url: str, tmp_path: Path
) -> None:
    text = ONE.replace("{database}", sqlite_url).replace("{slowest}", "1h")
    with feeds_server() as feeds, rounds(tmp_path, text.replace("{url}", feeds.url)) as go:
        feeds.answers["/p.csv"] = Answer(HEADER)
        polled_every_minute(go)
        waits = [polled_every_minute(go) for _ in range(9)]
        minutes = [5, 5, 10, 20, 40, 60, 60, 60, 60]
        # by the minute, and jittered by a tenth
        assert all(0.9 * least <= wait <= 1.1 * least + 1 for wait, least in zip(waits, minutes, strict=True)), waits
        assert len(set(waits[5:])) > 1  # jittered
        feeds.answers["/p.csv"] = Answer(HEADER + rows(0, 1))
        polled_every_minute(go)
        assert polled_every_minute(go) == 5


def polled_every_minute(go: Rounds) -> int:
    """Go round every minute until the provider was polled; returns the minutes it took."""
    for minute in range(1, 1000):
        if go.one(60).polled:
            return minute
    raise AssertionError("it was never polled")


def test_old_alerts_are_deleted_once_an_hour_where_the_file_says_so(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = hear(monkeypatch)
    rule = '[[providers.p.alerts]]\nname = "all"\nwhere = "true"\n'
    with feeds_server() as feeds:
        text = file(store_url, feeds, ["p"]) + rule + '[run]\nkeep_alerts = "0s"\n'
        feeds.answers["/p.csv"] = Answer(HEADER + rows(0, 7))
        with rounds(tmp_path, text) as go, open_store(store_url) as store:
            go()
            claimed = store.outbox.claim("a", limit=6, seconds=60)
            store.outbox.settle("a", [Attempt(one.alert_id, "delivered") for one in claimed])
            go(1800)
            assert store.outbox.count() == {"delivered": 6, "pending": 1}
            heard.take()
            go(1800)
            assert store.outbox.count() == {"pending": 1}
            assert len(heard.about("DELETE FROM headrace_alerts")) == 2, "one that deletes, one that finds no more"
            monkeypatch.setattr(Outbox, "prune", refused)
            assert go(3600).exit_code == 0, "events matter more"


def refused(*_: object, **__: object) -> int:
    raise StoreError("permission denied for table headrace_alerts")
