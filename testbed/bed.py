"""The full bed: a control plane on the host and nodes that run containers."""

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from testbed import addons, builds, cgroups, golden, images, network, paths, system
from testbed.builds import say
from testbed.control_plane import ControlPlane, Endpoint
from testbed.errors import BedError
from testbed.node import NodeRunner, heal, partition
from testbed.plan import Node, Plan
from testbed.procs import Proc, Processes

# What the kubelet and the bed change for the whole machine, and `down` puts back.
_SYSCTLS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
_SHARED_FOLDERS = ("/var/lib/kubelet", "/var/log/containers", "/var/lib/cni", "/run/containerd", "/run/netns")


class Bed:
    """One bed, found again by its name through its run directory."""

    def __init__(self, name: str | None = None, nodes: int | None = None) -> None:
        """Find the bed `name`, or describe it for `up`.

        Args:
            name: by default TRAINMASTER_BED_NAME or ``tm``.
            nodes: wanted number of nodes; by default what the bed has, or 2.

        Raises:
            BedError: a bad name or count, or the bed is up with another number of nodes.
        """
        name = name or paths.bed_name()
        self.run = paths.run_dir(name)
        self.bulk = paths.cache_dir() / "nodes" / name
        self._record = self.run / "bed.json"
        slot = os.environ.get("TRAINMASTER_BED_SLOT")
        recorded = json.loads(self._record.read_text()) if self._record.exists() else {}
        if recorded and nodes and nodes != recorded["nodes"]:
            raise BedError(f"bed {name} is up with {recorded['nodes']} nodes: take it `down` first")
        count = recorded.get("nodes") or nodes or 2
        self.plan = Plan.of(name, count, recorded.get("slot", int(slot) if slot else None))

    @property
    def exists(self) -> bool:
        """Whether `up` was called and `down` not yet."""
        return self._record.exists()

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig; it holds its certificates."""
        return self.run / "kubeconfig"

    def _plane(self) -> ControlPlane:
        plan = self.plan
        at = Endpoint(
            plan.host_address,
            6443,
            plan.service_cidr,
            ("localhost", "127.0.0.1", plan.host_address, plan.kubernetes_service),
        )
        return ControlPlane(
            self.run / "control-plane",
            endpoint=at,
            with_controller_manager=True,
            with_scheduler=True,
            daemon=True,
        )

    def runner(self, node: Node) -> NodeRunner:
        """The processes and files of one node."""
        return NodeRunner(self.plan, node, self.run / "nodes" / node.name, self.bulk / node.name)

    def up(self, with_addons: bool = True) -> None:
        """Bring everything up; what already runs is left alone."""
        system.require_root()
        system.ensure_packages()
        builds.build(*builds.BED)
        with paths.locked(self.run.with_name(f"{self.run.name}.lock")):
            self._remember()
            self._images(with_addons)
            network.up(self.plan)
            self._start(with_addons)

    def _remember(self) -> None:
        if self.exists:
            if json.loads(self._record.read_text())["boot"] == _boot_id():
                return
            say("the machine was restarted since `up`: starting from scratch")
            self._remove()
        # a run directory that vanished in a restart leaves its bulk behind
        shutil.rmtree(self.bulk, ignore_errors=True)
        self.run.mkdir(parents=True, exist_ok=True, mode=0o711)
        before = {
            "sysctls": {name: Path("/proc/sys", name).read_text() for name in _SYSCTLS},
            "folders": [folder for folder in _SHARED_FOLDERS if Path(folder).exists()],
        }
        record = {"nodes": self.plan.node_count, "slot": self.plan.slot, "boot": _boot_id(), "before": before}
        self._record.write_text(json.dumps(record))

    def _images(self, with_addons: bool) -> None:
        wanted = golden.unpack(with_addons)
        for node in self.plan.nodes:
            golden.clone(self.runner(node).root)
        images.load_everywhere(self._running(), wanted)

    def _running(self) -> list[tuple[Path, Path]]:
        runners = [self.runner(node) for node in self.plan.nodes]
        return [(runner.socket, runner.root) for runner in runners if runner.processes.is_alive("containerd")]

    def _start(self, with_addons: bool) -> None:
        say("starting the control plane")
        plane = self._plane().start()
        shutil.copyfile(plane.kubeconfig, self.kubeconfig)
        self.kubeconfig.chmod(0o600)
        say(f"starting {len(self.plan.nodes)} nodes")
        with ThreadPoolExecutor(len(self.plan.nodes)) as pool:
            list(pool.map(lambda node: self.runner(node).start(plane), self.plan.nodes))
        addons.nodes_ready(plane.kubectl, len(self.plan.nodes))
        if with_addons:
            self.addons()

    def addons(self) -> None:
        """CoreDNS, MinIO and, when the trainer image is there, MLflow. The last two live on the first node."""
        kubectl = addons.kubectl_for(self.kubeconfig)
        first = self.plan.nodes[0].name
        addons.dns(kubectl, self.plan.dns_service, len(self.plan.nodes))
        if images.is_stored("trainer"):
            addons.mlflow(kubectl, first)
        say("waiting for CoreDNS and MinIO")
        addons.wait_deployment(kubectl, "kube-system", "coredns", 90)
        addons.minio(kubectl, self.kubeconfig, first)
        if images.is_stored("trainer"):
            say("waiting for MLflow (about 20 s)")
            addons.wait_mlflow(kubectl, self.kubeconfig)
        else:
            say("MLflow is not deployed: it runs from the trainer image, which isn't built yet")

    def load(self, references: list[str]) -> None:
        """Bring images (names of the layout or buildah's store, or OCI archives) to every running node."""
        names = [name for reference in references for name in images.import_foreign(reference)]
        golden.update(names)
        images.load_everywhere(self._running(), names)

    def down(self) -> None:
        """Take everything away: processes, mounts, interfaces, namespaces, cgroups, files. Keeps the cache."""
        if not self.exists:
            return
        system.require_root()
        lock = self.run.with_name(f"{self.run.name}.lock")
        with paths.locked(lock):
            self._remove()
        lock.unlink(missing_ok=True)

    def _remove(self) -> None:
        before = json.loads(self._record.read_text())["before"]
        self._plane().stop()
        with ThreadPoolExecutor(len(self.plan.nodes)) as pool:
            list(pool.map(lambda node: self.runner(node).remove(), self.plan.nodes))
        network.down(self.plan)
        self._restore(before["sysctls"], before["folders"])
        # the record goes last: until then an interrupted `down` can be repeated
        for path in (self.bulk, self.run):
            shutil.rmtree(path, ignore_errors=False) if path.exists() else None

    def _restore(self, sysctls: dict[str, str], folders: list[str]) -> None:
        if _other_beds(self.run):
            return
        for name, value in sysctls.items():
            Path("/proc/sys", name).write_text(value)
        for folder in _SHARED_FOLDERS:
            if folder not in folders and Path(folder).exists():
                _remove_empty(Path(folder))

    def processes(self) -> list[Proc]:
        """Every recorded process of the bed."""
        homes = [self.run / "control-plane", *(self.runner(node).home for node in self.plan.nodes)]
        return [proc for home in homes if home.exists() for proc in Processes(home).all()]

    def node(self, name: str) -> Node:
        """A node by its name or number.

        Raises:
            BedError: there is no such node.
        """
        for node in self.plan.nodes:
            if name in (node.name, str(node.index)):
                return node
        raise BedError(f"no node {name!r}; nodes: {', '.join(node.name for node in self.plan.nodes)}")

    def partition(self, name: str) -> None:
        """Cut a node off; it becomes NotReady about 20 s later, its pods go on."""
        partition(self.node(name))

    def heal(self, name: str) -> None:
        """Undo `partition` or `kill`: plug the cable in and start what isn't running."""
        node = self.node(name)
        heal(node)
        runner = self.runner(node)
        if not all(runner.processes.is_alive(daemon) for daemon in ("containerd", "kubelet", "kube-proxy")):
            runner.start(self._plane().start())

    def kill(self, name: str) -> None:
        """Power-cut a node: its daemons and all its containers die at once."""
        self.runner(self.node(name)).kill()

    def wait_node(self, name: str, ready: bool, seconds: int = 90) -> float:
        """Wait until the API server sees the node as (not) ready; returns how long that took."""
        began = time.monotonic()
        status = "True" if ready else "Unknown"
        addons.kubectl_for(self.kubeconfig)(
            *("wait", f"node/{self.node(name).name}", f"--for=condition=Ready={status}", f"--timeout={seconds}s")
        )
        return time.monotonic() - began

    def processes_of(self, name: str) -> set[int]:
        """All processes of a node, containers included."""
        return cgroups.pids(self.node(name).cgroup)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _other_beds(run: Path) -> list[Path]:
    return [record for record in Path("/run").glob("trainmaster-bed*/bed.json") if record.parent != run]


def _remove_empty(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(path).rmdir()
