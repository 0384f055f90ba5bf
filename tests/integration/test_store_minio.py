"""The store against a real MinIO: conditional writes, and the sentence for each way in which it refuses."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from trainmaster_trainer.errors import StorageDenied
from trainmaster_trainer.storage.store import Changed, Store

from testbed import builds
from tests.contention import count_together


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address, folder = f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("minio")
    command = [str(builds.tool("minio")), "server", str(folder), "--address", f"127.0.0.1:{port}"]
    keys = {"MINIO_ROOT_USER": "keyid", "MINIO_ROOT_PASSWORD": "secretsecret"}
    with (folder.parent / "minio.log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | keys, stdout=log, stderr=log)
    try:
        _wait(f"{address}/minio/health/ready", folder.parent / "minio.log")
        client = boto3.client(
            "s3", endpoint_url=address, aws_access_key_id="keyid", aws_secret_access_key="secretsecret",
            region_name="us-east-1",
        )  # fmt: skip
        client.create_bucket(Bucket="data")
        yield Store("s3://data/run", address, access_key="keyid", secret_key="secretsecret", patience=20)
    finally:
        server.kill()
        server.wait()


def _wait(address: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(address, timeout=1).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"MinIO isn't ready: {log.read_text()[-2000:]}")


def test_of_many_conditional_writers_each_round_has_one_winner(store: Store) -> None:
    assert count_together(store, 40) == 40


def test_conditional_writes(store: Store) -> None:
    store.put_if("FENCE", b"1", None)
    found = store.get_versioned("FENCE")
    assert found is not None
    store.put_if("FENCE", b"2", found[1])
    for version in (None, found[1]):
        with pytest.raises(Changed):
            store.put_if("FENCE", b"3", version)
    assert store.get("FENCE") == b"2"
    store.delete_directory("")
    store.check()
    assert store.list() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"uri": "s3://absent/run"}, "bucket absent does not exist at {endpoint}; create it, or correct its name"),
        ({"access_key": "other"}, "refused key other while writing"),
        ({"access_key": "other"}, "it doesn't know that key id (InvalidAccessKeyId)"),
        ({"secret_key": "not-the-secret"}, "the secret key doesn't belong to that key id (SignatureDoesNotMatch)"),
    ],
)
def test_refusals_come_at_once_and_say_why(store: Store, change: dict[str, str], message: str) -> None:
    began = time.monotonic()
    with pytest.raises(StorageDenied) as caught:
        replace(store, **change).check()
    assert message.format(endpoint=store.endpoint) in caught.value.message
    assert "\n" not in caught.value.message
    assert time.monotonic() - began < 15, "it was asked again although the answer was final"
