"""Whole runs with the user's own model, data, loss, metric, optimizer and schedule; and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from trainmaster_api.layout import METRICS
from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.errors import ConfigurationError, DataError, TrainingError, UserCodeError
from trainmaster_trainer.export.package import load_package
from trainmaster_trainer.failures import rank_error

from tests.factories import Changes
from tests.unit.trainer.harness import run_store, small_job, train, train_ranks, weights

OWN = '''
import math
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from trainmaster_trainer.tasks.metrics import Metric


class Net(nn.Module):
    """Two layers that share a weight, noise of its own, a buffer that counts."""

    def __init__(self, input_shape, outputs, width=16, noise=0.1):
        super().__init__()
        self.first = nn.Linear(math.prod(input_shape), width)
        self.second, self.third = nn.Linear(width, width), nn.Linear(width, width)
        self.third.weight = self.second.weight
        self.last, self.noise = nn.Linear(width, outputs), noise
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        if self.training:
            self.seen += len(x)
            x = x + self.noise * float(np.random.random())
        x = F.relu(self.first(x.flatten(1)))
        return self.last(F.relu(self.third(F.relu(self.second(x)))))


class Rings:
    """Points in two rings, as a map-style dataset."""

    classes = ["inner", "outer"]

    def __init__(self, rows=300):
        angle = np.random.uniform(0, 6.28, rows)
        self.y = np.arange(rows) % 2
        radius = 1 + self.y + np.random.normal(0, 0.1, rows)
        self.x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


class Numbers(Rings):
    """The same points with a number to predict."""

    def __getitem__(self, index):
        return torch.tensor(self.x[index]), 100 + 10 * float(self.x[index][0])


class Blocks:
    """Rows as ours are: a whole batch at once, of any shape."""

    shape, labels = (2, 3), ["even", "odd"]

    def __len__(self):
        return 200

    def batch(self, indices):
        index = torch.as_tensor(indices)
        y = index % 2
        return (y[:, None, None] + torch.arange(6.0).view(1, 2, 3) * 0.01).float(), y


class Tokens:
    """Whole numbers, which an embedding wants as they are."""

    classes = ["a", "b", "c"]

    def __len__(self):
        return 300

    def __getitem__(self, index):
        return np.array([index % 3, 3, 4]), index % 3


class Bag(nn.Module):
    def __init__(self, outputs, vocabulary=5):
        super().__init__()
        self.table, self.last = nn.Embedding(vocabulary, 8), nn.Linear(8, outputs)

    def forward(self, x):
        return self.last(self.table(x).mean(dim=1))


def focal(output, target, gamma=2.0):
    p = torch.softmax(output, dim=1).gather(1, target[:, None]).squeeze(1)
    return (-((1 - p) ** gamma) * p.clamp(min=1e-9).log()).mean()


class Weighted(nn.Module):
    """A loss with a buffer that changes from step to step."""

    def __init__(self, momentum=0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("scale", torch.ones(()))

    def forward(self, output, target):
        loss = F.cross_entropy(output, target)
        if output.requires_grad:
            self.scale.mul_(self.momentum).add_((1 - self.momentum) * loss.detach())
        return loss / self.scale.clone()


class Kappa(Metric):
    """Cohen's kappa."""

    name, higher_is_better = "kappa", True

    def __init__(self, outputs):
        super().__init__()
        self.add_state("table", torch.zeros(outputs, outputs, dtype=torch.float64))
        self.outputs = outputs

    def update(self, output, target):
        cells = target * self.outputs + output.argmax(dim=1)
        table = torch.bincount(cells, minlength=self.outputs**2).double()
        self.add("table", table.view(self.outputs, self.outputs))

    def compute(self):
        table = self["table"] / self["table"].sum()
        expected = float((table.sum(0) * table.sum(1)).sum())
        return (float(table.diagonal().sum()) - expected) / (1 - expected)


def top2(output, target, k=2):
    return (output.topk(k, dim=1).indices == target[:, None]).any(dim=1).double().mean()


top2.higher_is_better = True


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "calls": 0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["calls"] += 1
            b1, b2 = group["betas"]
            for p in group["params"]:
                moment = self.state[p].setdefault("moment", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * (1 + 1 / group["calls"]) * torch.sign(b1 * moment + (1 - b1) * p.grad))
                moment.mul_(b2).add_(p.grad, alpha=1 - b2)


