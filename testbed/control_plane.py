"""etcd and kube-apiserver, with the other control-plane parts on request. Needs no root.

Integration tests and benchmarks use it alone::

    with ControlPlane(with_controller_manager=True) as plane:
        run_something(kubeconfig=plane.kubeconfig)

The full bed (`testbed.bed`) runs the same thing on an address that its nodes can reach.
"""

import http.client
import json
import shutil
import socket
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from testbed import builds
from testbed.errors import BedError
from testbed.pki import Authority, Pair
from testbed.procs import Processes, run, wait_until

AUDIT_POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n"


@dataclass(frozen=True)
class Endpoint:
    """Where the API server listens and which service subnet it hands out."""

    address: str = "127.0.0.1"
    port: int = 0
    service_cidr: str = "10.96.0.0/16"
    names: tuple[str, ...] = field(default=("localhost", "127.0.0.1", "10.96.0.1"))


class ControlPlane:
    """A Kubernetes API on a free port of this machine. Several may run side by side.

    Attributes:
        kubeconfig: path of an admin kubeconfig with everything in it.
        server: ``https://address:port``.
        ca: path of the CA certificate.
        admin: paths of the admin's client certificate and key.
    """

    def __init__(
        self,
        state: Path | None = None,
        *,
        endpoint: Endpoint | None = None,
        with_controller_manager: bool = False,
        with_scheduler: bool = False,
        audit_log: Path | None = None,
        apiserver_flags: Sequence[str] = (),
        controller_manager_flags: Sequence[str] = (),
        kwok_nodes: int = 0,
        daemon: bool = False,
    ) -> None:
        """Describe it; `start` (or ``with``) runs it.

        Args:
            state: folder for data, certificates and logs; by default a temporary one, removed by `stop`.
            endpoint: where to listen; by default a free port on the loopback address.
            with_controller_manager: run kube-controller-manager (garbage collection, Jobs, endpoints).
            with_scheduler: run kube-scheduler.
            audit_log: write one JSON line per request there (level Metadata).
            apiserver_flags: appended to the API server's flags.
            controller_manager_flags: appended to the controller manager's flags.
            kwok_nodes: number of fake nodes whose pods "run" without containers; implies the scheduler.
            daemon: leave it running when this process ends.
        """
        self._temporary = state is None
        self.state = state or Path(tempfile.mkdtemp(prefix="trainmaster-plane-"))
        self.processes = Processes(self.state, die_with_parent=not daemon)
        self._endpoint = endpoint or Endpoint()
        self._with_controller_manager = with_controller_manager
        self._with_scheduler = with_scheduler or kwok_nodes > 0
        self._audit_log = audit_log
        self._apiserver_flags = list(apiserver_flags)
        self._controller_manager_flags = list(controller_manager_flags)
        self._kwok_nodes = kwok_nodes
        self.authority = Authority(self.state / "pki")
        self.ca = self.authority.ca.cert
        self.admin: Pair = self.authority.issue("admin", "admin", "system:masters")
        self.kubeconfig = self.state / "kubeconfig"
        self.server = ""

    def __enter__(self) -> "ControlPlane":
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> "ControlPlane":
        """Start what was asked for and wait until it answers (about 5 s once the tools are built)."""
        names = ["etcd", "kube-apiserver", "kubectl"]
        names += ["kube-controller-manager"] if self._with_controller_manager else []
        names += ["kube-scheduler"] if self._with_scheduler else []
        names += ["kwok"] if self._kwok_nodes else []
        builds.build(*names)
        etcd = self._start_etcd()
        self._start_apiserver(etcd)
        if self._with_controller_manager:
            self._start_controller_manager()
        if self._with_scheduler:
            self._start_scheduler()
        if self._kwok_nodes:
            self._start_kwok()
        return self

    def stop(self) -> None:
        """End every process and, if the state folder was ours, remove it."""
        order = ("kwok", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")
        for name in order:
            # nothing here has anything to save: the API server would wait for open watches
            self.processes.stop(name, patience=0)
        if self._temporary:
            shutil.rmtree(self.state, ignore_errors=True)

    def pid(self, name: str) -> int:
        """Process id of ``kube-apiserver``, ``etcd``, ...; for CPU and memory measurements."""
        proc = self.processes.get(name)
        if proc is None:
            raise BedError(f"{name} is not part of this control plane")
        return proc.pid

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """Run kubectl as admin and return what it printed."""
        return run([str(builds.tool("kubectl")), f"--kubeconfig={self.kubeconfig}", *args], stdin=stdin)

    def wait_served(self, seconds: float = 60) -> None:
        """Wait until all custom resources that have been created are served.

        Raises:
            BedError: They aren't after so many seconds.
        """
        if not wait_until(self._serves_all, seconds):
            raise BedError(f"there are custom resources that are not served after {seconds:g} s")

    def _serves_all(self) -> bool:
        # not `kubectl wait`, by condition or by JSONPath: it fails on an object that has no conditions yet
        found = json.loads(self.kubectl("get", "crd", "-o", "json"))["items"]
        conditions = [crd.get("status", {}).get("conditions") or [] for crd in found]
        return all(any(c["type"] == "Established" and c["status"] == "True" for c in each) for each in conditions)

    def client_kubeconfig(self, file: str, user: str, group: str = "") -> Path:
        """A kubeconfig for another identity, such as a component or a test user."""
        pair = self.authority.issue(file, user, group)
        return self.authority.kubeconfig(self.state / f"{file}.kubeconfig", self.server, pair)

    def _start_etcd(self) -> str:
        if not self.processes.is_alive("etcd"):
            client, peer = free_port(), free_port()
            (self.state / "etcd.port").write_text(str(client))
            argv = {
                "name": "default",
                "data-dir": str(self.state / "etcd"),
                "listen-client-urls": f"http://127.0.0.1:{client}",
                "advertise-client-urls": f"http://127.0.0.1:{client}",
                "listen-peer-urls": f"http://127.0.0.1:{peer}",
                "initial-advertise-peer-urls": f"http://127.0.0.1:{peer}",
                "initial-cluster": f"default=http://127.0.0.1:{peer}",
                "unsafe-no-fsync": "true",
                "log-level": "warn",
            }
            self.processes.start("etcd", [str(builds.tool("etcd")), *_flags(argv)])
        port = int((self.state / "etcd.port").read_text())
        self.processes.wait_ready("etcd", lambda: _port_open("127.0.0.1", port), 30)
        return f"http://127.0.0.1:{port}"

    def _start_apiserver(self, etcd: str) -> None:
        at = self._endpoint
        port_file = self.state / "apiserver.port"
        if not self.processes.is_alive("kube-apiserver"):
            port_file.write_text(str(at.port or free_port()))
            argv = [str(builds.tool("kube-apiserver")), *_flags(self._apiserver_argv(etcd, int(port_file.read_text())))]
            self.processes.start("kube-apiserver", [*argv, *self._apiserver_flags])
        port = int(port_file.read_text())
        self.server = f"https://{at.address}:{port}"
        self.authority.kubeconfig(self.kubeconfig, self.server, self.admin)
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self.admin.cert, self.admin.key)
        self.processes.wait_ready("kube-apiserver", lambda: _get_ok(at.address, port, "/readyz", context), 90)

    def _apiserver_argv(self, etcd: str, port: int) -> dict[str, str]:
        at = self._endpoint
        tls = self.authority.issue("apiserver", "kube-apiserver", names=[*SERVICE_NAMES, *at.names])
        kubelet_client = self.authority.issue("apiserver-kubelet-client", "kube-apiserver", "system:masters")
        front_proxy = self.authority.issue("front-proxy-client", "front-proxy-client")
        accounts = self.authority.signing_key("service-accounts")
        flags = {
            "etcd-servers": etcd,
            "bind-address": at.address,
            "advertise-address": at.address,
            "secure-port": str(port),
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "allow-privileged": "true",
            "service-cluster-ip-range": at.service_cidr,
            "tls-cert-file": str(tls.cert),
            "tls-private-key-file": str(tls.key),
            "client-ca-file": str(self.ca),
            "kubelet-client-certificate": str(kubelet_client.cert),
            "kubelet-client-key": str(kubelet_client.key),
            # without it `kubectl logs` tries to resolve the node's name
            "kubelet-preferred-address-types": "InternalIP",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": str(accounts.cert),
            "service-account-signing-key-file": str(accounts.key),
            "requestheader-client-ca-file": str(self.ca),
            "requestheader-allowed-names": "front-proxy-client",
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "proxy-client-cert-file": str(front_proxy.cert),
            "proxy-client-key-file": str(front_proxy.key),
            # the API server runs outside the nodes, so it reaches webhooks at their pods, not at a service address
            "enable-aggregator-routing": "true",
            "profiling": "false",
        }
        if at.address == "127.0.0.1":
            flags["endpoint-reconciler-type"] = "none"
        if self._audit_log:
            policy = self.state / "audit-policy.yaml"
            policy.write_text(AUDIT_POLICY)
            flags |= {"audit-policy-file": str(policy), "audit-log-path": str(self._audit_log)}
        return flags

    def _start_controller_manager(self) -> None:
        user = "system:kube-controller-manager"
        kubeconfig = self.client_kubeconfig("controller-manager", user)
        ca, accounts = self.authority.ca, self.authority.signing_key("service-accounts")
        flags = {
            "kubeconfig": str(kubeconfig),
            "secure-port": "0",
            "leader-elect": "false",
            "use-service-account-credentials": "true",
            "root-ca-file": str(ca.cert),
            "service-account-private-key-file": str(accounts.key),
            "cluster-signing-cert-file": str(ca.cert),
            "cluster-signing-key-file": str(ca.key),
            # A lost node is noticed in 15 s, so that tests of it don't take a minute each. But kwok's nodes send a
            # heartbeat every ten minutes (leases would be noise in a benchmark): they are never taken for dead.
            "node-monitor-grace-period": "1h" if self._kwok_nodes else "15s",
            "node-monitor-period": "2s",
            # or the controller manager is what a benchmark measures
            "kube-api-qps": "1000",
            "kube-api-burst": "2000",
        }
        self._start("kube-controller-manager", [*_flags(flags), *self._controller_manager_flags])

    def _start_scheduler(self) -> None:
        kubeconfig = self.client_kubeconfig("scheduler", "system:kube-scheduler")
        config = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": str(kubeconfig), "qps": 1000, "burst": 2000},
            "leaderElection": {"leaderElect": False},
        }
        path = self.state / "scheduler.yaml"
        path.write_text(yaml.safe_dump(config))
        self._start("kube-scheduler", _flags({"config": str(path), "secure-port": "0"}))

    def _start_kwok(self) -> None:
        stages = [path.read_text() for path in sorted(builds.tool_dir("kwok").glob("*.yaml"))]
        config = self.state / "kwok.yaml"
        parallelism = {"podPlayStageParallelism": 4, "nodePlayStageParallelism": 16, "nodeLeaseParallelism": 16}
        options = {"kind": "KwokConfiguration", "apiVersion": "config.kwok.x-k8s.io/v1alpha1", "options": parallelism}
        config.write_text("\n---\n".join([yaml.safe_dump(options), *stages]))
        flags = {
            "kubeconfig": str(self.kubeconfig),
            "config": str(config),
            "manage-all-nodes": "true",
            # addresses that nothing has, but no loopback: the API server refuses that in Endpoints, and the endpoint
            # controller's retries would be half of all requests
            "node-ip": "192.0.2.1",
            "cidr": "10.128.0.0/12",
        }
        self._start("kwok", _flags(flags))
        nodes = [kwok_node(index) for index in range(self._kwok_nodes)]
        self.kubectl(
            "apply", "--server-side", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes})
        )
        ready = '{range .items[*]}{.status.conditions[?(@.type=="Ready")].status} {end}'

        def all_ready() -> bool:
            states = self.kubectl("get", "nodes", "-o", f"jsonpath={ready}").split()
            return states.count("True") == self._kwok_nodes

        self.processes.wait_ready("kwok", all_ready, 60)

    def _start(self, name: str, flags: Sequence[str]) -> None:
        if not self.processes.is_alive(name):
            self.processes.start(name, [str(builds.tool(name)), *flags])


SERVICE_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


def kwok_node(index: int) -> dict[str, Any]:
    """A fake node: huge, so that the scheduler is never what a benchmark measures."""
    size = {"cpu": "1000", "memory": "4Ti", "pods": "10000"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"kwok-{index}", "labels": {"kubernetes.io/hostname": f"kwok-{index}", "type": "kwok"}},
        "status": {"capacity": size, "allocatable": size},
    }


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _flags(flags: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]


def _port_open(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def _get_ok(host: str, port: int, path: str, context: ssl.SSLContext) -> bool:
    connection = http.client.HTTPSConnection(host, port, timeout=3, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
