"""A raylet that registers late is waited for, in pods and on a laptop; nothing is started that nobody needs."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from ray._private import services
from ray._private.node import Node
from ray._private.parameter import RayParams
from trainmaster_trainer.cluster import node as raystart
from trainmaster_trainer.cluster import train
from trainmaster_trainer.ipc.settings import DriverSettings

UNTOUCHED = services.get_node


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def registers_after(
    seconds: float, monkeypatch: pytest.MonkeyPatch, ends_after: float = float("inf")
) -> Callable[[], object]:
    clock = Clock()
    monkeypatch.setattr(raystart, "time", clock)

    def get_node(gcs_address: str, node_id: str) -> object:
        if clock.now < 1000 + seconds:
            raise RuntimeError("no node with this id")
        return {"node_id": node_id}

    monkeypatch.setattr(raystart, "_ASK", get_node)
    monkeypatch.setattr(services, "get_node", UNTOUCHED)  # put back afterwards
    monkeypatch.setattr(raystart, "_ended", lambda node: ["raylet: status -6"] * (clock.now > 1000 + ends_after))
    monkeypatch.setattr(Node, "start_ray_processes", lambda self: None)
    raystart.RayNode.__new__(raystart.RayNode).start_ray_processes()

    def ask() -> object:
        try:
            return services.get_node("1.2.3.4:6379", "n")
        finally:
            assert clock.now < 1000 + ends_after + 1, "waited for a dead raylet"

    return ask


def test_later_than_ray_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registers_after(100, monkeypatch)() == {"node_id": "n"}


def test_never(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="no node"):
        registers_after(1000, monkeypatch)()


def test_nobody_waits_for_a_raylet_that_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(raystart.NodeEndedError, match="raylet: status -6"):
        registers_after(1000, monkeypatch, ends_after=10)()


class FakeNode:
    """What `start` makes of its parameters, without processes."""

    made: ClassVar[list[dict[str, Any]]] = []
    gcs_address = "127.0.0.1:6379"

    def __init__(self, params: RayParams, **options: Any) -> None:
        self.made.append({"params": params, **options})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setattr(raystart, "RayNode", FakeNode)
    monkeypatch.setattr(FakeNode, "made", [])
    return FakeNode.made


def test_in_a_pod(made: list[dict[str, Any]]) -> None:
    raystart.start(head=False, parameters={"num_cpus": 1, "gcs_address": "10.0.0.1:6379"}, ends_with_us=True)
    (node,) = made
    params = node["params"]
    assert (node["head"], node["shutdown_at_exit"]) == (False, True)
    assert (params.num_cpus, params.no_monitor, params.ray_client_server_port) == (1, True, None)


def test_on_a_laptop(monkeypatch: pytest.MonkeyPatch, made: list[dict[str, Any]]) -> None:
    asked: list[dict[str, Any]] = []

    class Ray:
        @staticmethod
        def init(**arguments: Any) -> None:
            asked.append(arguments)

    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # is set by the start: give back what was there
    monkeypatch.setattr(train, "ray", Ray)
    files = {"job_file": "", "storage_uri": "", "base_dir": "", "scratch": "/tmp", "result_file": "", "token_file": ""}
    train._start(DriverSettings(attempt=1, workers=2, **files), "token")
    assert [node["head"] for node in made] == [True]
    assert asked[0]["address"] == FakeNode.gcs_address


def test_a_process_that_ended_is_told_and_one_that_was_told_to_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = [("raylet", SimpleNamespace(returncode=-9)), ("log_monitor", SimpleNamespace(returncode=-15))]
    node: Any = SimpleNamespace(dead_processes=lambda: ended)
    assert raystart._ended(node) == ["raylet: status -9"]


def test_the_dashboard_comes_last_and_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(Node, "start_api_server", lambda self, **options: seen.append(options))
    node = raystart.RayNode.__new__(raystart.RayNode)
    node.start_api_server(include_dashboard=True, raise_on_failure=True)
    assert seen == []
    node.start_dashboard()
    assert seen == [{"include_dashboard": True, "raise_on_failure": False}]
