"""dlt: Arrow batches, Parquet files copied through ADBC, `merge` with the strategy that the command line names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial

from job import Job, arrow_batches, timed

# dlt reads its settings when it is imported
os.environ.update({"RUNTIME__DLTHUB_TELEMETRY": "false", "NORMALIZE__DATA_WRITER__DISABLE_COMPRESSION": "true"})
import dlt


def main(job: Job, strategy: str) -> None:
    """Load by a pipeline whose state is in the database only."""

    @dlt.resource(
        name=job.table,
        primary_key=job.key,
        write_disposition={"disposition": "merge", "strategy": strategy},
        file_format="parquet",
    )
    def events() -> Iterator:
        yield from arrow_batches(job)

    pipeline = dlt.pipeline(
        "bench",
        pipelines_dir=job.scratch,
        # it insists on a password, which the server does not ask for
        destination=dlt.destinations.postgres(job.url.replace("postgres@", "postgres:none@")),
        dataset_name="public",
    )
    pipeline.run(events()).raise_on_failed_jobs()


if __name__ == "__main__":
    timed(partial(main, strategy=sys.argv[2]), Job.given())
