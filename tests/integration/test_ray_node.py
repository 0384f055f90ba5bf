"""A real raylet whose agents never say anything: it registers all the same, because it knows their ports."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray._private import services
from trainmaster_trainer.cluster import commands
from trainmaster_trainer.cluster import node as raystart
from trainmaster_trainer.cluster.node import RayNode

from testbed.control_plane import free_port

pytestmark = pytest.mark.ray
AGENTS = ("dashboard_agent_command", "runtime_env_agent_command")
PORTS = [name for name in commands.pod_ports() if "worker" not in name]


@pytest.fixture
def mute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents that only sleep."""

    def start_ray_process(command: list[str], *rest: Any, **named: Any) -> Any:
        swapped = [f"--{agent}=sleep 100" for agent in AGENTS]
        kept = [part for part in command if not part.startswith(tuple(f"--{agent}=" for agent in AGENTS))]
        return plain(kept + swapped * (len(kept) < len(command)), *rest, **named)

    plain = services.start_ray_process
    monkeypatch.setattr(services, "start_ray_process", start_ray_process)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Short: a socket's path has 107 characters at most."""
    with tempfile.TemporaryDirectory(prefix="tm-ray-") as folder:
        yield Path(folder)


@pytest.mark.usefixtures("mute")
def test_a_raylet_registers_without_its_agents(scratch: Path) -> None:
    ports = {name: free_port() for name in PORTS}
    parameters = {
        "node_ip_address": "127.0.0.1",
        "num_cpus": 1,
        "temp_dir": str(scratch),
        "gcs_server_port": free_port(),
    }
    node: RayNode = raystart.start(head=True, parameters={**parameters, **ports}, ends_with_us=True)
    try:
        assert node.dead_processes() == []  # type: ignore[no-untyped-call]
        assert node.dashboard_agent_listen_port == ports["dashboard_agent_listen_port"]
    finally:
        node.kill_all_processes(check_alive=False, allow_graceful=False)
