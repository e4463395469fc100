"""The values of options about a contract. Nothing is imported here: ``--help`` lists them without loading Arrow."""

from __future__ import annotations

from typing import Literal

__all__ = ["HashName", "LogicalType", "Scope"]

LogicalType = Literal["bool", "integer", "float", "timestamp", "date", "decimal", "string", "bytes"]
HashName = Literal["xxh3_128", "blake2b"]
Scope = Literal["provider", "global"]
