"""What ``headrace doctor`` does: examine the database, or all that ``headrace run`` needs, and print each finding."""

from __future__ import annotations

import sys
from pathlib import Path

from headrace.checking.doctor import examine
from headrace.cli.show import show
from headrace.errors import UsageError
from headrace.options.load import database_url
from headrace.polling.checkup import examine_settings

__all__ = ["doctor"]

FAILED = 1


def doctor(to: str | None, config: str | None, output: str) -> int:
    """``headrace doctor``."""
    if config is not None and to is not None:
        raise UsageError("--to and --config each name a database", hint="the file's is in its key database")
    if config is not None:
        sys.path.insert(0, str(Path(config).resolve().parent))  # as `headrace run` does, for the user's functions
    findings = list(examine(database_url(to)) if config is None else examine_settings(config))
    show(
        output,
        lambda: {"findings": [finding.to_dict() for finding in findings]},
        lambda: "\n".join(finding.to_text() for finding in findings),
    )
    return FAILED if any(finding.state == "failed" for finding in findings) else 0
