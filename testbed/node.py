"""One node: containerd, kubelet and kube-proxy in a network namespace and a cgroup of their own."""

import contextlib
import json
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import yaml

from testbed import builds, cgroups, network
from testbed.control_plane import ControlPlane
from testbed.oci import PAUSE
from testbed.plan import Node, Plan
from testbed.procs import Processes, run
from testbed.system import CNI_BIN, has_sys_resource

DAEMONS = ("containerd", "kubelet", "kube-proxy")
CLUSTER_DOMAIN = "cluster.local"


def containerd_config(root: Path, state: Path, cni: Path, oom_scores: bool) -> str:
    """The configuration of one containerd (1.6, 1.7 or 2.x reads version 2)."""
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{root}"
state = "{state}"
[grpc]
address = "{state}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{root}/opt"
[{cri}]
sandbox_image = "{PAUSE}"
# without CAP_SYS_RESOURCE no process may lower its oom score, and every sandbox would fail
restrict_oom_score_adj = {str(not oom_scores).lower()}
# so that tearing down the state folder finds every pod's network namespace
netns_mounts_under_state_dir = true
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{cri}.cni]
bin_dir = "{CNI_BIN}"
conf_dir = "{cni}"
"""


def cni_config(node: Node, data: Path) -> str:
    """The pod network of one node: a bridge and a fixed subnet."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": node.pod_cidr}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(data),
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": node.name, "plugins": [bridge, portmap]}, indent=1)


class NodeRunner:
    """Runs one node. `home` holds sockets and configuration, `bulk` images and volumes."""

    def __init__(self, plan: Plan, node: Node, home: Path, bulk: Path) -> None:
        self.plan = plan
        self.node = node
        self.home = home
        self.bulk = bulk
        self.processes = Processes(home)
        self.root = bulk / "containerd"
        self.socket = home / "containerd" / "containerd.sock"

    def start(self, plane: ControlPlane) -> None:
        """Start the three daemons; does not wait for the node to be ready."""
        cgroups.create(self.node.cgroup)
        self.start_containerd()
        self._start_kubelet(plane)
        self._start_proxy(plane)

    def start_containerd(self) -> None:
        """Start the container runtime and wait for its socket."""
        for folder in (self.root, self.home / "containerd", self.home / "cni", self.bulk / "cni-data"):
            folder.mkdir(parents=True, exist_ok=True)
        (self.home / "cni" / "10-bed.conflist").write_text(cni_config(self.node, self.bulk / "cni-data"))
        config = self.home / "containerd.toml"
        config.write_text(containerd_config(self.root, self.socket.parent, config.parent / "cni", has_sys_resource()))
        if not self.processes.is_alive("containerd"):
            self._daemon("containerd", ["containerd", "--config", str(config), "--log-level", "warn"])
        self.processes.wait_ready("containerd", lambda: _answers(self.socket), 30)

    def _daemon(self, name: str, argv: list[str]) -> None:
        proc = self.processes.start(name, argv, netns=self.node.netns)
        cgroups.adopt(self.node.cgroup, proc.pid)

    def _start_kubelet(self, plane: ControlPlane) -> None:
        if self.processes.is_alive("kubelet"):
            return
        name = self.node.name
        serving = plane.authority.issue(f"{name}-serving", f"system:node:{name}", names=[name, self.node.address])
        kubeconfig = plane.client_kubeconfig(f"node-{name}", f"system:node:{name}", "system:nodes")
        # pods must not inherit the search domains of this machine
        resolv = self.home / "resolv.conf"
        resolv.write_text("")
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(plane.ca)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(serving.cert),
            "tlsPrivateKeyFile": str(serving.key),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.node.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "clusterDNS": [self.plan.dns_service],
            "clusterDomain": CLUSTER_DOMAIN,
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "resolvConf": str(resolv),
            "podLogsDir": str(self.bulk / "pod-logs"),
            "volumePluginDir": str(self.bulk / "volume-plugins"),
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            # a noisy little machine: don't make image pulls or probes wait for each other
            "serializeImagePulls": False,
            "nodeStatusUpdateFrequency": "4s",
        }
        path = self.home / "kubelet.yaml"
        path.write_text(yaml.safe_dump(config))
        flags = {
            "config": str(path),
            "kubeconfig": str(kubeconfig),
            "root-dir": str(self.bulk / "kubelet"),
            "hostname-override": name,
            "node-ip": self.node.address,
        }
        argv = [str(builds.tool("kubelet")), *(f"--{key}={value}" for key, value in flags.items())]
        self._daemon("kubelet", argv)

    def _start_proxy(self, plane: ControlPlane) -> None:
        if self.processes.is_alive("kube-proxy"):
            return
        # a file of its own: nodes start side by side, and a proxy that reads a half written one ends
        kubeconfig = plane.client_kubeconfig(f"proxy-{self.node.name}", "system:kube-proxy")
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "hostnameOverride": self.node.name,
            "mode": "iptables",
            "clusterCIDR": self.plan.pod_cidr,
            # these sysctls belong to the host, not to the node's namespace: leave them alone
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }
        path = self.home / "kube-proxy.yaml"
        path.write_text(yaml.safe_dump(config))
        self._daemon("kube-proxy", [str(builds.tool("kube-proxy")), f"--config={path}"])

    def kill(self) -> None:
        """The power cut: every process of the node dies at once."""
        cgroups.kill(self.node.cgroup)
        for name in DAEMONS:
            self.processes.stop(name, patience=0)

    def remove(self) -> None:
        """Kill what runs and take away mounts, cgroups and files; the network is the caller's."""
        self.kill()
        _remove_shim_sockets(self.home / "containerd")
        unmount_below(self.home, self.bulk)
        cgroups.remove(self.node.cgroup)
        _remove_links_into(Path("/var/log/containers"), self.bulk)
        _remove_cni_results(self.home)
        for folder in (self.home, self.bulk):
            shutil.rmtree(folder, ignore_errors=False) if folder.exists() else None


