"""How Ray is started in a pod: command lines and environment.

Only the standard library and the contract are imported, because the launcher must be quick.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

from trainmaster_api import names
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.types import parse_quantity

# Ray's object store only carries pickled functions here; 75 MiB is the least it accepts.
OBJECT_STORE_BYTES = 80 * 2**20
LONGEST_TMPDIR = 22
JOIN = "--join"
"""Option of our way to run Ray's command line: load, and go on once the head listens at HOST:PORT."""
_RAY = (sys.executable, "-m", "trainmaster_trainer.cluster.ray_cli")
HEAD_RESOURCE, WORKER_RESOURCE = "trainmaster_head", "trainmaster_worker"


# What every Ray process of ours is told, in a pod and on a laptop. All are settings that Ray documents or lists beside
# its defaults; what the environment sets already wins over them.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # our launcher says it sooner, and this would be one more process
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # idle processes that Ray starts in advance would never be used: Ray Train's have an environment of their own
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    # a pending placement group waits for the worker that the operator makes again; the deadline is the operator's
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "86400",
    "PYTHONUNBUFFERED": "1",
}
_IN_A_POD = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "120",
    # a container's memory limit is enforced by the kernel; Ray's own killer reads the wrong cgroup in some runtimes
    "RAY_memory_monitor_refresh_ms": "0",
    # a host that vanishes without a word counts as dead after about 20 s instead of 60
    "RAY_health_check_initial_delay_ms": "10000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_COLOR_PREFIX": "0",
    "RAY_ROTATION_MAX_BYTES": str(16 * 2**20),
    "RAY_ROTATION_BACKUP_COUNT": "1",
}


def pod_environment(token_file: Path, scratch: Path, pod_ip: str, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of every Ray process of a pod.

    Args:
        token_file: File with the attempt's token.
        scratch: The one writable directory.
        pod_ip: Address of this pod.
        base: Environment to start from; what it sets wins over our tuning, not over the token.
    """
    interface = interface_of(pod_ip)
    network = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface} if interface else {}
    fixed = {"HOME": str(scratch), "TMPDIR": str(scratch)}
    return {**_QUIET, **_IN_A_POD, **network, **base, **_fixed(token_file), **fixed}


def laptop_environment(token_file: Path, scratch: Path, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the driver of a laptop, which starts Ray itself.

    Args:
        token_file: File with a token.
        scratch: Directory with a short path.
        base: Environment to start from.
    """
    network = {"GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
    ours = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25", "RAY_gcs_rpc_server_reconnect_timeout_s": "10"}
    # UTF-8: what a job prints may be any text, whatever the locale
    fixed = {"RAY_TMPDIR": str(scratch), "PYTHONUTF8": "1"}
    return {**_QUIET, **ours, **network, **base, **_fixed(token_file), **fixed}


def _fixed(token_file: Path) -> dict[str, str]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        # no process of ours or Ray's looks for modules in its working directory: it may be the user's, and hold a
        # file with the name of one of Python's own modules
        "PYTHONSAFEPATH": "1",
    }


def head_command(ip: str, scratch: Path, job: TrainingJob) -> list[str]:
    """Return the command that starts a head: no CPU is offered, so training stays on the workers."""
    return [
        *_RAY,
        *_start(ip, scratch, cpus=0, gpus=0, memory=job.spec.cluster.head.memory, resource=HEAD_RESOURCE),
        "--head",
        f"--port={names.PORT_GCS}",
        f"--ray-client-server-port={names.PORT_CLIENT}",  # where grpc is installed there is no way to leave it out
        "--include-dashboard=true",
        "--dashboard-host=0.0.0.0",  # every request needs the attempt's token
        f"--dashboard-port={names.PORT_DASHBOARD}",
        "--no-monitor",  # the operator makes nodes
        "--include-log-monitor=false",  # the driver has a log of its own
    ]


def worker_command(ip: str, scratch: Path, job: TrainingJob, head: str) -> list[str]:
    """Return the command that starts a worker; it waits for the head by itself, while it already loads Ray.

    One CPU is offered whatever the limit is: there is one agent per pod.

    Args:
        ip: Address of this pod.
        scratch: The one writable directory.
        job: What to train.
        head: Name or address of the head.
    """
    workers = job.spec.cluster.workers
    join = [JOIN, f"{head}:{names.PORT_GCS}"]
    start = _start(ip, scratch, cpus=1, gpus=workers.gpus, memory=workers.memory, resource=WORKER_RESOURCE)
    return [*_RAY, *join, *start]


def interface_of(ip: str) -> str | None:
    """Network interface that has an IPv4 address; None: unknown (then the libraries guess)."""
    import fcntl

    for _, name in socket.if_nameindex():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                packed = fcntl.ioctl(probe.fileno(), 0x8915, struct.pack("256s", name[:15].encode()))  # SIOCGIFADDR
            except OSError:
                continue
            if socket.inet_ntoa(packed[20:24]) == ip:
                return name
    return None


def is_listening(host: str, port: int, timeout: float = 1.0) -> bool:
    """Whether something accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=timeout).close()
    except OSError:
        return False
    return True


def write_token(path: Path, token: str) -> None:
    """The attempt's token, readable by us alone."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token)


def _start(ip: str, scratch: Path, cpus: int, gpus: int, memory: str, resource: str) -> list[str]:
    """Return what heads and workers have in common. Every port is fixed, so that a NetworkPolicy can name them.

    Not `--block`: that would be one more process of 120 MB, and it ends the node when the dashboard dies, without which
    training continues. The launcher adopts the processes and watches those that matter.
    """
    return [
        "start",
        f"--node-ip-address={ip}",
        f"--node-name={ip}",
        f"--num-cpus={cpus}",
        f"--num-gpus={gpus}",
        f"--memory={int(parse_quantity(memory) * 0.8)}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--resources={json.dumps({resource: 1})}",
        f"--temp-dir={scratch / 'ray'}",
        f"--node-manager-port={names.PORT_NODE_MANAGER}",
        f"--object-manager-port={names.PORT_OBJECT_MANAGER}",
        f"--runtime-env-agent-port={names.PORT_RUNTIME_ENV_AGENT}",
        f"--dashboard-agent-grpc-port={names.PORT_AGENT_GRPC}",
        f"--dashboard-agent-listen-port={names.PORT_AGENT_HTTP}",
        f"--metrics-export-port={names.PORT_METRICS}",
        f"--min-worker-port={names.PORT_WORKER_MIN}",
        f"--max-worker-port={names.PORT_WORKER_MAX}",
    ]
