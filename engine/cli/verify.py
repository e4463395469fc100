"""What ``headrace verify`` does: compare inputs, or a statement, with the table, and print what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
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

__all__ = ["verify"]

DIFFERENCE = 4


def verify(
    inputs: Sequence[str],
    told: Mapping[str, Any],
    *,
    limit: int,
    values: bool,
    receipt: str | None,
    against: str | None,
) -> int:
    """``headrace verify``. A statement is written to `receipt`; the one in `against` is compared with the table."""
    load_options, output = options(told), told["output"]
    stated = None if against is None else read_statement(Path(against))
    if stated is not None:
        load_options = replace(load_options, table=load_options.table or stated.table)
        _require_same_table(load_options, stated)
    if not inputs:
        return _verify_statement(load_options, stated, output)
    with opened(load_options, inputs, existing=True) as (store, table, items, settled):
        progress = progress_for(told["progress"])
        verification = verify_inputs(store, items, table, settled, progress=progress, limit=limit, values=values)
        if receipt is not None:
            write_statement(Path(receipt), verification, stored_contract(store, table), store.url)
        result = verification if stated is None else compare(store, stated, verification)
    show(output, result.to_dict, result.to_text)
    return 0 if result.ok else DIFFERENCE


def _verify_statement(load_options: LoadOptions, stated: Attestation | None, output: str) -> int:
    """A table against a statement, without any input."""
    if stated is None:
        raise UsageError("there is nothing to verify", hint="name the inputs, or a statement with --against FILE")
    with open_existing(load_options.to) as store:
        stored_contract(store, stated.table)
        told = compare(store, stated, None)
    show(output, told.to_dict, told.to_text)
    return 0 if told.ok else DIFFERENCE


def _require_same_table(load_options: LoadOptions, stated: Attestation) -> None:
    if load_options.table != stated.table:
        raise UsageError(
            f"the statement is about the table {stated.table!r}, not {load_options.table!r}", hint="leave out --table"
        )
