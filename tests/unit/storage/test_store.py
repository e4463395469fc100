"""A store is made of parts: none inherits what it does, and all are over one database."""

from __future__ import annotations

from headrace.storage import open_store


def test_no_part_inherits_anything_and_all_share_one_database(sqlite_url: str) -> None:
    with open_store(sqlite_url) as store:
        parts = vars(store)
        assert {"events", "tables", "ledger", "outbox", "rejects", "providers", "checks"} < set(parts)
        for name, part in parts.items():
            assert type(part).__mro__ == (type(part), object), name
            assert name == "database" or part._database is store.database, name
