"""Command lines and environments of Ray's processes."""

from __future__ import annotations

import json
from pathlib import Path

from trainmaster_api import names
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.cluster.commands import (
    JOIN,
    head_command,
    interface_of,
    laptop_environment,
    pod_environment,
    worker_command,
    write_token,
)


def options(command: list[str]) -> dict[str, str]:
    rest = command[command.index("start") + 1 :]
    return dict(word.removeprefix("--").partition("=")[::2] for word in rest)


def test_node_commands_head_offers_no_cpu_and_worker_one(job: TrainingJob, tmp_path: Path) -> None:
    head = options(head_command("10.0.0.1", tmp_path, job))
    assert "head" in head
    assert (head["num-cpus"], head["port"]) == ("0", str(names.PORT_GCS))
    assert json.loads(head["resources"]) == {"trainmaster_head": 1}
    command = worker_command("10.0.0.2", tmp_path, job, "digits-head")
    worker = options(command)
    assert "head" not in worker
    assert worker["num-cpus"] == "1"
    assert command[command.index(JOIN) + 1] == f"digits-head:{names.PORT_GCS}"
    assert json.loads(worker["resources"]) == {"trainmaster_worker": 1}
    assert worker["memory"] == str(int(2 * 2**30 * 0.8))


def test_node_commands_every_port_is_fixed(job: TrainingJob, tmp_path: Path) -> None:
    """So that a NetworkPolicy can name them, and no two of them are the same."""
    head = options(head_command("10.0.0.1", tmp_path, job))
    ports = [value for name, value in head.items() if name.endswith("port") and "worker" not in name]
    own = [names.PORT_CONTROL, *range(names.PORT_RENDEZVOUS_MIN, names.PORT_RENDEZVOUS_MAX + 1)]
    assert len(ports) == 9
    assert "0" not in ports
    assert len({*ports, *map(str, own)}) == len(ports) + len(own)
    for port in (*map(int, ports), *own):
        assert not int(head["min-worker-port"]) <= port <= int(head["max-worker-port"])


def test_pod_environment_is_ours_where_it_must_be(tmp_path: Path) -> None:
    base = {
        "RAY_AUTH_MODE": "disabled",
        "PYTHONSAFEPATH": "",
        "HOME": "/root",
        "RAY_health_check_period_ms": "1",
        "X": "y",
    }
    found = pod_environment(tmp_path / "t", tmp_path, "127.0.0.1", base)
    assert (found["RAY_AUTH_MODE"], found["HOME"]) == ("token", str(tmp_path))
    assert found["PYTHONSAFEPATH"] == "1", "or a user's queue.py is Ray's"
    assert (found["RAY_health_check_period_ms"], found["X"]) == ("1", "y")
    assert found["GLOO_SOCKET_IFNAME"] == interface_of("127.0.0.1")


def test_laptop_environment_keeps_the_user_s_own(tmp_path: Path) -> None:
    base = {"RAY_AUTH_MODE": "disabled", "GLOO_SOCKET_IFNAME": "eth7", "HOME": "/home/me"}
    found = laptop_environment(tmp_path / "t", tmp_path, base)
    assert (found["RAY_AUTH_MODE"], found["RAY_AUTH_TOKEN_PATH"]) == ("token", str(tmp_path / "t"))
    assert (found["PYTHONSAFEPATH"], found["RAY_TMPDIR"]) == ("1", str(tmp_path))
    assert (found["GLOO_SOCKET_IFNAME"], found["HOME"]) == ("eth7", "/home/me")


def test_write_token_is_private(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    write_token(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
