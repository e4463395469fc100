"""The reader of a file, by its format."""

from __future__ import annotations

from headrace.reading.columnar import ParquetReader
from headrace.reading.csv_reader import CsvReader
from headrace.reading.files import Located
from headrace.reading.json_reader import JsonReader
from headrace.reading.reader import Reader
from headrace.reading.sql import Connect

__all__ = ["reader_of"]


def reader_of(located: Located, connect: Connect) -> Reader:
    """The reader of `located`; `connect` opens a DuckDB connection, which some JSON needs."""
    file, name = located.file, located.name
    match located.format:
        case "csv":
            return CsvReader(file, name, ",")
        case "tsv":
            return CsvReader(file, name, "\t")
        case "parquet":
            return ParquetReader(file, name)
        case "jsonl":
            shape = "lines"
        case "geojson":
            shape = "features"
        case "json":
            shape = "values"
    return JsonReader(file, name, shape, connect)
