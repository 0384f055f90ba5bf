"""The store against a real MinIO: conditional writes, and the sentence for each way in which it refuses."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import boto3
import pytest
from trainmaster_trainer.errors import ConfigurationError, StorageDenied
from trainmaster_trainer.storage.store import Changed, Store, open_store
from trainmaster_trainer.storage.waiting import waiting

from tests.contention import count_together
from tests.integration.minio import KEY, SECRET, minio_server

REGION = "us-west-2"
server_pid: list[int] = []


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with minio_server(tmp_path_factory.mktemp("minio"), REGION) as server:
        server_pid.append(server.pid)
        yield Store("s3://data/run", server.address, REGION, access_key=KEY, secret_key=SECRET, patience=20)


def test_put_if_of_many_writers_has_one_winner_per_round(store: Store) -> None:
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
        (
            {"uri": "s3://absent/run"},
            "bucket absent does not exist at {endpoint}; create it, or correct its name in storage.uri",
        ),
        ({"access_key": "other"}, "refused key other while writing"),
        (
            {"access_key": "other"},
            "it does not know that access key ID (InvalidAccessKeyId); correct AWS_ACCESS_KEY_ID",
        ),
        (
            {"secret_key": "not-the-secret"},
            "the secret access key does not match the access key ID (SignatureDoesNotMatch); correct "
            "AWS_SECRET_ACCESS_KEY",
        ),
        (
            {"session_token": "bogus"},
            "the session token AWS_SESSION_TOKEN is not valid for that access key (InvalidTokenId); renew AWS",
        ),
        (
            {"region": "eu-central-1"},
            "it is in the region us-west-2 (AuthorizationHeaderMalformed); correct storage.region",
        ),
        ({"access_key": "keyid\n"}, "AWS_ACCESS_KEY_ID contains a space, a line break"),
    ],
)
def test_refusals_come_at_once_and_say_why(store: Store, change: dict[str, str], message: str) -> None:
    began = time.monotonic()
    with pytest.raises(StorageDenied) as caught:
        replace(store, **change).check()
    assert message.format(endpoint=store.endpoint) in caught.value.message
    assert "\n" not in caught.value.message
    assert time.monotonic() - began < 15, "it was asked again although the answer was final"


def test_stopped_server_is_waited_for(store: Store) -> None:
    store.put("warm", b"1")
    os.kill(server_pid[0], signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as thread:
            written = thread.submit(store.put, "checkpoints/a1-step-0000010/manifest.json", b"{}")
            deadline = time.monotonic() + 60
            while (wait := waiting(1.0)) is None and time.monotonic() < deadline:
                time.sleep(0.05)
            assert wait is not None
            assert re.fullmatch(
                rf"storage {store.endpoint} has not responded since \S+Z while writing checkpoints/.*manifest\.json",
                str(wait),
            )
            assert not written.done()
            os.kill(server_pid[0], signal.SIGCONT)
            written.result(timeout=60)
    finally:
        os.kill(server_pid[0], signal.SIGCONT)
    assert waiting(0) is None
    store.delete_directory("")


def test_addresses_that_look_alike_are_refused(store: Store) -> None:
    """`#` was cut off: two jobs shared one directory, and the second was complete with the first one's model."""
    for uri in ("s3://data/exp#1", "s3://data/exp?1", "s3://data//exp"):
        with pytest.raises(ConfigurationError, match="contains"):
            open_store(uri, store.endpoint, REGION, {})


@pytest.mark.parametrize("prefix", ["a b", "ü", "x!_.*'()=+@,:;&$-~", "^`{}[]<>|\\"])
def test_a_prefix_is_taken_as_it_is(store: Store, prefix: str) -> None:
    place = open_store(
        f"s3://data/{prefix}/", store.endpoint, REGION,
        {"AWS_ACCESS_KEY_ID": "keyid", "AWS_SECRET_ACCESS_KEY": "secretsecret"},
    )  # fmt: skip
    place.put("o", b"1")
    client = boto3.client(
        "s3", endpoint_url=store.endpoint, aws_access_key_id="keyid", aws_secret_access_key="secretsecret",
        region_name=REGION,
    )  # fmt: skip
    # other tests of this server use the bucket too
    found = {item["Key"] for item in client.list_objects_v2(Bucket="data")["Contents"] if item["Key"].endswith("/o")}
    assert found == {f"{prefix}/o"}
    assert place.list() == [("o", 1)]
    place.delete("o")
