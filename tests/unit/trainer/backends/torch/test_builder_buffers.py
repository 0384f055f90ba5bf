"""Batch norm: what is evaluated is what is saved, on every rank; a resume changes no bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch.distributed as dist
from safetensors.torch import load
from trainmaster_api.layout import METRICS
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.backends.torch import loop
from trainmaster_trainer.backends.torch.builder import Setup, build, share_buffers
from trainmaster_trainer.backends.torch.evaluate import evaluate
from trainmaster_trainer.data import load_data
from trainmaster_trainer.export.package import load_package

from tests.unit.trainer.harness import make_context, run_store, small_job, spawn, train_ranks, weights

NET = """
import torch
from torch import nn

class Centred(nn.Module):
    # a buffer that the forward of training depends on, as a codebook or a moving average does

    def __init__(self, features):
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))

    def forward(self, x):
        if self.training:
            self.centre.mul_(0.8).add_(0.2 * x.detach().mean(dim=0))
        return x - self.centre.clone()

def net(outputs, width=16):
    return nn.Sequential(
        nn.Flatten(), Centred(64), nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(width, outputs)
    )
"""


def job_of(root: Path, **loop_options: object) -> TrainingJob:
    root.mkdir(parents=True, exist_ok=True)
    (root / "batch_norm_net.py").write_text(NET)
    asked = {"duration": "6ep", "seed": 3, "gradientAccumulation": 2, **loop_options}
    return small_job({"spec.training.model": {"class": "batch_norm_net:net"}, "spec.training.loop": asked})


def metrics(job: TrainingJob, root: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_store(job, root).get(METRICS) or b"").splitlines()]


def gathered(value: object, world_size: int) -> list[object]:
    found: list[object] = [None] * world_size
    dist.all_gather_object(found, value)
    return found


def statistics(setup: Setup) -> list[list[float]]:
    return [buffer.flatten().tolist() for buffer in setup.model.buffers()]


def ranks_agree(rank: int, world_size: int, root: Path) -> None:
    setup = build(make_context(job_of(root), root, rank=rank, world_size=world_size))
    before = statistics(setup)
    loop.warm_up(setup)
    assert statistics(setup) == before, "the warm-up is thrown away"
    for _ in range(7):
        loop.train_step(setup)
    own = gathered(statistics(setup), world_size)
    assert own[0] != own[1], "each has seen its own rows; else this test shows nothing"
    found = gathered(loop.validate(setup), world_size)
    assert found[0] == found[1]
    assert gathered(statistics(setup), world_size) == [own[0]] * world_size, "evaluated is what rank 0 saves"
    share_buffers(setup)
    alone = evaluate(setup.model, setup.loader, setup.data.validation, setup.task)
    assert {f"val/{name}": value for name, value in alone.items()} == pytest.approx(found[0], rel=1e-6)
    # a resumed rank begins with the saved ones; so does one that wasn't stopped
    if rank:
        setup.model[3].num_batches_tracked.zero_()  # type: ignore[index]
    loop.train_step(setup)
    assert gathered(int(setup.model[3].num_batches_tracked), world_size) == [2 * 8] * world_size  # type: ignore[index]


def test_ranks_agree_on_buffers_where_they_count(tmp_path: Path) -> None:
    spawn(2, ranks_agree, tmp_path)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_stopped_run_with_batch_norm_goes_on_to_the_bit(tmp_path: Path, world_size: int) -> None:
    job = job_of(tmp_path)
    for root in ("whole", "parts"):
        (tmp_path / root).mkdir()
        shutil.copy(tmp_path / "batch_norm_net.py", tmp_path / root)
    train_ranks(job, tmp_path / "whole", world_size)
    train_ranks(job, tmp_path / "parts", world_size, stop_at=5)
    assert run_store(job, tmp_path / "parts").get("model/model.safetensors") is None
    train_ranks(job, tmp_path / "parts", world_size, attempt=2)
    assert weights(job, tmp_path / "parts") == weights(job, tmp_path / "whole")
    assert metrics(job, tmp_path / "parts") == metrics(job, tmp_path / "whole")


def test_the_package_repeats_the_test_metrics_of_two_ranks(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    train_ranks(job, tmp_path, 2)
    report = json.loads(run_store(job, tmp_path).get("report/test-metrics.json") or b"")
    data = load_data(job, tmp_path, {})
    x, y = data.rows.batch(data.test)
    accuracy = float((load_package(run_store(job, tmp_path), tmp_path).predict(x) == y).double().mean())
    assert accuracy == pytest.approx(report["metrics"]["test/accuracy"])
    assert "3.running_mean" in load(weights(job, tmp_path))
