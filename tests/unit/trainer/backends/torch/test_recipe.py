"""Whole runs of recipes: to the bit after a stop, batches whose parts count differently, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load
from trainmaster_api.messages import Outcome, Resume
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.backends.torch import loop as torch_loop
from trainmaster_trainer.context import ReportKind
from trainmaster_trainer.data.order import Sampler
from trainmaster_trainer.errors import ConfigurationError, TrainingError

from tests.unit.trainer.backends.torch.recipe_parts import own_recipes
from tests.unit.trainer.backends.torch.recipes import recipe_job
from tests.unit.trainer.harness import Recording, train, train_ranks, weights

ACCUMULATED = {"gradientAccumulation": 2}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def digest(job: TrainingJob, root: Path) -> str:
    return hashlib.sha256(weights(job, root)).hexdigest()


# a recipe with an average of the weights keeps a state of its own, too
@pytest.mark.parametrize("function", ["classifier", "averaged", "sequences", "weighted", "gan"])
def test_stopped_run_resumes_to_the_bit(tmp_path: Path, function: str) -> None:
    args = {"dropout": 0.3, "norm": True} if function == "classifier" else {}
    job = recipe_job(function, duration="16ep", loop=ACCUMULATED, **args)
    train(job, tmp_path / "whole")
    assert train(job, tmp_path / "parts", recording=Recording(stop_at=9)).outcome is Outcome.STOPPED
    recording = Recording()
    assert train(job, tmp_path / "parts", attempt=2, recording=recording).outcome is Outcome.COMPLETE
    (resumed,) = [report for report in recording.reports if report.kind is ReportKind.RESUMED]
    assert resumed.step >= 9
    assert resumed.resume is Resume.EXACT
    assert digest(job, tmp_path / "parts") == digest(job, tmp_path / "whole")


def test_two_ranks_resume_to_the_bit(tmp_path: Path) -> None:
    job = recipe_job("classifier", loop=ACCUMULATED, dropout=0.3, norm=True)
    train_ranks(job, tmp_path / "whole", 2)
    train_ranks(job, tmp_path / "parts", 2, stop_at=9)
    with pytest.raises(AssertionError):
        weights(job, tmp_path / "parts")  # it really was stopped
    train_ranks(job, tmp_path / "parts", 2, attempt=2)
    assert digest(job, tmp_path / "parts") == digest(job, tmp_path / "whole")


@pytest.mark.parametrize("function", ["classifier", "averaged"])
def test_check_leaves_weights_as_they_are(tmp_path: Path, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    args = {"dropout": 0.3, "norm": True} if function == "classifier" else {}
    job = recipe_job(function, loop=ACCUMULATED, **args)
    train(job, tmp_path / "with")
    calls = []
    monkeypatch.setattr(torch_loop.exactness, "require", lambda *args: calls.append(args) or [])
    train(job, tmp_path / "without")
    assert len(calls) == 1
    assert digest(job, tmp_path / "without") == digest(job, tmp_path / "with")


@pytest.mark.parametrize("ranks", [1, 2])
def test_counted_parts_are_the_whole_batch(tmp_path: Path, ranks: int) -> None:
    """Against plain PyTorch: one forward, one backward, one division per step."""
    job = recipe_job("sequences", duration="1ep", loop={"gradientAccumulation": 3}, plain=True)
    if ranks == 1:
        train(job, tmp_path)
    else:
        train_ranks(job, tmp_path, ranks)
    recipe = own_recipes.sequences(plain=True)
    optimizer = torch.optim.SGD(recipe.model.parameters(), lr=0.1)
    sampler = Sampler(np.arange(96), 12, 3)
    for step in range(8):
        rows = sampler.indices(step)
        total, count = own_recipes.counted(recipe.model, own_recipes.padded([recipe.train[int(row)] for row in rows]))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    found = load(weights(job, tmp_path))
    for name, tensor in recipe.model.state_dict().items():
        torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        ("counting", "attribute 'seen' of model (Counting; int)"),
        ("cached", "attribute 'last' of model.1 (Cached; Tensor)"),
        ("closure", "variable 'center' of loss (function; Tensor)"),
    ],
)
def test_hidden_state_is_refused_by_name(tmp_path: Path, function: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match="doesn't resume exactly") as caught:
        train(recipe_job(function), tmp_path)
    assert named in str(caught.value)
    assert "resumes_exactly = False" in str(caught.value)


def test_hidden_state_without_effect_is_a_warning(tmp_path: Path) -> None:
    recording = Recording()
    train(recipe_job("remembering", duration="1ep"), tmp_path, recording=recording)
    said = " ".join(report.message or "" for report in recording.reports if report.kind is ReportKind.WARNING)
    assert "attribute 'outputs' of model (Remembering; deque)" in said


def test_opt_out_promises_nothing(tmp_path: Path) -> None:
    recording = Recording()
    train(recipe_job("cached", duration="1ep", sets=True), tmp_path, recording=recording)
    said = " ".join(report.message or "" for report in recording.reports if report.kind is ReportKind.WARNING)
    assert "resumes_exactly = False" in said
    (begun,) = [report for report in recording.reports if report.kind is ReportKind.RESUMED]
    assert begun.resume is Resume.SCRIPT


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"loss": "per sample"}, "Recipe.loss returned"),
        ({"loss": "outside"}, "call `model(...)` with the argument `model`"),
        ({"optimizer": "strangers"}, "parameters that aren't in Recipe.model"),
        ({"metrics": "other names"}, "name each metric there"),
        ({"train": "generator"}, "expected a dataset with __len__ and __getitem__"),
        ({"state": "stateless"}, "Recipe.state['ema'] is a int without state_dict and load_state_dict"),
    ],
)
def test_mistake_is_a_sentence(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(TrainingError) as caught:
        train(recipe_job("broken", **fields), tmp_path)
    assert said in str(caught.value)
    assert "recipe" in str(caught.value)
