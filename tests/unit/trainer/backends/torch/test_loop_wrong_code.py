"""Mistakes in the user's own parts: each is named, with its place, and never retried."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.errors import ConfigurationError, DataError, TrainingError, UserCodeError
from trainmaster_trainer.failures import rank_error

from tests.factories import Changes
from tests.unit.trainer.harness import _fit_rank, small_job, spawn, train

PARTS = Path(__file__).parent / "parts"


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    shutil.copy(PARTS / "wrong_parts.py", tmp_path)
    return tmp_path


def failing(root: Path, changes: Changes) -> tuple[type[BaseException], str, FailureClass]:
    with pytest.raises(Exception) as caught:
        train(small_job({"spec.training.loop": {"duration": "1ep", "seed": 0}}, changes), root)
    found = rank_error(caught.value, 0, "")
    return caught.type, found.message, found.failure_class


def model(name: str) -> Changes:
    return {"spec.training.model": {"class": f"wrong_parts:{name}"}}


def task(**more: Any) -> dict[str, Any]:
    return {"spec.training.task": {"name": "classification", "numClasses": 10, **more}}


def data(kind: str) -> dict[str, Any]:
    return {**task(), "spec.training.task": {"name": "classification"},
            "spec.training.data": {"class": "wrong_parts:Bad", "args": {"kind": kind}, "batchSize": 10}}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        (model("Flat"), UserCodeError, r"model wrong_parts:Flat returned \(64, 3\) for a batch of 64 rows; task.name "
         r"classification expects \(64, 10\)"),
        (model("Pair"), UserCodeError, "returned a tuple for a batch of 64 rows"),
        (model("Detached"), UserCodeError, "doesn't depend on the model's parameters .*there is nothing to train"),
        (model("Misfit"), RuntimeError, r"shapes cannot be multiplied .* \(wrong_parts\.py:\d+ in forward\)"),
        (model("InPlace"), RuntimeError, "modified by an inplace operation"),
        (model("Extra"), ConfigurationError, "_extra_state in its state_dict isn't a tensor"),
        (model("Empty"), ConfigurationError, "has no trainable parameters"),
        (model("Bad"), ConfigurationError, "is not a subclass of torch.nn.Module"),
        (model("no_module"), ConfigurationError, "returned a function; expected a torch.nn.Module"),
        (model("Flt"), ConfigurationError, r"wrong_parts has no 'Flt'; did you mean `Flat`\?"),
        ({"spec.training.model": {"class": "wrong_parts:Flat", "args": {"outptus": 3}}}, ConfigurationError,
         r"model\.args\.outptus: Flat has no such argument"),
        (task(loss={"class": "wrong_parts:per_row"}), UserCodeError, r"task.loss wrong_parts:per_row returned \(64,\)"),
        (task(loss={"class": "wrong_parts:Learned"}), ConfigurationError, "has its own parameters"),
        (task(metrics=[{"class": "wrong_parts:undirected"}]), ConfigurationError,
         r"task\.metrics\[0\] wrong_parts:undirected: set undirected\.higher_is_better to True or False"),
        (task(metrics=[{"class": "wrong_parts:NoMetric"}]), ConfigurationError, "is neither a subclass of"),
        ({"spec.training.optimizer": {"class": "wrong_parts:Closure", "lr": 0.1}}, ConfigurationError,
         "requires a closure"),
        ({"spec.training.optimizer": {"class": "wrong_parts:Empty", "lr": 0.1}}, ConfigurationError,
         "is not a subclass of torch.optim.Optimizer"),
        ({"spec.training.optimizer": {"class": "torch.optim:Adam", "lr": 0.1, "args": {"beta": 1}}}, ConfigurationError,
         r"optimizer\.args\.beta: Adam has no such argument; .* did you mean `betas`\?"),
        ({"spec.training.optimizer": {"class": "torch.optim:Adam", "lr": 0.1, "args": {"betas": 1}}}, TypeError,
         "not subscriptable"),
        ({"spec.training.schedule": {"class": "wrong_parts:Stream"}}, ConfigurationError,
         "can't be called with a step"),
        ({"spec.checkpoint.metric": "val/acuracy"}, ConfigurationError, r"checkpoint\.metric: unknown metric"),
        (data("shape"), DataError, r"row 17 has shape \[5\] and row 0 \[4\]"),
        (data("class"), DataError, r"row 0 has class 7; expected 0 \.\. 1"),
        (data("fraction"), DataError, r"row 0 has class 0\.5"),
        (data("single"), DataError, "row 0 is a Tensor; expected a pair"),
        (data("word"), DataError, "the target of row 0 is a str; expected a number, the class's index"),
        (data("words"), DataError, "row 0 can't be converted to a tensor and a number"),
        (data("empty"), DataError, "has no rows"),
        (data("raises"), IndexError, r"list index out of range \(wrong_parts\.py:\d+ in __getitem__\)"),
        ({"spec.training.data": {"class": "wrong_parts:Stream", "batchSize": 10}}, DataError,
         "no item of train came in a stream of 0"),
    ],
)  # fmt: skip
def test_own_parts_mistakes_are_named_and_never_retried(
    wrong: Path, changes: Changes, kind: type[BaseException], expected: str
) -> None:
    raised, message, failure = failing(wrong, changes)
    assert issubclass(raised, kind), message
    assert re.search(expected, message), message
    own = {ConfigurationError: FailureClass.INVALID_CONFIGURATION, DataError: FailureClass.DATA_ERROR}
    assert failure == own.get(kind, FailureClass.USER_CODE_ERROR)  # type: ignore[call-overload]


def test_model_with_unused_parameters_is_a_user_error_on_two_ranks(wrong: Path) -> None:
    """DDP says it in its forward, and no frame of the user's is there."""
    job = small_job({"spec.training.loop": {"duration": "1ep", "seed": 0}}, model("Unused"))
    with pytest.raises(Exception, match="UserCodeError"):
        train_ranks_classed(job, wrong)


def train_ranks_classed(job: TrainingJob, root: Path) -> None:
    spawn(2, _classed, job, root)


def _classed(rank: int, world_size: int, job: TrainingJob, root: Path) -> None:
    try:
        _fit_rank(rank, world_size, job, root, 1, None)
    except TrainingError:
        raise
    except Exception as error:
        raise RuntimeError(str(rank_error(error, rank, "").failure_class)) from error
