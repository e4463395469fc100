"""How connections are opened: the defaults, and the URL that beats them."""

from __future__ import annotations

import psycopg
import sqlalchemy as sa

from headrace.storage import open_store
from headrace.storage.postgres.connecting import CONNECTION_DEFAULTS, conninfo_of, how_to_connect

URL = sa.make_url("postgresql+psycopg://h/d?tcp_user_timeout=5000&application_name=mine")


def test_the_url_beats_the_defaults_and_leaves_the_others() -> None:
    said = how_to_connect(URL)
    assert said == {
        "connect_timeout": 10,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "client_encoding": "utf8",
        "prepare_threshold": None,
    }
    assert CONNECTION_DEFAULTS.keys() - said.keys() == {"tcp_user_timeout", "application_name"}


def test_a_ping_is_brief_whatever_the_url_says() -> None:
    patient = sa.make_url("postgresql+psycopg://h/d?connect_timeout=600")
    assert psycopg.conninfo.conninfo_to_dict(conninfo_of(sa.create_engine(patient)))["connect_timeout"] == "2"
    found = psycopg.conninfo.conninfo_to_dict(conninfo_of(sa.create_engine(URL)))
    assert (found["tcp_user_timeout"], found["application_name"], found["host"]) == ("5000", "mine", "h")


def test_the_server_sees_what_the_url_says(postgres_url: str) -> None:
    with open_store(postgres_url + "&application_name=mine") as store, psycopg.connect(postgres_url) as other:
        assert store.url
        names = "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
        assert ("mine",) in other.execute(names).fetchall()
