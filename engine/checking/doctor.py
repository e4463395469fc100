"""``headrace doctor``: check everything that a load needs, and say how to correct each fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from headrace.errors import HeadraceError
from headrace.loading.agreement import stored_contract
from headrace.loading.contract_drift import require_pinned_types
from headrace.loading.database import open_existing
from headrace.options.load import hash_key
from headrace.storage import safe_url
from headrace.storage.store import Store

__all__ = ["CheckResult", "examine", "failed"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check: its subject, its outcome, the observation, and the cure if the outcome is not ``ok``."""

    check: str
    state: Literal["ok", "warning", "failed"]
    seen: str
    cure: str = ""

    def to_text(self) -> str:
        """One line, and one more with the cure."""
        mark = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}[self.state]
        line = f"{mark}  {self.check}: {self.seen}"
        return f"{line}\n         → {self.cure}" if self.cure else line

    def to_dict(self) -> dict[str, str]:
        """Plain data, for JSON."""
        return asdict(self)


def examine(url: str) -> Iterator[CheckResult]:
    """Check the database at `url` and every table Headrace keeps there."""
    try:
        store = open_existing(url)
    except HeadraceError as error:
        yield failed(f"database {safe_url(url)}", error)
        return
    with store:
        try:
            yield from _database(store)
        except HeadraceError as error:
            yield failed(f"database {store.url}", error)
            return
        for table in store.ledger.tables():
            yield from _table(store, table)
        yield from _leftovers(store)


def _database(store: Store) -> Iterator[CheckResult]:
    for name, seen in store.checks.describe().items():
        yield CheckResult(name, "ok", seen)
    yield CheckResult("ledger", "ok", "Headrace's own tables exist")


def _table(store: Store, table: str) -> Iterator[CheckResult]:
    check = f"table {table}"
    try:
        contract = stored_contract(store, table)
        present = store.tables.schema(table)
        if present is None:
            yield CheckResult(
                check, "warning", "it has a contract, but does not exist", "the next load creates it again, empty"
            )
            return
        require_pinned_types(table, contract, present)
    except HeadraceError as error:
        yield failed(check, error)
        return
    identity = ", ".join(name for name, _ in contract.identity)
    yield CheckResult(check, "ok", f"unique key on event_id; identity {identity}; layout {contract.layout}")
    if contract.key_check and hash_key() is None:
        yield CheckResult(
            check, "failed", "its contract has a keyed hash", "set HEADRACE_HASH_KEY to the key of the table's loads"
        )


def _leftovers(store: Store) -> Iterator[CheckResult]:
    unfinished = [run for run in store.ledger.runs(limit=1000) if run.status != "done"]
    if unfinished:
        names = ", ".join(run.run_id[:8] for run in unfinished[:5])
        cure = "run their load again to resume; `headrace runs list` shows what happened"
        yield CheckResult("runs", "warning", f"{len(unfinished)} not finished ({names})", cure)
    kept = len(store.rejects.find(limit=1000))
    if kept:
        many = "1,000 or more" if kept == 1000 else str(kept)  # noqa: PLR2004 - the limit asked for just above
        yield CheckResult("rejects", "warning", f"{many} rows are kept as rejects", "see `headrace rejects list`")
    dead = store.outbox.count().get("dead", 0)
    if dead:
        yield CheckResult(
            "alerts", "warning", f"{dead} could not be delivered", "see `headrace alerts list --state dead`"
        )


def failed(check: str, error: HeadraceError) -> CheckResult:
    """A check that ended in `error`."""
    return CheckResult(check, "failed", error.what, error.hint or "")
