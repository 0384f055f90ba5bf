"""Rows of the user's own dataset: names of classes, and what a sample and a target may be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.task import Task
from trainmaster_trainer.data.own import DatasetRows, own_rows
from trainmaster_trainer.errors import ConfigurationError, DataError
from trainmaster_trainer.references import use_folder

CLASSES = Task.model_validate({"name": "classification", "numClasses": 3})
NUMBERS = Task.model_validate({"name": "regression"})


class Named(list[Any]):
    classes = ["cat", 7]


def rows(dataset: Any, task: Task = CLASSES) -> DatasetRows:
    return DatasetRows(dataset, "pkg:Rows", task)


def only(sample: Any, target: Any, task: Task = CLASSES) -> tuple[torch.Tensor, Any]:
    x, y = rows([(sample, target)], task).batch(np.array([0]))
    return x[0], y.tolist()[0]


def test_classes_have_the_names_of_the_dataset() -> None:
    assert rows(Named([([0.0], 1)])).labels == ["cat", "7"]
    assert rows([([0.0], 1)]).labels == ["0", "1", "2"], "without names: their numbers"
    assert rows(Named([([0.0], 1.5)]), NUMBERS).labels == []


def test_classes_without_names_need_their_number() -> None:
    with pytest.raises(ConfigurationError, match=r"^task\.numClasses: pkg:Rows has no attribute `classes`"):
        rows([([0.0], 1)], Task.model_validate({"name": "classification"}))


@pytest.mark.parametrize(
    "target", [1, 1.0, True, np.int64(1), np.float32(1), np.array(1), torch.tensor(1), torch.tensor([1])]
)
def test_target_may_be_any_number(target: Any) -> None:
    assert only([0.0], target)[1] == 1
    assert only([0.0], target, NUMBERS)[1] == 1.0


@pytest.mark.parametrize("target", [3, -1, 0.5, 1e30])
def test_class_out_of_range_is_refused(target: Any) -> None:
    with pytest.raises(DataError, match=rf"row 0 has class {re.escape(str(target))}; expected 0 \.\. 2 \(task"):
        only([0.0], target)
    assert only([0.0], target, NUMBERS)[1] == torch.tensor(target, dtype=torch.float32), "a number has no range"


@pytest.mark.parametrize("target", [float("nan"), float("inf"), np.float32("-inf")])
def test_target_that_is_not_finite_is_refused(target: Any) -> None:
    with pytest.raises(DataError, match=rf"row 0 has class {target}; expected 0 \.\. 2"):
        only([0.0], target)
    with pytest.raises(DataError, match=rf"the target of row 0 is {target}; expected a finite number"):
        only([0.0], target, NUMBERS)


@pytest.mark.parametrize("target", [None, "cat", [1, 2]])
def test_target_that_is_no_number_is_refused(target: Any) -> None:
    with pytest.raises(DataError, match=r"the target of row 0 is a .*; expected a number, the class's index"):
        only([0.0], target)
    with pytest.raises(DataError, match=r"expected a number$"):
        only([0.0], target, NUMBERS)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("float64", "float32"), ("float32", "float32"), ("float16", "float32"), ("bool", "float32"),
        ("uint8", "float32"), ("int64", "int64"), ("int32", "int32"),
    ],
)  # fmt: skip
def test_samples_are_floats_unless_they_are_tokens(given: str, taken: str) -> None:
    for sample in (np.array([0, 1], dtype=given), torch.tensor([0, 1], dtype=getattr(torch, given))):
        found = only(sample, 0)[0]
        assert found.dtype == getattr(torch, taken)
        assert found.tolist() == [0, 1]


def test_batch_keeps_the_order_that_is_asked_for() -> None:
    x, y = rows([([float(index)], index) for index in range(3)]).batch(np.array([2, 0, 2]))
    assert x.tolist() == [[2.0], [0.0], [2.0]]
    assert (y.tolist(), y.dtype) == ([2, 0, 2], torch.int64)
    assert rows([([0.0], 1)], NUMBERS).batch(np.array([0]))[1].dtype == torch.float32


def test_batches_of_the_users_get_what_they_leave_out(tmp_path: Path) -> None:
    (tmp_path / "own_blocks.py").write_text(
        "class Blocks:\n    shape = (2,)\n    def __init__(self, base_dir, labels=None):\n"
        "        self.base_dir = base_dir\n        if labels:\n            self.labels = labels\n"
        "    def batch(self, indices):\n        return indices\n"
    )
    use_folder(tmp_path)
    for args, labels in (({}, []), ({"labels": ["a"]}, ["a"])):
        found: Any = own_rows(Data.model_validate({"class": "own_blocks:Blocks", "args": args}), CLASSES, tmp_path)
        assert (found.labels, found.features, found.base_dir) == (labels, [], tmp_path)
