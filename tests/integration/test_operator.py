"""The operator's process on a real API server; the kubelet is test code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from testbed.control_plane import ControlPlane
from tests.integration.operator_harness import CONTROLLERS, CRD, NODE, SERVICES, Bed, audit, bed, job, writes

PODS_1 = {"digits-1-head", "digits-1-w-0", "digits-1-w-1"}
PODS_2 = {"digits-2-head", "digits-2-w-0", "digits-2-w-1"}


@pytest.fixture(scope="module")
def audit_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit.log"


@pytest.fixture(scope="module")
def plane(audit_log: Path) -> Iterator[ControlPlane]:
    flags = [CONTROLLERS, "--concurrent-gc-syncs=4"]
    with ControlPlane(with_controller_manager=True, audit_log=audit_log, controller_manager_flags=flags) as plane:
        plane.kubectl("apply", "-f", str(CRD))
        node = f'{{"apiVersion": "v1", "kind": "Node", "metadata": {{"name": "{NODE}"}}}}'
        plane.kubectl("create", "-f", "-", stdin=node)
        plane.kubectl("wait", "--for=condition=Established", "crd/trainingjobs.trainmaster.dev", "--timeout=20s")
        yield plane


@pytest.fixture
async def here(plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Bed]:
    async with bed(plane, tmp_path) as made:
        yield made


async def test_a_job_gets_its_objects_and_its_status_follows_the_pods(here: Bed) -> None:
    here.kubelet.start = False
    here.operator()
    uid = (await here.submit(job()))["metadata"]["uid"]
    await here.until_names(PODS_1)
    assert await here.names(SERVICES) == {"digits-head"}
    for thing in [*await here.list(), *await here.list(SERVICES)]:
        owner = thing["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("TrainingJob", uid, True)
        assert "finalizers" not in thing["metadata"]
    await here.until_condition("Provisioned", "False")
    here.kubelet.start = True
    await here.until_condition("Provisioned")
    body = await here.get()
    assert body["status"]["workersReady"] == "2/2"
    assert "finalizers" not in body["metadata"]
    assert not [name for name in body["metadata"].get("annotations", {}) if "kopf" in name]
