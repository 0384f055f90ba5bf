"""The control planes of the integration tests: a bare one for the whole run, and one a module to run operators on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from trainmaster_api.generate.crd import FILE

from testbed.control_plane import ControlPlane
from testbed.errors import BedError
from testbed.procs import wait_until
from tests.integration.operator_harness import CONTROLLERS, NODE, Bed, bed


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


@pytest.fixture(scope="module")
def audit_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the API server of `plane` was asked."""
    return tmp_path_factory.mktemp("audit") / "audit.log"


@pytest.fixture(scope="module")
def plane(audit_log: Path) -> Iterator[ControlPlane]:
    """A control plane that serves TrainingJobs and collects garbage, with a node for the kubelet that is test code."""
    flags = [CONTROLLERS, "--concurrent-gc-syncs=4"]
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    with ControlPlane(with_controller_manager=True, audit_log=audit_log, controller_manager_flags=flags) as plane:
        plane.kubectl("apply", "-f", str(FILE))
        plane.kubectl("create", "-f", "-", stdin=json.dumps(node))
        plane.wait_served()
        yield plane


@pytest.fixture
async def here(plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Bed]:
    """A namespace of its own on `plane`, with that kubelet."""
    async with bed(plane, tmp_path) as made:
        yield made
