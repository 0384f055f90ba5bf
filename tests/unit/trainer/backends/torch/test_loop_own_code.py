"""Whole runs with the user's own model, data, loss, metric, optimizer and schedule."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from trainmaster_api.layout import METRICS
from trainmaster_api.messages import Outcome
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.export.package import load_package

from tests.factories import Changes
from tests.unit.trainer.harness import run_store, small_job, train, train_ranks, weights

PARTS = Path(__file__).parent / "parts"
EVERYTHING: Changes = {
    "spec.training.task": {
        "name": "classification",
        "numClasses": 10,
        "loss": {"class": "own_parts:Weighted"},
        "metrics": [{"class": "own_parts:Kappa"}, {"class": "own_parts:top2", "args": {"k": 3}}, {"name": "auc"}],
    },
    "spec.training.model": {"class": "own_parts:Net", "args": {"width": 24}},
    "spec.training.optimizer": {
        "class": "own_parts:Lion",
        "lr": 0.003,
        "weightDecay": 0.01,
        "args": {"betas": [0.9, 0.98]},
    },
    "spec.training.schedule": {
        "class": "own_parts:Sawtooth",
        "args": {"teeth": 3},
        "warmup": "1ep",
        "minLrRatio": 0.05,
    },
    "spec.training.loop": {"duration": "8ep", "clipNorm": 1.0, "seed": 3},
    "spec.checkpoint.metric": "val/kappa",
}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copy(PARTS / "own_parts.py", tmp_path)
    return tmp_path


def lines(job: TrainingJob, root: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_store(job, root).get(METRICS) or b"").splitlines()]


def in_folder(root: Path, name: str) -> Path:
    """A folder of its own for a run's results, with the code beside it."""
    (root / name).mkdir()
    (root / name / "own_parts.py").symlink_to(root / "own_parts.py")
    return root / name


def test_every_part_can_be_the_users(root: Path) -> None:
    job = small_job(EVERYTHING)
    result = train(job, root)
    assert result.outcome is Outcome.COMPLETE
    assert {"test/loss", "test/accuracy", "test/f1", "test/kappa", "test/top2", "test/auc"} == set(result.test_metrics)
    assert result.test_metrics["test/kappa"] > 0.7
    assert result.test_metrics["test/top2"] > result.test_metrics["test/accuracy"]
    validations = [line for line in lines(job, root) if "val/kappa" in line]
    best = json.loads(run_store(job, root).get("BEST") or b"")["step"]
    assert best == max(validations, key=lambda line: (line["val/kappa"], -line["step"]))["step"], "higher is better"
    rates = [line["train/lr"] for line in lines(job, root) if "train/lr" in line]
    assert min(rates) == pytest.approx(0.003 * 0.05), "minLrRatio holds for a user's schedule too"


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_stopped_run_of_users_parts_goes_on_to_the_bit(root: Path, world_size: int) -> None:
    """Moments, a counter in the optimizer's groups, the schedule's memory, numpy's draws, the model's buffer."""
    changes = dict(EVERYTHING)
    if world_size > 1:  # the loss's buffer follows a rank's own rows: that can be exact on one rank only
        changes["spec.training.task"] = {**changes["spec.training.task"], "loss": None}
    job = small_job(changes)
    whole, parts = in_folder(root, "whole"), in_folder(root, "parts")
    train_ranks(job, whole, world_size)
    train_ranks(job, parts, world_size, stop_at=5)
    assert run_store(job, parts).get("model/model.safetensors") is None
    train_ranks(job, parts, world_size, attempt=2)
    assert weights(job, parts) == weights(job, whole)
    assert lines(job, parts) == lines(job, whole)


def test_package_of_own_model_is_rebuilt_by_its_reference(root: Path) -> None:
    job = small_job(EVERYTHING)
    result = train(job, root)
    from trainmaster_trainer.data import load_data

    data = load_data(job, root, {})
    x, y = data.rows.batch(data.test)
    accuracy = float((load_package(run_store(job, root)).predict(x) == y).double().mean())
    assert accuracy == pytest.approx(result.test_metrics["test/accuracy"])


