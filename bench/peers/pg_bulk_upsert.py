"""pg-bulk-ingest: its upsert on a table with the natural key as primary key. It updates the rows that are there."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from job import Job, arrow_batches, timed
from pg_bulk_ingest import HighWatermark, ingest

SA_TYPES = {
    "double precision": sa.Float(53),
    "text": sa.Text(),
    "bigint": sa.BigInteger(),
    "timestamptz": sa.DateTime(timezone=True),
}


def main(job: Job) -> None:
    """Load in one batch, which is one transaction."""
    metadata = sa.MetaData()
    columns = [
        sa.Column(name, SA_TYPES[kind], primary_key=name in job.key, nullable=name not in job.key)
        for name, kind in job.columns.items()
    ]
    table = sa.Table(job.table, metadata, *columns, schema="public")

    def rows() -> Iterator:
        for batch in arrow_batches(job):
            values = [column.to_pylist() for column in batch.columns]
            yield from ((table, row) for row in zip(*values, strict=True))

    engine = sa.create_engine(job.url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        ingest(connection, metadata, lambda _: iter([(None, None, rows())]), high_watermark=HighWatermark.LATEST)


if __name__ == "__main__":
    timed(main, Job.given())
