"""One control plane (etcd and kube-apiserver) for the whole run of the integration tests, with our CRD on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from trainmaster_api.crd import FILE

from testbed.control_plane import ControlPlane
from testbed.errors import BedError
from testbed.procs import wait_until


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="session")
def crd_plane(control_plane: ControlPlane) -> ControlPlane:
    """The control plane, serving TrainingJobs."""
    # plain, client-side apply: the whole CRD goes into an annotation
    control_plane.kubectl("apply", "-f", str(FILE))

    def is_served() -> bool:
        try:
            control_plane.kubectl("get", "trainingjobs", "--all-namespaces")
        except BedError:
            return False
        return True

    assert wait_until(is_served, 30), control_plane.kubectl("get", "crd", "-o", "yaml")
    return control_plane
