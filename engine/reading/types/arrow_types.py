"""Which logical type an Arrow type becomes, and which Arrow type carries a logical one."""

from __future__ import annotations

import pyarrow as pa

from headrace.partitioning.contract import LogicalType, arrow_type

__all__ = ["canonical_type", "is_bytes", "is_text", "logical_name"]


def is_text(kind: pa.DataType) -> bool:
    """Whether the Arrow type is one of the string types."""
    types = pa.types
    return any((types.is_string(kind), types.is_large_string(kind), types.is_string_view(kind)))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether the Arrow type is one of the binary types."""
    types = pa.types
    tests = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def logical_name(kind: pa.DataType) -> LogicalType:
    """The logical type that a column of Arrow type `kind` becomes; what has no counterpart becomes string."""
    types = pa.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return logical_name(kind.value_type)
    tests: tuple[tuple[LogicalType, bool], ...] = (
        ("bool", types.is_boolean(kind)),
        ("decimal", types.is_uint64(kind) or types.is_decimal(kind)),
        ("integer", types.is_integer(kind)),
        ("float", types.is_floating(kind)),
        ("timestamp", types.is_timestamp(kind)),
        ("date", types.is_date(kind)),
        ("bytes", is_bytes(kind)),
    )
    return next((name for name, matches in tests if matches), "string")


def canonical_type(name: LogicalType, scale: int = 9) -> pa.DataType:
    """The Arrow type that carries the logical type; `scale` matters to decimal alone."""
    return pa.decimal128(38, scale) if name == "decimal" else arrow_type(name)
