"""What is never fetched, however it is spelled and wherever it comes from; and who is told a password."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from support.evidence import Record, keep
from support.feeds import Answer, feeds_server
from support.polling import rounds
from support.program import Headrace

from headrace.errors import ConfigurationError, HeadraceError, InputError
from headrace.reading.fetch import guard
from headrace.reading.fetch.guard import forbidden
from headrace.reading.fetch.http import fetch

SPELLINGS = [
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/",
    "http://0xA9FEA9FE/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[2002:a9fe:a9fe::]/",
    "http://[fe80::1]/",
    "http://[fd00:ec2::254]/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://METADATA.google.internal./",
    "http://user:pw@169.254.169.254/",
    "http://0.0.0.0/",
    "http://224.0.0.1/",
]


def refuses(what: str, url: str, folder: Path, match: str) -> bool:
    """Whether `url` is refused in the words of `match`; kept as evidence."""
    try:
        fetch(url, folder, shown="feed", timeout=60)
        refused = False
    except HeadraceError as error:
        refused = isinstance(error, ConfigurationError) and match in str(error)
    keep(Record(what, "in the configuration or a redirect", "feeds", 1, 0, 0, int(not refused), 0, 0))
    return refused


@pytest.mark.parametrize("url", SPELLINGS)
def test_link_local_and_metadata_addresses_are_refused_in_every_spelling(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = []

    def connect(_: socket.socket, place: object) -> None:
        reached.append(place)
        raise OSError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", connect)
    assert refuses("address of a metadata service", url, tmp_path, "not fetched")
    assert not reached


@pytest.mark.parametrize("url", SPELLINGS)
def test_a_redirect_to_them_is_refused_too(url: str, tmp_path: Path) -> None:
    with feeds_server() as feeds:
        feeds.answers["/x.csv"] = Answer(status=302, headers={"Location": url})
        assert refuses("redirect to a metadata service", f"{feeds.url}/x.csv", tmp_path, "not fetched")


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "data:,x"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_scheme_is_refused(target: str, status: int, tmp_path: Path) -> None:
    with feeds_server() as feeds:
        feeds.answers["/x.csv"] = Answer(status=status, headers={"Location": target})
        assert refuses("redirect to file:// and the like", f"{feeds.url}/x.csv", tmp_path, "it redirects to")
    assert not list(tmp_path.iterdir())


def test_a_name_that_resolves_to_them_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(ConfigurationError, match="link-local"):
        fetch("http://harmless.example/x.csv", tmp_path, shown="feed", timeout=60)


def test_the_address_that_was_checked_is_the_one_connected_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that answers differently the second time (DNS rebinding) is asked once a connection."""
    original, asked = socket.getaddrinfo, []

    def resolve(host: Any, port: Any, *rest: Any) -> Any:
        asked.append(host)
        return original("127.0.0.1" if len(asked) == 1 else "169.254.169.254", port, *rest)

    with feeds_server() as feeds:
        feeds.answers["/x.csv"] = Answer(b"n\n1\n")
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        port = feeds.url.rpartition(":")[2]
        assert fetch(f"http://feed.example:{port}/x.csv", tmp_path, shown="feed", timeout=60).spooled.size == 4
    assert asked == ["feed.example"]


