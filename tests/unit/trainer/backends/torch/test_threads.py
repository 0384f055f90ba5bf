"""No more threads than cores of the rank."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from trainmaster_trainer.backends.torch.threads import use_threads


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("cpus", "expected"), [(0.5, 1), (1.0, 1), (1.9, 1), (2.0, 2), (3.0, 3), (16.0, 4)])
def test_in_a_cluster_those_of_the_pod(monkeypatch: pytest.MonkeyPatch, cpus: float, expected: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(4)))
    assert use_threads(cpus, 8) == torch.get_num_threads() == expected


@pytest.mark.parametrize(("ranks", "expected"), [(1, 4), (2, 2), (3, 1), (9, 1)])
def test_on_a_laptop_the_ranks_share(monkeypatch: pytest.MonkeyPatch, ranks: int, expected: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(4)))
    assert use_threads(None, ranks) == torch.get_num_threads() == expected
