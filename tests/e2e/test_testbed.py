"""The bed itself, on a second bed with one node and nothing but pause: faults, and that `down` leaves nothing.

It runs beside the bed that other tests use, so what belongs to other beds is left out of the comparison.
"""

import os
import platform
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed import addons, cgroups, network, paths
from testbed.bed import Bed
from testbed.procs import start_ticks, wait_until

NAME = "tx"
PAUSE_POD = """
apiVersion: v1
kind: Pod
metadata: {name: probe, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: true
  containers: [{name: pause, image: docker.io/trainmaster/pause:dev, imagePullPolicy: Never}]
"""

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or os.geteuid() != 0, reason="nodes are Linux network namespaces, made by root"
)


def _other_beds() -> list[str]:
    folders = (record.parent.name for record in Path("/run").glob("trainmaster-bed*/bed.json"))
    names = [folder.removeprefix("trainmaster-bed").removeprefix("-") or "tm" for folder in folders]
    return [name for name in names if name != NAME]


def _belongs_to_others(entry: str) -> bool:
    marks = [f"{name}{suffix}" for name in _other_beds() for suffix in ("0", "v", "-n")]
    for name in _other_beds():
        marks += [f"{paths.run_dir(name)}/", f"{Bed(name).bulk}/"]
    # an image build may run beside us; its mounts are its own
    return any(mark in entry for mark in [*marks, str(paths.cache_dir() / "images")])


@dataclass(frozen=True)
class Traces:
    """Everything on the machine that a bed touches."""

    entries: frozenset[str]

    @classmethod
    def take(cls) -> "Traces":
        def lines(kind: str, text: str) -> set[str]:
            return {f"{kind}: {line}" for line in text.splitlines() if not _belongs_to_others(line)}

        found = lines("link", "\n".join(link.name for link in Path("/sys/class/net").iterdir()))
        found |= lines("route", subprocess.check_output(["ip", "route"], text=True))
        rules = subprocess.check_output(["iptables-save"], text=True, stderr=subprocess.DEVNULL)
        found |= lines("iptables", "\n".join(line for line in rules.splitlines() if line.startswith("-")))
        found |= lines("mount", "\n".join(row.split()[1] for row in Path("/proc/mounts").read_text().splitlines()))
        found |= lines("netns", "\n".join(network.netns_names()))
        found |= lines("cgroup", "\n".join(cgroups.names()))
        # these name their bed only in what they hold
        for path in (*Path("/var/lib/cni/results").glob("*"), *Path("/var/log/containers").glob("*")):
            with suppress(FileNotFoundError):  # other beds may be at work
                found |= lines("file", f"{path} {path.readlink() if path.is_symlink() else path.read_text()}")
        for folder in ("/run", "/var/lib"):
            if Path(folder).is_dir():
                found |= lines("file", "\n".join(map(str, Path(folder).iterdir())))
        for name in ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "net/ipv4/ip_forward"):
            found |= lines("sysctl", f"{name}={Path('/proc/sys', name).read_text().strip()}")
        return cls(frozenset(found))


@pytest.fixture(scope="module")
def before() -> Traces:
    Bed(NAME).down()
    return Traces.take()


@pytest.fixture(scope="module")
def bed(before: Traces) -> Iterator[Bed]:
    bed = Bed(NAME, nodes=1)
    try:
        bed.up(with_addons=False)
        yield bed
    finally:
        bed.down()


@pytest.fixture(scope="module")
def kubectl(bed: Bed) -> addons.Kubectl:
    return addons.kubectl_for(bed.kubeconfig)


@pytest.fixture(scope="module")
def pod(kubectl: addons.Kubectl) -> str:
    # the account is made by a controller a moment after the namespace
    assert wait_until(lambda: "default" in kubectl("get", "serviceaccounts", "-o", "name"), 30)
    kubectl("apply", "-f", "-", stdin=PAUSE_POD)
    kubectl("wait", "pod/probe", "--for=condition=Ready", "--timeout=60s")
    return "probe"


def test_up_again_starts_nothing(bed: Bed, pod: str) -> None:
    pids = {proc.name: proc.pid for proc in bed.processes()}
    Bed(NAME).up(with_addons=False)
    assert {proc.name: proc.pid for proc in bed.processes()} == pids


def test_the_host_reaches_a_pod(kubectl: addons.Kubectl, pod: str) -> None:
    address = kubectl("get", "pod", pod, "-o", "jsonpath={.status.podIP}")
    # nothing listens there: the refusal is the pod's own answer
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 80), timeout=5)


def test_the_host_reaches_a_service(bed: Bed) -> None:
    with socket.create_connection((bed.plan.kubernetes_service, 443), timeout=5):
        pass


def test_a_partitioned_node_is_lost_and_comes_back(bed: Bed, kubectl: addons.Kubectl, pod: str) -> None:
    started = kubectl("get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].containerID}")
    bed.partition("1")
    assert bed.wait_node("1", ready=False) < 60
    bed.heal("1")
    bed.wait_node("1", ready=True)
    # a partition doesn't touch what runs
    assert kubectl("get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].containerID}") == started


def test_a_killed_node_loses_every_process_and_comes_back(bed: Bed, kubectl: addons.Kubectl, pod: str) -> None:
    victims = {pid: start_ticks(pid) for pid in bed.processes_of("1")}
    assert len(victims) >= 5  # three daemons, a shim, two pause processes
    bed.kill("1")
    assert not [pid for pid, started in victims.items() if start_ticks(pid) == started]
    bed.wait_node("1", ready=False)
    bed.heal("1")
    bed.wait_node("1", ready=True)
    restarts = "jsonpath={.status.containerStatuses[0].restartCount}"
    assert wait_until(lambda: kubectl("get", "pod", pod, "-o", restarts) >= "1", 60, every=0.5)


# last: it takes the bed away
def test_down_leaves_nothing_behind(before: Traces, bed: Bed, pod: str) -> None:
    node = bed.plan.nodes[0]
    runner = bed.runner(node)
    during = Traces.take().entries - before.entries
    for kind in ("link", "route", "mount", "netns", "cgroup", "file"):
        assert any(entry.startswith(kind) for entry in during), f"the comparison doesn't see any {kind}"
    processes = {pid: start_ticks(pid) for pid in bed.processes_of("1")} | {p.pid: p.started for p in bed.processes()}
    shims = [
        Path(file.read_text().removeprefix("unix://"))
        for file in runner.socket.parent.glob("io.containerd.runtime.v2.task/*/*/address")
    ]
    assert shims
    assert all(shim.exists() for shim in shims)

    bed.down()

    assert sorted(Traces.take().entries - before.entries) == []
    assert [pid for pid, started in processes.items() if start_ticks(pid) == started] == []
    assert [shim for shim in shims if shim.exists()] == []
    assert not bed.bulk.exists()
    assert not bed.run.exists()
