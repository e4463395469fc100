"""A verification as a file, which can be kept and compared with the table later, with or without the inputs.

    verify INPUT --receipt FILE ──► digests of input, table and ledger, which receipts there were ──► sealed JSON
                                                                                                         │
    verify --against FILE        ◄── what those receipts hold now                                        │
    verify --against FILE INPUT  ◄── that, and the input and its events in the table now            ◄────┘

The seal is a digest of the file's own content: it shows damage. It is not a signature: whoever must exclude a forged
file signs it with a tool made for that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.checking.audit import Audit, ReceiptDifference
from headrace.checking.verify_result import Verification
from headrace.errors import UsageError
from headrace.partitioning.contract import Contract
from headrace.partitioning.id_buckets import BUCKETS, TaggedIds
from headrace.runtime.scratch import scratch_folder
from headrace.storage.digest import NOTHING, PARTS, Digest
from headrace.storage.store import Store
from headrace.version import __version__

__all__ = ["Attestation", "Check", "Comparison", "compare", "read_statement", "write_statement"]

FORMAT = "headrace verification 1"


@dataclass(frozen=True, slots=True)
class Attestation:
    """A statement: the table, whether it was in order, the digests, and the receipts as runs (first, last)."""

    table: str
    made_at: str
    ok: bool
    digests: Mapping[str, Digest]
    receipts: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Check:
    """One digest, as stated and as found; `differing` lists the partitions (of 16) in which the two differ."""

    name: str
    stated: int
    found: int
    differing: Sequence[int]

    def __str__(self) -> str:
        if not self.differing:
            return f"  same     {self.name} ({self.found:,})"
        parts = ", ".join(map(str, self.differing))
        return f"  DIFFERS  {self.name}: stated {self.stated:,}, found {self.found:,}; partitions {parts} of {PARTS}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A table compared with a statement; `verification` is the new verification, if the inputs were given too."""

    table: str
    made_at: str
    stated_ok: bool
    checks: Sequence[Check]
    differences: Sequence[ReceiptDifference]
    verification: Verification | None = None

    @property
    def ok(self) -> bool:
        """Whether everything is as it was stated, and what was stated was in order."""
        verified = self.verification is None or self.verification.ok
        return self.stated_ok and verified and not any(check.differing for check in self.checks)

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON."""
        return {
            "ok": self.ok,
            "table": self.table,
            "stated_at": self.made_at,
            "stated_ok": self.stated_ok,
            "checks": [{**asdict(check), "same": not check.differing} for check in self.checks],
            "ledger_differences": [difference.to_dict() for difference in self.differences],
            "verification": self.verification and self.verification.to_dict(),
        }

    def to_text(self) -> str:
        """One screen for people."""
        lines = [f"{'AS STATED' if self.ok else 'DIFFERENCE FOUND'}: {self.table}, stated {self.made_at}"]
        if not self.stated_ok:
            lines.append("  the statement itself says that the table was not in order")
        lines += map(str, self.checks)
        lines += [f"    {difference}" for difference in self.differences[:10]]
        if not self.ok and self.verification is None:
            lines.append(
                "  give the inputs too, to learn which of their events are missing: verify INPUT --against FILE"
            )
        return "\n".join(lines if self.verification is None else [*lines, self.verification.to_text()])


def write_statement(path: Path, verification: Verification, contract: Contract, database: str) -> None:
    """Write the statement to a file, completely or not at all. `database` is a URL without its password."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "headrace": __version__,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "database": database,
        "contract": json.loads(contract.to_json()),
        "inputs": [asdict(source) for source in verification.inputs],
        "receipts": [list(run) for run in verification.receipts],
        **verification.to_dict(),
    }
    text = json.dumps({**content, "seal": _seal(content)}, ensure_ascii=False, indent=1)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UsageError(
            f"the receipt cannot be written ({error})", where=str(path), hint="name another file"
        ) from error


def read_statement(path: Path) -> Attestation:
    """Read a statement. Raises `UsageError` if the file is not a statement, or was changed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        seal = content.pop("seal")
        if content["format"] != FORMAT:
            raise UsageError(
                f"this is of the format {content['format']!r}", where=str(path), hint=f"this version reads {FORMAT!r}"
            )
        digests = {name: Digest.from_list(parts) for name, parts in content["digests"].items()}
        receipts = [(int(first), int(last)) for first, last in content["receipts"]]
        stated = Attestation(content["table"], content["made_at"], content["ok"], digests, receipts)
    except OSError as error:
        raise UsageError(f"the statement cannot be read ({error})", where=str(path), hint="check --against") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "this is not a statement of a verification",
            where=str(path),
            hint="`headrace verify … --receipt FILE` makes one",
        ) from error
    if seal != _seal(content):
        raise UsageError(
            "the statement was changed after it was written: its seal is broken",
            where=str(path),
            hint="use the original file",
        )
    return stated


def compare(store: Store, stated: Attestation, verification: Verification | None) -> Comparison:
    """Compare the present rows of the stated receipts with the statement and, if `verification` is given, the inputs
    and their events too.
    """
    with scratch_folder() as folder, TaggedIds(folder, "table") as held:
        audit = Audit.of(store, stated.table, held, None)
        now = _held_under(stated.receipts, held)
        differences = _of_then(stated, audit.settled(store, held))
    checks = [_check("rows under the statement's receipts", stated.digests["receipted"], now)]
    if verification is not None:
        checks += [
            _check("distinct events of the input", stated.digests["input"], verification.input_digest),
            _check("these events in the table", stated.digests["table"], verification.table_digest),
        ]
    return Comparison(stated.table, stated.made_at, stated.ok, checks, differences, verification)


def _held_under(receipts: Sequence[tuple[int, int]], held: TaggedIds) -> Digest:
    digest = NOTHING
    for number in range(BUCKETS):
        ids, under = held.bucket(number)
        digest += Digest.of(ids[_within(under, receipts)])
    return digest


def _within(numbers: NDArray[np.int64], runs: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Which of `numbers` lie in one of the ascending `runs`, ends included."""
    edges = np.array([edge for first, last in runs for edge in (first, last + 1)], dtype=np.int64)
    return np.asarray(np.searchsorted(edges, numbers, side="right") % 2 == 1, dtype=np.bool_)


def _of_then(stated: Attestation, differences: Sequence[ReceiptDifference]) -> list[ReceiptDifference]:
    ids = np.array([difference.receipt_id for difference in differences], dtype=np.int64)
    return [difference for difference, then in zip(differences, _within(ids, stated.receipts), strict=True) if then]


def _check(name: str, stated: Digest, present: Digest) -> Check:
    return Check(name, stated.whole.count, present.whole.count, stated.differing(present))


def _seal(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return blake2b(canonical.encode(), digest_size=16).hexdigest()
