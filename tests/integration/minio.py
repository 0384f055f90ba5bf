"""A MinIO server of a test's own, with the bucket `data`."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from testbed import builds

KEY, SECRET = "keyid", "secretsecret"


@dataclass(frozen=True)
class Server:
    """A running server."""

    address: str
    pid: int


@contextlib.contextmanager
def minio_server(folder: Path, region: str) -> Iterator[Server]:
    """Start a server whose data is in a folder, and end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address, log = f"http://127.0.0.1:{port}", folder.parent / f"{folder.name}.log"
    command = [str(builds.tool("minio")), "server", str(folder), "--address", f"127.0.0.1:{port}"]
    keys = {"MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET, "MINIO_SITE_REGION": region}
    with log.open("w") as output:
        server = subprocess.Popen(command, env=os.environ | keys, stdout=output, stderr=output)
    try:
        _wait(f"{address}/minio/health/ready", log)
        client = boto3.client(
            "s3", endpoint_url=address, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name=region
        )
        client.create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": region})
        yield Server(address, server.pid)
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
