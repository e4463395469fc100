"""What a server answers with 200 is an answer, and not always data: pages, messages, and what was cut on the way."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from support.feeds import Answer, Feeds, feeds_server
from support.polling import Rounds, rounds
from support.program import Headrace

import headrace as hr
from headrace.errors import ContractError, InputError
from headrace.partitioning.contract import LogicalType

PAGE = b"<html><body>down for maintenance, back soon</body></html>"
PAGES = {
    "html": PAGE,
    "doctype": b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html lang='en'>\n<head><title>Sign in</title></head>\n<p>a,b\n</html>",
    "behind a comment": b"<!-- cached, by the proxy -->\n\n" + PAGE + b"\n",
    "gzip": gzip.compress(PAGE),
    "xml": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "rss": b'<rss version="2.0"><channel><title>News</title></channel></rss>',
}
MESSAGES = {
    "error": b'{"error": "invalid key"}',
    "errors": b'{"errors": [{"message": "too many requests", "code": 429}]}',
    "status": b'{"timestamp": 1700000000, "status": 503, "message": "unavailable", "path": "/feed"}',
    "problem": b'{"type": "about:blank", "title": "Forbidden", "status": 403}',
    "message": b'{"message": "API rate limit exceeded"}',
    "list": b'[{"errorCode": "INVALID_SESSION_ID", "message": "expired"}]',
}
CSV = b"k,v\n1,12.34\n2,12.34\n"


@pytest.fixture(scope="module")
def feeds() -> Iterator[Feeds]:
    with feeds_server() as server:
        yield server


def provider(feeds: Feeds, url: str, name: str, more: str = 'id = ["k"]\n', table: str = "ev") -> str:
    source = f'url = "{feeds.url}/{name}"\ninterval = "60s"\ntable = "{table}"\n{more}'
    return f'database = "{url}"\n[providers.of_{table}]\n{source}'


def polled(go: Rounds, feeds: Feeds, name: str, answer: Answer) -> str:
    feeds.answers[f"/{name}"] = answer
    return go.one(after=86_400).outcome


def no_data() -> list[tuple[str, Answer]]:
    """What is no data, by the suffix of the address that answers it."""
    of_html = {"Content-Type": "text/html"}
    return [
        *(("csv", Answer(body, headers=of_html)) for body in PAGES.values()),
        *((suffix, Answer(body)) for body in PAGES.values() for suffix in ("csv", "jsonl", "")),
        *((suffix, Answer(body)) for body in MESSAGES.values() for suffix in ("csv", "json")),
        ("geojson", Answer(b'{"error": "x"}')),
        ("csv", Answer(b"Invalid MAP_KEY.")),
        ("csv", Answer(b"maintenance\nback soon\n", headers=of_html)),
    ]


@pytest.mark.parametrize("more", ['id = ["k"]\n', ""], ids=["id", "whole row"])
def test_a_page_or_a_message_is_a_failure_and_neither_quiet_nor_events(
    tmp_path: Path, store_url: str, feeds: Feeds, more: str
) -> None:
    """On a first poll, and on one after events have come."""
    names = [f"/{number}.{suffix}".rstrip(".") for number, (suffix, _) in enumerate(no_data())]
    text = f'database = "{store_url}"\n' + "".join(
        f'[providers.p{number}]\nurl = "{feeds.url}{name}"\ntable = "ev{number}"\ninterval = "60s"\n{more}'
        for number, name in enumerate(names)
    )
    answers = [answer for _, answer in no_data()]
    with rounds(tmp_path, text) as go:
        for bodies in (answers, [Answer(CSV) if name.endswith("csv") else Answer(b"[]") for name in names], answers):
            feeds.answers |= dict(zip(names, bodies, strict=True))
            polls = go(after=86_400).polls
            if bodies is answers:
                assert {poll.outcome for poll in polls} == {"failed"}, [one for one in polls if one.outcome != "failed"]
                assert {poll.exit_code for poll in polls} <= {1, 2}
    database = Headrace(store_url, tmp_path)
    assert {database.count(f"ev{number}") for number, name in enumerate(names) if name.endswith("csv")} == {2}


@pytest.mark.parametrize(
    ("name", "answer", "outcome"),
    [
        ("feed.csv", Answer(b"k,v\n"), "empty"),
        ("feed.json", Answer(b"[]"), "empty"),
        ("feed.geojson", Answer(b'{"type": "FeatureCollection", "features": []}'), "empty"),
        ("feed.csv", Answer(b""), "empty"),
        ("feed.csv", Answer(status=204, silent=True), "empty"),
        ("feed.csv", Answer(CSV, headers={"Content-Type": "text/html"}), "loaded"),  # as careless servers do
        ("feed.csv", Answer(b"<TICKER>,<PER>,k\nA,1,2\n"), "loaded"),
        ("feed.jsonl", Answer(b'{"k": 1, "error": "disk full"}'), "loaded"),
        ("feed.jsonl", Answer(b'{"error": "a", "k": 1}\n{"error": "b", "k": 2}\n'), "loaded"),
    ],
)
def test_what_is_data_or_nothing_is_taken_as_it_was(
    tmp_path: Path, sqlite_url: str, feeds: Feeds, name: str, answer: Answer, outcome: str
) -> None:
    with rounds(tmp_path, provider(feeds, sqlite_url, name)) as go:
        assert polled(go, feeds, name, answer) == outcome


@pytest.mark.parametrize("body", PAGES.values(), ids=PAGES)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ""])
def test_a_file_that_is_a_page_is_refused(tmp_path: Path, sqlite_url: str, body: bytes, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(body)
    with pytest.raises(InputError, match=r", not data|a format that Headrace does not read"):
        hr.load(str(path), to=sqlite_url, table="ev")


# Cut on the way -------------------------------------------------------------------------------------------------

TYPES: dict[str, LogicalType] = {"k": "integer", "v": "float"}
WHOLE = {"csv": CSV, "tsv": CSV.replace(b",", b"\t"), "jsonl": b'{"k": 1, "v": 12.34}\n{"k": 2, "v": 12.34}\n'}


@pytest.mark.parametrize("name", WHOLE)
def test_an_answer_that_ends_with_its_connection_gives_no_cut_record(
    tmp_path: Path, store_url: str, feeds: Feeds, name: str
) -> None:
    """However much of it came: the whole one follows, and its values are in the table."""
    whole = WHOLE[name]
    for size in range(len(whole)):
        feeds.answers[f"/x.{name}"] = Answer(whole[:size], silent=True)
        try:
            report = hr.load(f"{feeds.url}/x.{name}", to=store_url, table="ev", id=["k"], types=TYPES)
        except hr.HeadraceError:
            continue
        assert whole[:size].endswith(b"\n")
        assert report.rejected == 0
    feeds.answers[f"/x.{name}"] = Answer(whole, silent=True)
    hr.load(f"{feeds.url}/x.{name}", to=store_url, table="ev", id=["k"], types=TYPES)
    assert sorted(Headrace(store_url, tmp_path).query("SELECT k, v FROM ev")) == [(1, 12.34), (2, 12.34)]


def test_an_answer_whose_length_was_said_needs_no_last_line_end(tmp_path: Path, sqlite_url: str, feeds: Feeds) -> None:
    feeds.answers["/x.csv"] = Answer(CSV[:-1])
    assert hr.load(f"{feeds.url}/x.csv", to=sqlite_url, table="ev", id=["k"]).inserted == 2
    feeds.answers["/x.csv"] = Answer(CSV, cut=1)
    with pytest.raises(InputError, match="cut short"):
        hr.load(f"{feeds.url}/x.csv", to=sqlite_url, table="ev", id=["k"])


def test_an_answer_without_a_byte_and_a_length_is_cut_short(sqlite_url: str, feeds: Feeds) -> None:
    feeds.answers["/x.csv"] = Answer(b"", silent=True)
    with pytest.raises(InputError, match="before any data came"):
        hr.load(f"{feeds.url}/x.csv", to=sqlite_url, table="ev")


def _zst(text: bytes) -> bytes:
    packed: bytes = pa.compress(text, codec="zstd", asbytes=True)
    return packed


@pytest.mark.parametrize("pack", [gzip.compress, _zst], ids=["gz", "zst"])
@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_a_compressed_file_that_was_cut_gives_no_cut_record(
    tmp_path: Path, sqlite_url: str, kind: str, pack: object
) -> None:
    text = b"[" + WHOLE["jsonl"].strip().replace(b"\n", b",") + b"]" if kind == "json" else WHOLE[kind]
    packed = pack(text)  # type: ignore[operator]
    path = tmp_path / f"x.{kind}.{'gz' if pack is gzip.compress else 'zst'}"
    for size in range(4, len(packed)):
        path.write_bytes(packed[:size])
        with pytest.raises(hr.HeadraceError):
            hr.load(str(path), to=sqlite_url, table="ev", id=["k"])
    path.write_bytes(packed)
    assert hr.load(str(path), to=sqlite_url, table="ev", id=["k"]).inserted == 2


def test_a_file_of_several_members_cut_at_the_border_of_two_ends_as_its_text_does(
    tmp_path: Path, sqlite_url: str
) -> None:
    """Nothing tells that a member is missing; the array does."""
    path = tmp_path / "x.json.gz"
    path.write_bytes(gzip.compress(b'[{"k": 1},'))
    with pytest.raises(InputError):
        hr.load(str(path), to=sqlite_url, table="ev")


@pytest.mark.parametrize("at", [40, 200, 1000, -8])
def test_an_archive_that_is_damaged_is_an_error_in_words(tmp_path: Path, sqlite_url: str, at: int) -> None:
    path = tmp_path / "x.csv.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.csv", b"k,v\n" + b"".join(b"%d,%d\n" % (k, k * k) for k in range(5000)))
    damaged = bytearray(path.read_bytes())
    damaged[at] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"cannot be read|cannot be unpacked|archive holds"):
        hr.load(str(path), to=sqlite_url, table="ev", id=["k"])


@pytest.mark.parametrize(
    "text", [b'{"k":1}\r{"k":2}\r', '{"k":1}\n'.encode("utf-16"), b"[{\n", b"\n\n", b'\x1e{"k":1}\n']
)
def test_a_file_of_which_no_line_is_a_record_is_told_so(tmp_path: Path, sqlite_url: str, text: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(text)
    for named in ({}, {"id": ["k"]}):
        with pytest.raises(ContractError, match="no line of it could be read") as raised:
            hr.load(str(tmp_path / "x.jsonl"), to=sqlite_url, table="ev", **named)
        assert raised.value.hint
