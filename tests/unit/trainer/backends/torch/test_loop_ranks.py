"""Two ranks with gloo: the same run as one, and resumed to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from trainmaster_api.layout import METRICS, TEST_METRICS
from trainmaster_api.messages import Outcome
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.checkpoint import protocol

from tests.unit.trainer.harness import run_store, small_job, train, train_ranks, weights

LOOP = {"duration": "12ep", "clipNorm": 1.0, "seed": 3, "gradientAccumulation": 2}


def job_of(dropout: float) -> TrainingJob:
    return small_job({"spec.training.model.args": {"hidden": [32], "dropout": dropout}, "spec.training.loop": LOOP})


def metrics(job: TrainingJob, root: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_store(job, root).get(METRICS) or b"").splitlines()]


def test_two_ranks_train_what_one_does(tmp_path: Path) -> None:
    job = job_of(0.0)
    train(job, tmp_path / "one")
    train_ranks(job, tmp_path / "two", 2)
    one, two = metrics(job, tmp_path / "one"), metrics(job, tmp_path / "two")
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for a, b in zip(one, two, strict=True):
        # the order in which floats are added differs, nothing else
        assert b == pytest.approx(a, rel=2e-3, abs=1e-5)
    mine, theirs = load(weights(job, tmp_path / "one")), load(weights(job, tmp_path / "two"))
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, atol=2e-4, rtol=0)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks, stopped on the way, with dropout: every rank has random states of its own."""
    root = tmp_path_factory.mktemp("stopped")
    train_ranks(job_of(0.3), root, 2, stop_at=5)
    store = run_store(job_of(0.3), root)
    assert store.get(TEST_METRICS) is None
    attempt, step = protocol.positions(store)[0]
    assert attempt == 1
    assert 5 <= step < 12 * 22
    return root


def test_two_ranks_go_on_to_the_bit(stopped: Path, tmp_path: Path) -> None:
    job = job_of(0.3)
    train_ranks(job, tmp_path / "whole", 2)
    shutil.copytree(stopped, tmp_path / "parts")
    train_ranks(job, tmp_path / "parts", 2, attempt=2)
    assert weights(job, tmp_path / "parts") == weights(job, tmp_path / "whole")
    assert metrics(job, tmp_path / "parts") == metrics(job, tmp_path / "whole")


def test_one_rank_goes_on_from_two(stopped: Path, tmp_path: Path) -> None:
    job = job_of(0.3)
    shutil.copytree(stopped, tmp_path / "parts")
    result = train(job, tmp_path / "parts", attempt=2)
    assert result.outcome is Outcome.COMPLETE
    assert result.step == 12 * 22
    assert result.test_metrics["test/accuracy"] > 0.85
