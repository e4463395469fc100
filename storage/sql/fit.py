"""Which columns of an input a table lacks, and whether the types of the others are the same."""

from __future__ import annotations

import pyarrow as pa

from headrace.errors import SchemaError
from headrace.storage.sql.schema import kind

__all__ = ["missing"]


def missing(table: str, schema: pa.Schema, present: pa.Schema | None) -> list[pa.Field]:
    """The fields of `schema` that the table lacks. Raises `SchemaError` where a type differs."""
    held = {} if present is None else {field.name: field.type for field in present}
    for field in schema:
        if field.name in held and kind(held[field.name]) != kind(field.type):
            raise SchemaError(
                f"the input has {kind(field.type)}, the table holds {kind(held[field.name])}",
                where=f"{table}, column {field.name}",
                hint=f"convert it: --type {field.name}={kind(held[field.name])} or --select; or name another --table",
            )
    return [field for field in schema if field.name not in held]
