"""The values of options about events. Nothing is imported here: ``--help`` lists them without loading Arrow."""

from __future__ import annotations

from typing import Literal

__all__ = ["OnError", "RevisionsName"]

OnError = Literal["fail", "reject"]
RevisionsName = Literal["ignore", "report", "update"]
