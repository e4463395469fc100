"""SQLAlchemy Core: bulk `insert().on_conflict_do_nothing()`, the driver sending many rows in one statement."""

from __future__ import annotations

import sqlalchemy as sa
from job import Job, arrow_batches, timed
from sqlalchemy.dialects.postgresql import insert

PAGE = 10_000


def main(job: Job) -> None:
    """Load in one transaction."""
    url = job.url.replace("postgresql://", "postgresql+psycopg2://")
    engine = sa.create_engine(
        url, insertmanyvalues_page_size=PAGE, executemany_mode="values_plus_batch", executemany_batch_page_size=PAGE
    )
    table = sa.Table(job.table, sa.MetaData(), autoload_with=engine)
    statement = insert(table).on_conflict_do_nothing(index_elements=job.key)
    with engine.begin() as connection:
        for batch in arrow_batches(job):
            connection.execute(statement, batch.to_pylist())


if __name__ == "__main__":
    timed(main, Job.given())
