"""Logs in storage: found by the status, read with the job's keys, also where only the cluster can reach the server."""

from __future__ import annotations

import base64
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from trainmaster_cli.cluster import forward
from trainmaster_cli.cluster.stored import StoredRun
from trainmaster_cli.errors import UserError
from trainmaster_trainer.errors import StorageDenied
from trainmaster_trainer.storage.store import Store, open_store

from tests.unit.operator.policy.wrappers import Bench

from .fake_api import FakeApi, secret_path

LOG = "logs/a1/digits-1-w-0.log"


def finished(uri: str, **storage: Any) -> FakeApi:
    bench = Bench().running()
    bench.raw["status"] |= {"runUri": uri, "storage": storage}
    return FakeApi(bench.raw)


def run_of(api: FakeApi) -> StoredRun:
    (job,) = api.objects.values()
    return StoredRun(api, job)


def test_a_shared_directory_is_read(tmp_path: Path) -> None:
    open_store(str(tmp_path), None, "", {}).put(LOG, b"one\ntwo\n")
    run = run_of(finished(str(tmp_path)))
    assert list(run.lines(LOG)) == [b"one", b"two"]
    with pytest.raises(FileNotFoundError):
        run.lines("logs/a2/x.log")


def test_a_directory_of_the_pods_is_said_to_be_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a directory of the pods, which this machine doesn't have"):
        run_of(finished(str(tmp_path / "none"))).lines(LOG)


@pytest.mark.parametrize("allowed", [True, False])
def test_the_keys_are_those_of_the_job(monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    """Those of the environment serve where the Secret must not be read."""
    asked: list[tuple[Any, ...]] = []

    def opened(uri: str, endpoint: str | None, region: str, env: dict[str, str]) -> Store:
        asked.append((uri, endpoint, region, env["AWS_ACCESS_KEY_ID"], env.get("OTHER")))
        return open_store(uri, endpoint, region, env)

    def get(self: Store, path: str) -> bytes:
        raise StorageDenied("no such bucket")

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.setattr("trainmaster_trainer.storage.store.open_store", opened)
    monkeypatch.setattr(Store, "get", get)
    api = finished("s3://bucket/p", endpoint="http://10.0.0.1:9000", region="eu-1", credentialsSecret="minio")
    data = {"AWS_ACCESS_KEY_ID": "theirs", "AWS_SECRET_ACCESS_KEY": "s", "OTHER": "x"}
    if allowed:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        api.objects[secret_path("team", "minio")] = {"data": encoded}
    else:
        api.refuse[secret_path("team", "minio")] = UserError("you have no right to get secrets")
    with pytest.raises(UserError, match="its storage can't be read from here: no such bucket"):
        StoredRun(api, next(iter(api.objects.values()))).lines(LOG)
    assert asked == [("s3://bucket/p", "http://10.0.0.1:9000", "eu-1", "theirs" if allowed else "mine", None)]


@pytest.mark.parametrize(
    ("host", "expected"),
    [("minio.team.svc", True), ("minio.team.svc.cluster.local", True), ("127.0.0.1", False), ("localhost", False),
     ("s3.eu-central-1.amazonaws.com", False)],
)  # fmt: skip
def test_which_hosts_only_the_cluster_knows(host: str, expected: bool) -> None:
    assert forward.is_service(host) is expected


def test_any_other_endpoint_stays_as_it_is() -> None:
    assert forward.reachable(FakeApi(), "http://minio.team.svc:9000") == "http://minio.team.svc:9000", "no real cluster"


def with_service(port: Any, phase: str = "Running") -> FakeApi:
    api = FakeApi()
    spec = {"selector": {"app": "minio"}, "ports": [{"port": 80, "targetPort": port}]}
    api.objects["/api/v1/namespaces/store/services/minio"] = {"spec": spec}
    container = {"ports": [{"name": "s3", "containerPort": 9000}]}
    api.pods = [
        {"metadata": {"name": "old"}, "status": {"phase": "Succeeded"}, "spec": {"containers": []}},
        {"metadata": {"name": "minio-0"}, "status": {"phase": phase}, "spec": {"containers": [container]}},
    ]
    return api


@pytest.mark.parametrize(("port", "expected"), [("s3", 9000), (9001, 9001)])
def test_the_pod_behind_a_service(port: Any, expected: int) -> None:
    api = with_service(port)
    assert forward.backend(api, "minio.store.svc", 80) == ("minio-0", expected)
    assert api.asked[-1][1] == {"labelSelector": "app=minio"}


def test_a_service_that_leads_nowhere() -> None:
    with pytest.raises(UserError, match="the Service minio has no running pod"):
        forward.backend(with_service("s3", phase="Pending"), "minio.store.svc", 80)
    with pytest.raises(UserError, match="is no Service of the cluster"):
        forward.backend(FakeApi(), "minio.store.svc", 80)


def test_bytes_are_forwarded_both_ways_and_to_the_end() -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        for _ in range(2):
            connection, _ = server.accept()
            with connection:
                asked = connection.recv(100)
                connection.sendall(asked.upper() * 100_000)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    port = forward.listen(lambda: socket.create_connection(server.getsockname()))
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as near:
            near.sendall(b"abc")
            found = b"".join(iter(lambda near=near: near.recv(2**16), b""))  # type: ignore[misc]
        assert found == b"ABC" * 100_000
    server.close()


class ClientError(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__("(0)")
        self.reason = reason


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (
            'Handshake status 403 Forbidden -+-+- {"kind":"Status","message":"pods \\"m\\" is forbidden: no"}',
            "you have no right to create pods/portforward in namespace team, by which the storage m.team.svc is "
            'reached from outside of the cluster: pods "m" is forbidden: no',
        ),
        ("timed  out", "the storage m.team.svc can't be reached through the API server: timed out"),
    ],
)
def test_a_forward_that_is_refused_says_why(reason: str, sentence: str) -> None:
    """Also where the client library stumbles over its own error."""

    def connect() -> socket.socket:
        try:
            raise ClientError(reason)
        except ClientError:
            raise AttributeError("'NoneType' object has no attribute 'decode'")  # noqa: B904 - as the library does

    with pytest.raises(UserError) as caught:
        forward._try(connect, "m.team.svc", "team")
    assert str(caught.value) == sentence


def test_a_forward_that_fails_closes_the_connection() -> None:
    def fails() -> socket.socket:
        raise RuntimeError("no right to forward")

    with socket.create_connection(("127.0.0.1", forward.listen(fails)), timeout=20) as near:
        assert near.recv(10) == b""
