"""What a peer is asked to do, as it finds it in a file: this input into that table, each event once."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Job", "arrow_batches", "arrow_schema", "chunk_folder", "timed"]

TABLE = "events"
ROWS_AT_ONCE = 131_072
ARROW_TYPES = {"double precision": "float64", "text": "string", "bigint": "int64"}


@dataclass(frozen=True, slots=True)
class Job:
    """One load. `url` is by TCP; `columns` are PostgreSQL's types by name; `scratch` is an empty folder."""

    url: str
    path: str
    kind: str
    columns: dict[str, str]
    key: list[str]
    time: str
    scratch: str
    table: str = TABLE

    @classmethod
    def given(cls) -> Job:
        """The job in the file that the command line names."""
        return cls(**json.loads(Path(sys.argv[1]).read_text()))

    def write(self, path: Path) -> Path:
        """Write it where `given` finds it."""
        path.write_text(json.dumps(asdict(self)))
        return path

    @property
    def names(self) -> str:
        """The columns, for a statement. They are the benchmark's own plain words."""
        return ", ".join(self.columns)

    @property
    def staging(self) -> str:
        """The columns of a staging table."""
        return ", ".join(f"{name} {kind}" for name, kind in self.columns.items())

    @property
    def conflict(self) -> str:
        """The end of an INSERT that leaves alone what is there."""
        return f"ON CONFLICT ({', '.join(self.key)}) DO NOTHING"

    @property
    def tcp(self) -> str:
        """Address and database without scheme and user."""
        return self.url.partition("@")[2]


def timed(main: Callable[[Job], object], job: Job) -> None:
    """Do the job and print its seconds, from before the first connection to after the last commit.

    Python's start and the script's imports are left out, as Headrace's report leaves them out.
    """
    began = time.perf_counter()
    main(job)
    print(json.dumps({"seconds": time.perf_counter() - began}))


def arrow_schema(job: Job):
    """The columns of the input."""
    import pyarrow as pa

    kinds = {**{name: getattr(pa, kind)() for name, kind in ARROW_TYPES.items()}, "timestamptz": pa.timestamp("us")}
    return pa.schema([(name, kinds[kind]) for name, kind in job.columns.items()])


def arrow_batches(job: Job) -> Iterator:
    """The input as Arrow record batches, streamed by pyarrow's own readers."""
    import pyarrow as pa

    schema = arrow_schema(job)
    if job.kind == "parquet":
        import pyarrow.parquet as pq

        yield from pq.ParquetFile(job.path).iter_batches(ROWS_AT_ONCE)
    elif job.kind == "csv":
        import pyarrow.csv as pc

        options = pc.ConvertOptions(column_types=schema, strings_can_be_null=True, quoted_strings_can_be_null=False)
        yield from pc.open_csv(job.path, pc.ReadOptions(block_size=16 << 20), convert_options=options)
    else:
        import pyarrow.json as pj

        options = pj.ParseOptions(explicit_schema=schema)
        table = pj.read_json(job.path, pj.ReadOptions(block_size=16 << 20), options)
        yield from pa.Table.to_batches(table, ROWS_AT_ONCE)


def chunk_folder(path: Path) -> Path:
    """Where the encoded chunks of an input are, for the lower bound."""
    return path.with_name(f"{path.name}.encoded")