def test_a_public_address_must_not_redirect_into_a_private_network() -> None:
    for text in ("127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "fd00::1", "::ffff:10.0.0.1"):
        assert forbidden(ip_address(text)) is None
        assert forbidden(ip_address(text), public_origin=True) is not None
    assert forbidden(ip_address("93.184.216.34"), public_origin=True) is None


def test_negative_control_without_the_check_a_redirect_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests above see the refusal of `forbidden`, and nothing else: without it the metadata service is asked."""
    tried: list[object] = []

    def connect(self: socket.socket, place: object) -> None:
        tried.append(place)
        raise OSError("unreachable")

    monkeypatch.setattr(guard, "forbidden", lambda *_, **__: None)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(InputError):
        fetch("http://169.254.169.254/", tmp_path, shown="feed", timeout=60)
    assert tried == [("169.254.169.254", 80)]


def test_load_refuses_them_as_well(sqlite_url: str, tmp_path: Path) -> None:
    said = Headrace(sqlite_url, tmp_path).run("load", "http://169.254.169.254/x.csv", expect=2).stderr
    assert "link-local" in said


def test_a_proxy_of_the_environment_is_used_and_told_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with feeds_server() as proxy:
        proxy.answers["http://feed.example/x.csv"] = Answer(b"n\n1\n")
        monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://me:p%40ss@"))
        monkeypatch.setenv("no_proxy", "direct.example")
        fetched = fetch("http://user:pass@feed.example/x.csv", tmp_path, shown="feed", headers={"X-Key": "secret"})
        assert fetched.spooled.size == 4
        assert refuses("metadata service by a proxy", "http://metadata.google.internal/", tmp_path, "metadata service")
    (asked,) = proxy.asked
    sent = {name.title(): value for name, value in asked.headers.items()}
    assert (sent["Proxy-Authorization"], sent["Authorization"]) == ("Basic bWU6cEBzcw==", "Basic dXNlcjpwYXNz")
    assert (sent["X-Key"], sent["Host"]) == ("secret", "feed.example")


def test_a_host_in_other_letters_is_found_by_its_ascii_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, asked = socket.getaddrinfo, []

    def resolve(host: Any, port: Any, *rest: Any) -> Any:
        asked.append(host)
        return original("127.0.0.1", port, *rest)

    with feeds_server() as feeds:
        feeds.answers["/%C3%A4.csv"] = Answer(b"n\n1\n")
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        port = feeds.url.rpartition(":")[2]
        assert fetch(f"http://Bücher.example:{port}/ä.csv", tmp_path, shown="feed").spooled.size == 4
    assert asked == ["xn--bcher-kva.example"]


def test_redirects_without_end_are_refused(tmp_path: Path) -> None:
    with feeds_server() as feeds:
        feeds.answers["/x.csv"] = Answer(status=302, headers={"Location": "/x.csv"})
        assert refuses("redirect to itself", f"{feeds.url}/x.csv", tmp_path, "redirects without end")


def test_headers_and_passwords_go_to_their_own_host_alone(tmp_path: Path) -> None:
    with feeds_server() as feeds, feeds_server() as other:
        other.answers["/y.csv"] = Answer(b"n\n1\n")
        feeds.answers["/y.csv"] = Answer(b"n\n2\n")
        feeds.answers["/away.csv"] = Answer(status=302, headers={"Location": f"{other.url}/y.csv"})
        feeds.answers["/here.csv"] = Answer(status=302, headers={"Location": "/y.csv"})
        for path in ("/away.csv", "/here.csv"):
            address = feeds.url.replace("http://", "http://user:pass@") + path
            fetch(address, tmp_path, shown="feed", headers={"X-Key": "secret"}, timeout=60)
    assert [one.headers.get("X-Key") for one in feeds.asked] == ["secret", "secret", "secret"]
    assert all("Authorization" in one.headers for one in feeds.asked)
    (away,) = other.asked
    assert "X-Key" not in away.headers
    assert "Authorization" not in away.headers
    assert away.headers["User-Agent"] == "headrace"


def test_a_download_keeps_within_its_limits(tmp_path: Path) -> None:
    with feeds_server() as feeds:
        feeds.answers["/x.csv"] = Answer(b"n\n" + b"1\n" * 1000)
        with pytest.raises(InputError, match="larger than allowed"):
            fetch(f"{feeds.url}/x.csv", tmp_path, shown="feed", max_size=100)
        with pytest.raises(InputError, match="takes too long"):
            fetch(f"{feeds.url}/x.csv", tmp_path, shown="feed", deadline=-1.0)
        feeds.answers["/x.csv"] = Answer(b"n\n1\n", cut=2)
        with pytest.raises(InputError, match="cut short"):
            fetch(f"{feeds.url}/x.csv", tmp_path, shown="feed")


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("120", 120, 120),
        ("99999999", 86_400, 86_400),
        # an ID of its own: each process of the suite collects at another second
        pytest.param(
            f"{datetime.now(UTC) + timedelta(minutes=30):%a, %d %b %Y %H:%M:%S GMT}", 1, 1800, id="in half an hour"
        ),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("soon", 0, 0),
        ("-5", 0, 0),
    ],
)
def test_how_long_a_server_asks_to_wait(tmp_path: Path, said: str, least: float, most: float) -> None:
    with feeds_server() as feeds:
        feeds.answers["/x.csv"] = Answer(status=429, headers={"Retry-After": said})
        with pytest.raises(InputError, match="the server answered 429 Too Many Requests") as caught:
            fetch(f"{feeds.url}/x.csv", tmp_path, shown="feed")
    assert least <= caught.value.retry_after <= most


def test_a_user_agent_of_the_users_takes_the_place_of_ours(tmp_path: Path) -> None:
    with feeds_server() as feeds:
        feeds.answers["/x.csv"] = Answer(b"n\n1\n")
        fetch(f"{feeds.url}/x.csv", tmp_path, shown="feed", headers={"user-agent": "mine"})
        fetch(f"{feeds.url}/x.csv", tmp_path, shown="feed")
    assert [[value for name, value in one.headers.items() if name.lower() == "user-agent"] for one in feeds.asked] == [
        ["mine"],
        ["headrace"],
    ]


SECRETS = {"FEED_PASSWORD": "s3cret-password", "FEED_KEY": "s3cret-key", "FEED_TOKEN": "s3cret-token"}
FILE = """
database = "{database}"
[defaults]
headers = { Authorization = "Bearer ${FEED_TOKEN}", X-Key = "s3cret-literal" }
select = "SELECT n, '${FEED_KEY}' AS k, nope FROM source"
[providers.gone]
url = "{url}/${FEED_KEY}/gone.csv?key=${FEED_KEY}"
[providers.selects]
url = "{url}/ok.csv?key=${FEED_KEY}&s3cret-query"
[providers.rejects]
url = "http://user:${FEED_PASSWORD}@{host}/${FEED_KEY}/bad.csv"
select = "SELECT * FROM source"
types = { n = "integer" }
[providers.refused]
url = "http://user:${FEED_PASSWORD}@169.254.169.254/${FEED_KEY}"
[providers.code]
function = "leaky:source"
select = "SELECT * FROM source"
[providers.split]
url = "{url}/a b?${FEED_KEY}&s3cret-query"
[providers.header]
url = "{url}/ok.csv"
headers = { X = "a\\nb ${FEED_TOKEN}" }
"""
LEAKY = "import os\ndef source():\n    raise ValueError('no access for ' + os.environ['FEED_TOKEN'])\n"


def test_no_secret_appears_in_messages_reports_or_tables(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    (headrace.folder / "leaky.py").write_text(LEAKY)
    with feeds_server() as feeds:
        host = feeds.url.removeprefix("http://")
        text = FILE.replace("{database}", headrace.url).replace("{url}", feeds.url).replace("{host}", host)
        (headrace.folder / "headrace.toml").write_text(text)
        feeds.answers = {"/ok.csv": Answer(b"n\n1\n"), "/s3cret-key/bad.csv": Answer(b"n\nx\n1\n")}
        done = headrace.run("run", expect=1)
        again = headrace.run("run", "--force", "--output", "json", expect=1)
        ill = headrace.run("doctor", "--config", "headrace.toml", expect=1)
    tables = ("headrace_providers", "headrace_runs", "headrace_receipts", "headrace_rejects")
    kept = str([headrace.query(f"SELECT * FROM {table}") for table in tables])  # noqa: S608
    said = "".join(one.stdout + one.stderr for one in (done, again, ill)) + kept
    assert "s3cret" not in said, said
    assert "${FEED_KEY}/gone.csv" in said
    assert "no access for ${FEED_TOKEN}" in said


def test_negative_control_without_concealing_they_would(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "leaky_too.py").write_text(LEAKY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("headrace.polling.poll.concealed", lambda text: text)
    text = f'database = "{sqlite_url}"\n[providers.p]\nfunction = "leaky_too:source"\n'
    with rounds(tmp_path, text) as go:
        assert "s3cret-token" in str(go.one().error)