def ctr_command(socket: Path, *args: str) -> list[str]:
    """The command line of ``ctr`` for the namespace that the kubelet uses."""
    return ["ctr", "--address", str(socket), "--namespace", "k8s.io", *args]


def _answers(socket: Path) -> bool:
    return socket.exists() and not subprocess.run(ctr_command(socket, "version"), capture_output=True).returncode


def unmount_below(*folders: Path) -> None:
    """Unmount everything mounted below the folders, innermost first."""
    roots = [f"{folder}/" for folder in folders]
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in reversed(points):
        plain = point.encode().decode("unicode_escape")
        if any(plain.startswith(root) for root in roots):
            run(["umount", "-l", plain])


def _remove_cni_results(home: Path, results: Path = Path("/var/lib/cni/results")) -> None:
    # Killed pods leave the record of their addresses in a folder that all of the machine shares: another node, which
    # is taken away at the same time, removes its own meanwhile.
    for record in results.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if f'"{home}/' in record.read_text():
                record.unlink()


def _remove_shim_sockets(state: Path) -> None:
    # a killed shim leaves its socket in a folder that every containerd of the machine shares
    for address in state.glob("io.containerd.runtime.v2.task/*/*/address"):
        Path(address.read_text().removeprefix("unix://")).unlink(missing_ok=True)


def _remove_links_into(folder: Path, target: Path) -> None:
    if not folder.is_dir():
        return
    for link in folder.iterdir():
        with suppress(OSError):
            if str(link.readlink()).startswith(f"{target}/"):
                link.unlink()


def partition(node: Node) -> None:
    """Cut the node off from the others and from the API server; its pods go on."""
    network.set_link(node, up=False)


def heal(node: Node) -> None:
    """Plug the cable back in."""
    network.set_link(node, up=True)
