"""PySpark: JDBC append to a staging table, batches rewritten, then INSERT … ON CONFLICT DO NOTHING."""

from __future__ import annotations

import psycopg
from job import Job, timed
from pyspark.sql import SparkSession

DRIVER = "/usr/share/java/postgresql.jar"
SPARK_TYPES = {"double precision": "double", "text": "string", "bigint": "bigint", "timestamptz": "timestamp"}


def main(job: Job) -> None:
    """Load with as many tasks as there are cores."""
    spark = (
        SparkSession.builder.master("local[*]")
        .config("spark.driver.extraClassPath", DRIVER)
        .config("spark.driver.memory", "2g")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.local.dir", job.scratch)
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    with psycopg.connect(job.url) as connection:
        connection.execute(f"CREATE UNLOGGED TABLE aside ({job.staging})")
    properties = {
        "driver": "org.postgresql.Driver",
        "user": "postgres",
        "batchsize": "10000",
        "reWriteBatchedInserts": "true",
    }
    _read(spark, job).write.jdbc(f"jdbc:postgresql://{job.tcp}", "aside", mode="append", properties=properties)
    with psycopg.connect(job.url) as connection:
        connection.execute(f"INSERT INTO {job.table} ({job.names}) SELECT {job.names} FROM aside {job.conflict}")
        connection.execute("DROP TABLE aside")
    spark.stop()


def _read(spark: SparkSession, job: Job):
    schema = ", ".join(f"{name} {SPARK_TYPES[kind]}" for name, kind in job.columns.items())
    if job.kind == "parquet":
        frame = spark.read.parquet(job.path)
        return frame.withColumn(job.time, frame[job.time].cast("timestamp"))
    if job.kind == "csv":
        return spark.read.csv(job.path, header=True, schema=schema)
    return spark.read.json(job.path, schema=schema)


if __name__ == "__main__":
    timed(main, Job.given())
