"""pandas: `to_sql` with the insertion method for conflicts that its documentation shows, in chunks."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import sqlalchemy as sa
from job import Job, arrow_batches, timed
from sqlalchemy.dialects.postgresql import insert

CHUNK = 10_000


def main(job: Job) -> None:
    """Load chunk by chunk in one transaction."""

    def insert_on_conflict_nothing(table: object, connection: sa.Connection, names: list[str], rows: Iterator) -> int:
        data = [dict(zip(names, row, strict=True)) for row in rows]
        statement = insert(table.table).on_conflict_do_nothing(index_elements=job.key)  # type: ignore[attr-defined]
        return connection.execute(statement, data).rowcount

    url = job.url.replace("postgresql://", "postgresql+psycopg2://")
    engine = sa.create_engine(url, insertmanyvalues_page_size=CHUNK)
    with engine.begin() as connection:
        for frame in _frames(job):
            frame.to_sql(
                job.table,
                connection,
                if_exists="append",
                index=False,
                chunksize=CHUNK,
                method=insert_on_conflict_nothing,
            )


def _frames(job: Job) -> Iterator[pd.DataFrame]:
    """The input as frames, missing integers kept as missing."""
    for batch in arrow_batches(job):
        yield batch.to_pandas(types_mapper=pd.ArrowDtype)


if __name__ == "__main__":
    timed(main, Job.given())
