"""A raylet that registers late is waited for, in pods and on a laptop; nothing is started that nobody needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ray._private import services
from ray.scripts import scripts
from trainmaster_trainer import group, raystart
from trainmaster_trainer.settings import DriverSettings


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def registers_after(seconds: float, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    clock = Clock()
    monkeypatch.setattr(raystart, "time", clock)

    def get_node(gcs_address: str, node_id: str) -> object:
        if clock.now < 1000 + seconds:
            raise RuntimeError("no node with this id")
        return {"node_id": node_id}

    monkeypatch.setattr(services, "get_node", get_node)
    raystart.be_patient()
    return lambda: services.get_node("1.2.3.4:6379", "n")


def test_later_than_ray_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registers_after(100, monkeypatch)() == {"node_id": "n"}


def test_never(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="no node"):
        registers_after(1000, monkeypatch)()


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> object:
    """Ray's own function, put back afterwards."""
    monkeypatch.setattr(services, "get_node", services.get_node)
    return services.get_node


def test_ray_start_in_a_pod(monkeypatch: pytest.MonkeyPatch, untouched: object) -> None:
    seen: list[tuple[bool, bool]] = []

    def main() -> None:
        seen.append((services.get_node is not untouched, scripts.get_ray_client_dependency_error() is not None))

    monkeypatch.setattr(scripts, "get_ray_client_dependency_error", lambda: None)
    monkeypatch.setattr(scripts, "main", main)
    raystart.start()
    assert seen == [(True, True)]


def test_ray_init_on_a_laptop(monkeypatch: pytest.MonkeyPatch, untouched: object) -> None:
    seen: list[bool] = []

    class Ray:
        @staticmethod
        def init(**arguments: Any) -> None:
            seen.append(services.get_node is not untouched)

    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # is set by the start: give back what was there
    monkeypatch.setattr(group, "ray", Ray)
    files = {"job_file": "", "storage_uri": "", "base_dir": "", "scratch": "", "result_file": "", "token_file": ""}
    group._start(DriverSettings(attempt=1, workers=2, **files), "token")
    assert seen == [True]
