"""Which device, threads and process group a rank gets."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import torch
import torch.distributed as dist
from trainmaster_trainer.backends.torch import BACKEND
from trainmaster_trainer.backends.torch.group import COLLECTIVE_TIMEOUT, process_group
from trainmaster_trainer.errors import PortTaken

from tests.unit.trainer.harness import small_job


class Machine:
    """Stands in for torch.distributed, and for a machine with or without a GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, has_gpu: bool) -> None:
        self.calls: list[Any] = []
        self.error: Exception | None = None
        monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
        monkeypatch.setattr(dist, "init_process_group", self._init)
        monkeypatch.setattr(dist, "destroy_process_group", lambda: self.calls.append("destroy"))
        monkeypatch.setattr("trainmaster_trainer.backends.torch.group.use_threads", self._threads)

    def _init(self, backend: str, **options: Any) -> None:
        if self.error is not None:
            raise self.error
        assert options == {"timeout": COLLECTIVE_TIMEOUT}
        self.calls.append(backend)

    def _threads(self, cpus: float | None, ranks: int) -> None:
        self.calls.append(("threads", cpus, ranks))


@pytest.mark.parametrize(
    ("has_gpu", "gpus", "device", "backend"),
    [
        (False, 0, "cpu", "gloo"),
        (False, 1, "cpu", "gloo"),  # a laptop without the GPUs that the job asks for
        (True, 1, "cuda:0", "nccl"),
        (True, 0, "cuda:0", "gloo"),  # ranks of a laptop that share one GPU, which NCCL refuses
    ],
)
def test_join_device_and_backend(
    monkeypatch: pytest.MonkeyPatch, has_gpu: bool, gpus: int, device: str, backend: str
) -> None:
    machine = Machine(monkeypatch, has_gpu)
    with BACKEND.join(small_job({"spec.cluster.workers.gpus": gpus}), 2, 1.5) as found:
        assert str(found) == device
        assert machine.calls == [("threads", 1.5, 2), backend], "threads first: gloo and the first tensor use them"
    assert machine.calls[2:] == ["destroy"]


def test_join_alone_has_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, has_gpu=True)
    with BACKEND.join(small_job({"spec.cluster.workers.gpus": 1}), 1, None) as device:
        assert str(device) == "cuda:0"
    assert machine.calls == [("threads", None, 1)]


def test_failed_rank_does_not_wait_for_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others may be in a collective that never ends; the process ends right after."""
    machine = Machine(monkeypatch, has_gpu=False)
    with pytest.raises(ValueError, match="broken"), process_group(2, "gloo"):
        raise ValueError("broken")
    assert machine.calls == ["gloo"]


def test_other_rendezvous_error_is_not_a_taken_port(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, has_gpu=False)
    machine.error = RuntimeError("connection to rank 0 timed out")
    with pytest.raises(RuntimeError, match="timed out") as caught, process_group(2, "gloo"):
        raise AssertionError("not reached")
    assert caught.value is machine.error


def test_taken_port_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the next group gets another one, and the job isn't lost."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        values = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        for name, value in {**values, "MASTER_PORT": str(taken.getsockname()[1])}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(PortTaken, match="taken"), process_group(2, "gloo"):
            raise AssertionError("not reached")
