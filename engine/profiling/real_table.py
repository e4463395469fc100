"""The real table of a profiled load: it is only read, for its contract and for the sample's events that it holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from headrace.checking.rereading import identified
from headrace.errors import StoreError
from headrace.loading.contract_drift import require_pinned_types
from headrace.loading.database import is_there
from headrace.loading.ownership import require_own_events
from headrace.options.load import LoadOptions
from headrace.partitioning.contract import Contract
from headrace.reading.inputs import Input
from headrace.storage import open_store

__all__ = ["RealTable"]

IDS_IN_A_BLOCK = 50_000


@dataclass(frozen=True, slots=True)
class RealTable:
    """The table `name` in the database at `url`, whether it `exists`, and its stored contract, if it has one."""

    url: str
    name: str
    exists: bool
    contract: Contract | None

    @classmethod
    def look(cls, options: LoadOptions, name: str) -> RealTable:
        """Raises `SchemaError` for a table without its unique key, or whose types are not the contract's any more."""
        absent = cls(options.to, name, exists=False, contract=None)
        if not is_there(options.to):
            return absent
        with open_store(options.to) as store:
            present = store.tables.schema(name)
            if present is None:
                return absent
            pinned = None
            with suppress(StoreError):  # a table of the user's own, and no ledger yet
                pinned = store.ledger.pinned_contract(name)
            if pinned is None:
                return cls(options.to, name, exists=True, contract=None)
            contract = Contract.from_json(pinned)
            require_pinned_types(name, contract, present)
            require_own_events(store, name, contract, options)
            return cls(options.to, name, exists=True, contract=contract)

    def in_its_timezone(self, options: LoadOptions) -> LoadOptions:
        """The options with the time zone of the stored contract, where none is given."""
        if self.contract is None or options.timezone is not None:
            return options
        return replace(options, read=replace(options.read, timezone=self.contract.timezone))

    def known(self, inputs: Sequence[Input], options: LoadOptions) -> Iterator[bytes]:
        """The inputs' IDs under the stored contract, in packed blocks; nothing where there is no such contract."""
        if self.contract is None:
            return
        with open_store(self.url) as store:
            for prepared in identified(store, self.name, self.contract, inputs, options):
                for start in range(0, len(prepared.ids), IDS_IN_A_BLOCK):
                    yield prepared.ids[start : start + IDS_IN_A_BLOCK].tobytes()
