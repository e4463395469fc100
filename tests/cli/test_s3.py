"""s3:// through fsspec, against a server of moto's that the test starts."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer
from support.program import Headrace

CSV = "n,v\n1,a\n2,b\n"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-canary")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="events")
    client.put_object(Bucket="events", Key="day/one.csv", Body=CSV.encode())
    yield "s3://events"
    client.close()
    server.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # moto's and botocore's own
def test_objects_are_loaded_and_a_missing_one_is_an_error_without_secrets(headrace: Headrace, bucket: str) -> None:
    assert headrace.load(f"{bucket}/day/one.csv")["inserted"] == 2
    missing = headrace.run("load", f"{bucket}/day/none.csv", expect=1)
    assert "none.csv" in missing.stderr
    assert "canary" not in missing.stderr
