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
from typing import Any

from trainmaster_api import names
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.types import parse_quantity

# Ray's object store only carries pickled functions here; 75 MiB is the least it accepts.
OBJECT_STORE_BYTES = 80 * 2**20
HEAD_RESOURCE, WORKER_RESOURCE = "trainmaster_head", "trainmaster_worker"


def ray_environment(token_file: Path, scratch: Path, pod_ip: str, base: Mapping[str, str]) -> dict[str, str]:
    """Environment of every Ray process of a pod.

    Args:
        token_file: File with the attempt's token.
        scratch: The one writable directory.
        pod_ip: Address of this pod.
        base: Environment to start from; what it sets wins over our tuning, not over the token.
    """
    interface = interface_of(pod_ip)
    fixed = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
    }
    defaults = {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        # a pending placement group waits for the worker that the operator makes anew; the deadline is the operator's
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "86400",
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "120",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # our launcher says it sooner, and this would be one more process
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        # idle processes that Ray starts in advance would never be used: Ray Train's have an environment of their own
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        # a container's memory limit is enforced by the kernel; Ray's own killer reads the wrong cgroup in some runtimes
        "RAY_memory_monitor_refresh_ms": "0",
        # a host that vanishes without a word counts as dead after about 20 s instead of 60
        "RAY_health_check_initial_delay_ms": "10000",
        "RAY_health_check_period_ms": "2000",
        "RAY_health_check_timeout_ms": "4000",
        "RAY_health_check_failure_threshold": "4",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
        # a worker that is told to end has saved already when its raylet is
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
        "RAY_COLOR_PREFIX": "0",
        "RAY_ROTATION_MAX_BYTES": str(16 * 2**20),
        "RAY_ROTATION_BACKUP_COUNT": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if interface:
        defaults |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
    return {**defaults, **base, **fixed}


def head_command(ip: str, scratch: Path, job: TrainingJob) -> list[str]:
    """Starts a head: no CPU is offered, so training stays on the workers."""
    return _command(
        "head",
        **_parameters(ip, scratch, cpus=0, gpus=0, memory=job.spec.cluster.head.memory, resource=HEAD_RESOURCE),
        gcs_server_port=names.PORT_GCS,
        dashboard_host="0.0.0.0",  # every request needs the attempt's token
        dashboard_port=names.PORT_DASHBOARD,
        include_log_monitor=False,  # the driver has a log of its own
    )


def worker_command(ip: str, scratch: Path, job: TrainingJob, head_ip: str) -> list[str]:
    """Starts a worker. One CPU is offered whatever the limit is: one training process per pod."""
    workers = job.spec.cluster.workers
    return _command(
        "worker",
        **_parameters(ip, scratch, cpus=1, gpus=workers.gpus, memory=workers.memory, resource=WORKER_RESOURCE),
        gcs_address=f"{head_ip}:{names.PORT_GCS}",
    )


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


def _command(role: str, **parameters: Any) -> list[str]:
    return [sys.executable, "-m", "trainmaster_trainer.cluster.node", role, json.dumps(parameters)]


def _parameters(ip: str, scratch: Path, cpus: int, gpus: int, memory: str, resource: str) -> dict[str, Any]:
    """Of Ray's `RayParams`."""
    return {
        "node_ip_address": ip,
        "node_name": ip,
        "num_cpus": cpus,
        "num_gpus": gpus,
        "memory": int(parse_quantity(memory) * 0.8),
        "object_store_memory": OBJECT_STORE_BYTES,
        "resources": {resource: 1},
        **pod_ports(),
        "temp_dir": str(scratch / "ray"),
    }


def pod_ports() -> dict[str, int]:
    """Ray's ports in a pod, as Ray's `RayParams` calls them. All are set, so that nothing waits to be told one."""
    return {
        "node_manager_port": names.PORT_NODE_MANAGER,
        "object_manager_port": names.PORT_OBJECT_MANAGER,
        "runtime_env_agent_port": names.PORT_RUNTIME_ENV_AGENT,
        "metrics_agent_port": names.PORT_AGENT_GRPC,
        "dashboard_agent_listen_port": names.PORT_AGENT_HTTP,
        "metrics_export_port": names.PORT_METRICS,
        "min_worker_port": names.PORT_WORKER_MIN,
        "max_worker_port": names.PORT_WORKER_MAX,
    }
