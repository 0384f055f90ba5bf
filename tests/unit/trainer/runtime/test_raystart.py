"""A raylet that registers late is waited for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ray._private import services
from trainmaster_trainer import raystart


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