def test_package_without_its_code_names_what_is_needed(root: Path) -> None:
    job = small_job(EVERYTHING)
    train_ranks(job, root, 1)  # in another process: here nothing is imported yet
    with pytest.raises(ConfigurationError) as caught:
        load_package(run_store(job, root))
    assert "was trained with own_parts:Net, which can't be built here" in str(caught.value)
    assert "load_package(store, code=...)" in str(caught.value)
    assert load_package(run_store(job, root), root).training.model.label == "own_parts:Net"


RINGS: Changes = {
    "spec.training.task": {"name": "classification"},
    "spec.training.data": {"class": "own_parts:Rings", "args": {"rows": 400}, "batchSize": 20},
    "spec.training.optimizer": {"name": "adamw", "lr": 0.01},
    "spec.training.loop": {"duration": "20ep", "seed": 3},
}


def test_a_dataset_of_the_users_is_split_scaled_and_named(root: Path) -> None:
    job = small_job(RINGS)
    result = train(job, root)
    assert result.test_metrics["test/accuracy"] > 0.9
    package = load_package(run_store(job, root))
    assert package.labels == ["inner", "outer"]
    assert package.mean.shape == (2,)


def test_a_dataset_that_draws_is_the_same_in_every_attempt(root: Path) -> None:
    job = small_job(RINGS)
    whole, parts = in_folder(root, "whole"), in_folder(root, "parts")
    train_ranks(job, whole, 1)
    train_ranks(job, parts, 1, stop_at=5)
    train_ranks(job, parts, 1, attempt=2)
    assert weights(job, parts) == weights(job, whole)


def test_a_dataset_of_numbers_is_a_regression_in_its_unit(root: Path) -> None:
    job = small_job({**RINGS, "spec.training.task": {"name": "regression"},
                      "spec.training.data": {"class": "own_parts:Numbers", "batchSize": 20}})  # fmt: skip
    result = train(job, root)
    assert result.test_metrics["test/r2"] > 0.9
    assert result.test_metrics["test/rmse"] < 5


def test_rows_that_come_in_batches_are_taken_as_they_are(root: Path) -> None:
    job = small_job({**RINGS, "spec.training.data": {"class": "own_parts:Blocks", "batchSize": 20}})
    assert train(job, root).test_metrics["test/accuracy"] == 1.0
    assert load_package(run_store(job, root)).labels == ["even", "odd"]


def test_whole_numbers_reach_the_model_as_they_are(root: Path) -> None:
    job = small_job({**RINGS, "spec.training.data": {"class": "own_parts:Tokens", "batchSize": 20},
                      "spec.training.model": {"class": "own_parts:Bag"}})  # fmt: skip
    assert train(job, root).test_metrics["test/accuracy"] == 1.0
    tokens = torch.tensor([[row, 3, 4] for row in range(3)])
    assert load_package(run_store(job, root)).predict(tokens).tolist() == [0, 1, 2]


def test_collated_rows_reach_the_model_by_their_names(root: Path) -> None:
    job = small_job({**RINGS, "spec.training.data": {"class": "own_parts:Lengths", "batchSize": 20},
                      "spec.training.model": {"class": "own_parts:Masked"}})  # fmt: skip
    assert train(job, root).test_metrics["test/accuracy"] == 1.0
    batch = {"tokens": torch.tensor([[0, 3, 0], [1, 3, 4]]), "lengths": torch.tensor([2, 3])}
    assert load_package(run_store(job, root)).predict(batch).tolist() == [0, 1]


def test_functions_are_losses_and_schedules(root: Path) -> None:
    task = {"name": "classification", "numClasses": 10, "loss": {"class": "own_parts:focal", "args": {"gamma": 1.0}}}
    schedule = {"class": "own_parts:halving", "args": {"every": 20}}
    job = small_job({"spec.training.task": task, "spec.training.schedule": schedule})
    assert train(job, root).test_metrics["test/accuracy"] > 0.4
    assert [line["train/lr"] for line in lines(job, root) if "train/lr" in line][-2:] == pytest.approx(
        [0.001 * 0.5**4] * 2, rel=1e-6
    )
