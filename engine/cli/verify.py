"""What ``headrace verify`` does: compare inputs, or a statement, with the table, and print what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headrace.api import opened
from headrace.checking.attestation import Attestation, compare, read_statement, write_statement
from headrace.checking.verify import verify as verify_inputs
from headrace.cli.load import options
from headrace.cli.show import show
from headrace.errors import UsageError
from headrace.loading.agreement import stored_contract
from headrace.loading.database import open_existing
from headrace.observability.progress import progress_for
from headrace.options.load import LoadOptions

__all__ = ["StatementFiles", "verify"]

DIFFERENCE = 4


@dataclass(frozen=True, slots=True)
class StatementFiles:
    """Where a verification's statement is written to, and the one that it is compared with."""

    receipt: str | None = None
    against: str | None = None


def verify(inputs: Sequence[str], files: StatementFiles, told: Mapping[str, Any], *, limit: int, values: bool) -> int:
    """``headrace verify``."""
    wanted, output = options(told), told["output"]
    stated = None if files.against is None else read_statement(Path(files.against))
    if stated is not None:
        wanted = replace(wanted, table=wanted.table or stated.table)
        _require_same_table(wanted, stated)
    if not inputs:
        return _verify_statement(wanted, stated, output)
    with opened(wanted, inputs, existing=True) as (store, table, items, settled):
        progress = progress_for(told["progress"])
        found = verify_inputs(store, items, table, settled, progress=progress, limit=limit, values=values)
        if files.receipt is not None:
            write_statement(Path(files.receipt), found, stored_contract(store, table), store.url)
        result = found if stated is None else compare(store, stated, found)
    show(output, result.to_dict, result.to_text)
    return 0 if result.ok else DIFFERENCE


def _verify_statement(wanted: LoadOptions, stated: Attestation | None, output: str) -> int:
    """A table against a statement, without any input."""
    if stated is None:
        raise UsageError("there is nothing to verify", hint="name the inputs, or a statement with --against FILE")
    with open_existing(wanted.to) as store:
        stored_contract(store, stated.table)
        told = compare(store, stated, None)
    show(output, told.to_dict, told.to_text)
    return 0 if told.ok else DIFFERENCE


def _require_same_table(wanted: LoadOptions, stated: Attestation) -> None:
    if wanted.table != stated.table:
        raise UsageError(
            f"the statement is about the table {stated.table!r}, not {wanted.table!r}", hint="leave out --table"
        )
