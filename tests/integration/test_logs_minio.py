"""The way of a line: from a rank to a real MinIO while it runs, and from there to `trainmaster logs`."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from trainmaster_cli.cluster.stored import StoredRun
from trainmaster_trainer.cluster.process import Process
from trainmaster_trainer.logs.settings import CollectorProcess

from tests.integration.minio import KEY, SECRET, minio_server
from tests.unit.cli.cluster.test_stored import finished

REGION, URI, LOG = "us-west-2", "s3://data/run", "logs/a1/digits-1-w-0.log"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with minio_server(tmp_path_factory.mktemp("minio"), REGION) as server:
        yield server.address


def test_a_log_survives_its_pod(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    api = finished(URI, endpoint=address, region=REGION)
    stored = StoredRun(api, next(iter(api.objects.values())))

    def lines() -> list[bytes]:
        try:
            return [line.partition(b" ")[2] for line in stored.lines(LOG)]
        except FileNotFoundError:
            return []

    with tempfile.TemporaryDirectory(prefix="tm-") as folder:
        collector = CollectorProcess(
            Path(folder), environment, storage_uri=URI, path=LOG, endpoint=address, region=REGION
        )
        code = "import time\nprint('step 1')\ntime.sleep(120)"
        rank = Process((sys.executable, "-c", code), {**environment, **collector.environment()}, is_spare=False)
        rank.hand_over_output("rank 0")
        deadline = time.monotonic() + 60
        while not lines():
            assert time.monotonic() < deadline
            collector.soon()
            time.sleep(0.1)
        collector._process.kill()  # and with it the pod
        collector._process.wait()
        rank.kill()
        rank.close()
    assert lines() == [b"[rank 0] step 1"]
