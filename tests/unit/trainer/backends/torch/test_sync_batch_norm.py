"""`distributed.syncBatchNorm`: converted before DDP with more than one worker, refused where PyTorch can't do it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.backends.torch import builder
from trainmaster_trainer.backends.torch.builder import build, synchronize_batch_norm
from trainmaster_trainer.errors import ConfigurationError

from tests.unit.trainer.harness import make_context, small_job, spawn

GPU = torch.device("cuda", 0)
NET = """
from torch import nn

def net(outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs))
"""


def job_of(root: Path) -> TrainingJob:
    (root / "sync_net.py").write_text(NET)
    model = {"class": "sync_net:net"}
    return small_job({"spec.training.model": model, "spec.training.distributed.syncBatchNorm": True})


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, eps=1e-3, momentum=0.2))])
        self.norm = nn.GroupNorm(2, 4)


def test_convert_keeps_weights_buffers_and_settings() -> None:
    model = Inner()
    old = model.blocks[0][1]  # type: ignore[index]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drawn = torch.get_rng_state()

    found = synchronize_batch_norm(model, GPU, "net")

    new = found.blocks[0][1]  # type: ignore[index, union-attr]
    assert isinstance(new, nn.SyncBatchNorm)
    assert (new.eps, new.momentum) == (1e-3, 0.2)
    assert new.weight is old.weight
    assert new.running_var is old.running_var
    assert isinstance(found.norm, nn.GroupNorm)
    assert found.state_dict().keys() == state.keys(), "a checkpoint and the package have the same names as without"
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn), "the draws that follow are those of a run without"


def test_convert_model_that_is_a_batch_norm() -> None:
    assert isinstance(synchronize_batch_norm(nn.BatchNorm1d(3), GPU, "net"), nn.SyncBatchNorm)


def test_convert_accepts_a_model_with_its_own_sync_batch_norm() -> None:
    model = nn.Sequential(nn.SyncBatchNorm(3))
    assert synchronize_batch_norm(model, GPU, "net") is model


def test_convert_refuses_a_model_without_batch_norm() -> None:
    with pytest.raises(ConfigurationError, match=r"distributed\.syncBatchNorm: model net has no batch norm layer"):
        synchronize_batch_norm(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), GPU, "net")


def refuses_cpu(rank: int, world_size: int, root: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"distributed\.syncBatchNorm requires GPUs.*--workers 1"):
        build(make_context(job_of(root), root, rank=rank, world_size=world_size))
    # Why: once PyTorch does it on CPUs, this fails, and the rule can go from here and from the contract's checks.
    model = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    with pytest.raises(ValueError, match="SyncBatchNorm"):
        DistributedDataParallel(model)(torch.randn(8, 3))


def test_two_workers_on_cpus_are_refused(tmp_path: Path) -> None:
    spawn(2, refuses_cpu, tmp_path)


def converts_before_ddp(rank: int, world_size: int, root: Path) -> None:
    converted: list[nn.Module] = []

    def convert(model: nn.Module, device: torch.device, label: str) -> nn.Module:
        assert (device.type, label) == ("cpu", "sync_net:net")
        converted.append(nn.Sequential(model))
        return converted[-1]

    builder.synchronize_batch_norm = convert
    setup = build(make_context(job_of(root), root, rank=rank, world_size=world_size))
    assert isinstance(setup.replica, DistributedDataParallel)
    assert setup.model is converted[0]
    assert setup.replica.module is converted[0]


def test_build_converts_before_ddp(tmp_path: Path) -> None:
    spawn(2, converts_before_ddp, tmp_path)


def test_one_worker_keeps_its_batch_norm(tmp_path: Path) -> None:
    setup = build(make_context(job_of(tmp_path), tmp_path))
    assert type(setup.model[2]) is nn.BatchNorm1d  # type: ignore[index]
