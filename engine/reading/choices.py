"""The values of options about reading. Nothing is imported here: ``--help`` lists them without loading DuckDB."""

from __future__ import annotations

from typing import Literal

__all__ = ["CHUNK_ROWS", "SILENT_SECONDS", "Format"]

Format = Literal["csv", "tsv", "json", "jsonl", "geojson", "parquet"]
CHUNK_ROWS = 131_072
SILENT_SECONDS = 30
"""A download without a byte for this long has failed."""