class Sawtooth:
    """Remembers how often the metric got no better."""

    def __init__(self, total_steps, teeth=4):
        self.length, self.worse, self.best = max(1, total_steps // teeth), 0, None

    def __call__(self, step):
        return (1 - (step % self.length) / self.length) * 0.5**self.worse

    def validated(self, metrics):
        if self.best is not None and metrics["val/loss"] >= self.best:
            self.worse += 1
        self.best = min(metrics["val/loss"], self.best or 1e9)

    def state_dict(self):
        return {"worse": self.worse, "best": self.best}

    def load_state_dict(self, state):
        self.worse, self.best = state["worse"], state["best"]


def halving(step, every=50):
    return 0.5 ** (step // every)
'''
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
    (tmp_path / "own_parts.py").write_text(OWN)
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


def test_functions_are_losses_and_schedules(root: Path) -> None:
    task = {"name": "classification", "numClasses": 10, "loss": {"class": "own_parts:focal", "args": {"gamma": 1.0}}}
    schedule = {"class": "own_parts:halving", "args": {"every": 20}}
    job = small_job({"spec.training.task": task, "spec.training.schedule": schedule})
    assert train(job, root).test_metrics["test/accuracy"] > 0.4
    assert [line["train/lr"] for line in lines(job, root) if "train/lr" in line][-2:] == pytest.approx(
        [0.001 * 0.5**4] * 2, rel=1e-6
    )


# -- what is wrong with them ------------------------------------------------------------------------------------------
WRONG = """
import torch
from torch import nn
from torch.nn import functional as F


class Flat(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.layer = nn.Linear(64, outputs)

    def forward(self, x):
        return self.shape_of(self.layer(x.flatten(1)))

    def shape_of(self, output):
        return output[:, :3]


class Pair(Flat):
    def shape_of(self, output):
        return output, output


class Detached(Flat):
    def shape_of(self, output):
        return output.detach()


class Misfit(Flat):
    def forward(self, x):
        return self.layer(x.flatten(1)[:, :10])


class InPlace(Flat):
    def shape_of(self, output):
        hidden = torch.exp(output)
        hidden.mul_(2)
        return hidden


class Unused(Flat):
    def __init__(self, outputs):
        super().__init__(outputs)
        self.other = nn.Linear(3, 3)

    def shape_of(self, output):
        return output


class Extra(Flat):
    def get_extra_state(self):
        return {"a": 1}

    def set_extra_state(self, state):
        pass


class Empty(nn.Module):
    def forward(self, x):
        return x


def no_module(outputs):
    return lambda x: x


def per_row(output, target):
    return F.cross_entropy(output, target, reduction="none")


class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, output, target):
        return F.cross_entropy(output * self.temperature, target)


def undirected(output, target):
    return 0.0


class NoMetric:
    higher_is_better = True


class Closure(torch.optim.SGD):
    def step(self, closure):
        closure()


class Bad:
    classes = ["a", "b"]
    kind = ""

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 0 if self.kind == "empty" else 90

    def __getitem__(self, index):
        x = torch.randn(4)
        return {
            "shape": (torch.randn(5) if index == 17 else x, 0), "class": (x, 7), "fraction": (x, 0.5),
            "single": x, "word": (x, "cat"), "words": (["a", "b"], 0), "raises": (x, 0),
        }[self.kind] if not (self.kind == "raises" and index == 17) else [][index]


class Stream:
    def __iter__(self):
        return iter([])
"""


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    (tmp_path / "wrong_parts.py").write_text(WRONG)
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
        ({"spec.training.data": {"class": "wrong_parts:Stream", "batchSize": 10}}, ConfigurationError,
         "an iterable dataset has no position to resume from"),
    ],
)  # fmt: skip
def test_own_parts_mistakes_are_named_and_never_retried(
    wrong: Path, changes: Changes, kind: type[BaseException], expected: str
) -> None:
    import re

    raised, message, failure = failing(wrong, changes)
    assert issubclass(raised, kind), message
    assert re.search(expected, message), message
    own = {ConfigurationError: FailureClass.INVALID_CONFIGURATION, DataError: FailureClass.DATA_ERROR}
    assert failure == own.get(kind, FailureClass.USER_CODE_ERROR)  # type: ignore[call-overload]


def test_unused_parameters_are_a_user_error(wrong: Path) -> None:
    """DDP says it in its forward, and no frame of the user's is there."""
    job = small_job({"spec.training.loop": {"duration": "1ep", "seed": 0}}, model("Unused"))
    with pytest.raises(Exception, match="UserCodeError"):
        train_ranks_classed(job, wrong)


def train_ranks_classed(job: TrainingJob, root: Path) -> None:
    from tests.unit.trainer.harness import spawn

    spawn(2, _classed, job, root)


def _classed(rank: int, world_size: int, job: TrainingJob, root: Path) -> None:
    from tests.unit.trainer.harness import _fit_rank

    try:
        _fit_rank(rank, world_size, job, root, 1, None)
    except TrainingError:
        raise
    except Exception as error:
        raise RuntimeError(str(rank_error(error, rank, "").failure_class)) from error
