"""One control plane (etcd and kube-apiserver) for the whole run of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.control_plane import ControlPlane


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane
