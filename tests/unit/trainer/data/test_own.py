"""Rows of the user's own dataset: names of classes, and what a sample and a target may be."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainmaster_api.spec.data import DATA_CALL
from trainmaster_api.spec.task import Task
from trainmaster_api.spec.training import Training
from trainmaster_trainer.data.own import DatasetRows, rows_of
from trainmaster_trainer.data.prepared import prepare
from trainmaster_trainer.errors import ConfigurationError, DataError
from trainmaster_trainer.models import build_model
from trainmaster_trainer.references import call, resolve, use_folder
from trainmaster_trainer.sample import Inputs

CLASSES = Task.model_validate({"name": "classification", "numClasses": 3})
NUMBERS = Task.model_validate({"name": "regression"})


class Named(list[Any]):
    classes = ["cat", 7]


def rows(dataset: Any, task: Task = CLASSES) -> DatasetRows:
    return DatasetRows(dataset, "pkg:Rows", task)


def tensor(found: tuple[Any, torch.Tensor]) -> torch.Tensor:
    """The samples of a batch that are one tensor."""
    assert isinstance(found[0], torch.Tensor)
    return found[0]


def trained(found: Any, indices: Any, seed: int, round_number: int) -> tuple[Any, torch.Tensor]:
    """The rows as training has them in a round."""
    return found.training_batch(indices, np.full(len(indices), round_number), seed)  # type: ignore[no-any-return]


def only(sample: Any, target: Any, task: Task = CLASSES) -> tuple[torch.Tensor, Any]:
    x, y = rows([(sample, target)], task).batch(np.array([0]))
    assert isinstance(x, torch.Tensor)
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
    assert isinstance(x, torch.Tensor)
    assert x.tolist() == [[2.0], [0.0], [2.0]]
    assert (y.tolist(), y.dtype) == ([2, 0, 2], torch.int64)
    assert rows([([0.0], 1)], NUMBERS).batch(np.array([0]))[1].dtype == torch.float64


# -- a class with `batch` ---------------------------------------------------------------------------------------------
BLOCKS = """
import numpy as np, torch
class Blocks:
    shape = (2,)
    def __init__(self, base_dir, rows=6, **attributes):
        self.base_dir, self.rows = base_dir, rows
        for name, value in attributes.items():
            setattr(self, name, value)
    def __len__(self):
        return self.rows
    def batch(self, indices):
        return torch.rand(len(indices), 2), torch.from_numpy(indices) % 3
"""


def blocks(folder: Path, **args: Any) -> Any:
    (folder / "own_blocks.py").write_text(BLOCKS)
    use_folder(folder)
    target = resolve("own_blocks:Blocks", "data.class")
    return rows_of(call(target, "data", DATA_CALL, args, offered={"base_dir": folder}), "own_blocks:Blocks", CLASSES)


def test_batches_of_the_users_get_what_they_leave_out(tmp_path: Path) -> None:
    for args, labels in (({}, ["0", "1", "2"]), ({"labels": ["a", "b", "c"]}, ["a", "b", "c"])):
        found = blocks(tmp_path, **args)
        assert (found.labels, found.features, found.dataset.base_dir) == (labels, [], tmp_path)


def test_batches_of_the_users_are_checked(tmp_path: Path) -> None:
    found = blocks(tmp_path, shape=[3])
    with pytest.raises(DataError, match=r"samples of shape \[2\] for rows 0 \.\. 1; `shape` is \[3\]"):
        found.batch(np.array([0, 1]))
    found = blocks(tmp_path, labels=["a", "b"])
    with pytest.raises(DataError, match=r"row 2 has class 2; expected 0 \.\. 1 .*; row 5 has class 2"):
        found.batch(np.arange(6))


def test_batches_of_the_users_draw_by_their_first_row(tmp_path: Path) -> None:
    found, indices = blocks(tmp_path), np.array([4, 1])
    first = trained(found, indices, 3, 1)[0]
    torch.rand(7)
    assert torch.equal(trained(found, indices, 3, 1)[0], first)
    assert not torch.equal(trained(found, indices, 3, 2)[0], first)
    assert not torch.equal(trained(found, np.array([1, 4]), 3, 1)[0], first)


# -- draws ------------------------------------------------------------------------------------------------------------
class Drawing:
    """A row is its number and a draw of each RNG, as many as it likes."""

    classes = ["a", "b"]

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[list[float], int]:
        draws = [float(torch.rand(1 + index % 3).sum()), float(np.random.random()), random.random()]
        np.random.random(index)  # the next row's draws don't depend on how much this one has drawn
        return [float(index), *draws], index % 2


@given(
    order=st.permutations(range(24)),
    cuts=st.lists(st.integers(1, 23), max_size=5),
    seed=st.integers(0, 2**31 - 1),
    epoch=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_draws_of_a_row_know_nothing_of_its_batch(order: list[int], cuts: list[int], seed: int, epoch: int) -> None:
    """However an epoch is cut into batches, and whatever was drawn before, a row is the same."""
    found = rows(Drawing())
    whole = tensor(trained(found, np.arange(24), seed, epoch))
    parts = [part for part in np.split(np.array(order), sorted(set(cuts))) if len(part)]
    torch.rand(len(cuts))
    assert torch.equal(torch.cat([tensor(trained(found, part, seed, epoch)) for part in parts]), whole[order])
    assert len(torch.unique(whole[:, 1:])) > 60, "each row and each generator draws other numbers"
    assert not torch.equal(tensor(trained(found, np.arange(24), seed, epoch + 1)), whole)
    assert not torch.equal(tensor(trained(found, np.arange(24), seed + 1, epoch)), whole)


def test_draws_of_a_row_that_is_not_trained_on_are_always_the_same() -> None:
    found, indices = rows(Drawing()), np.arange(24)
    first = tensor(found.batch(indices))
    torch.rand(3)
    assert torch.equal(torch.cat([tensor(found.batch(indices[:5])), tensor(found.batch(indices[5:]))]), first)
    assert not torch.equal(tensor(trained(found, indices, 0, 0)), first)


def test_draws_of_rows_leave_the_generators_as_they_were() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state(), str(np.random.get_state(legacy=False)), random.getstate()
    trained(rows(Drawing()), np.arange(24), 0, 0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (str(np.random.get_state(legacy=False)), random.getstate()) == before[1:]


def test_rows_of_a_batch_have_rounds_of_their_own() -> None:
    found, indices = rows(Drawing()), np.array([5, 5, 7])
    first, second, other = tensor(found.training_batch(indices, np.array([4, 5, 4]), 3))
    assert not (first[1:] == second[1:]).any()
    for one, round_number in ((first, 4), (second, 5)):
        assert torch.equal(tensor(trained(found, indices[:1], 3, round_number))[0], one)
    assert torch.equal(tensor(trained(found, indices[2:], 3, 4))[0], other)


# -- several tensors, and collate -------------------------------------------------------------------------------------
class Words(list[Any]):
    """Sequences of different lengths."""

    classes = ["a", "b"]

    def collate(self, pairs: list[Any]) -> Any:
        lengths = torch.tensor([len(words) for words, _ in pairs])
        padded = torch.zeros(len(pairs), int(lengths.max()), dtype=torch.int64)
        for at, (words, _) in enumerate(pairs):
            padded[at, : len(words)] = torch.tensor(words)
        return {"tokens": padded, "lengths": lengths}, torch.tensor([target for _, target in pairs])


def test_collate_makes_the_batch() -> None:
    found = rows(Words([([1, 2, 3], 0), ([4], 1), ([5, 6], 1)]))
    x, y = found.batch(np.array([2, 1]))
    assert isinstance(x, dict)
    assert (x["tokens"].tolist(), x["lengths"].tolist(), y.tolist()) == ([[5, 6], [4, 0]], [2, 1], [1, 1])
    assert (found.shape, found.notes) == ((), ("samples are collated by the dataset and not scaled",))


def test_collate_of_one_shape_may_declare_it() -> None:
    data = Words([([1.0, 2.0], 0), ([3.0, 4.0], 1)])
    data.shape = (2,)  # type: ignore[attr-defined]
    data.collate = lambda pairs: (torch.tensor([x for x, _ in pairs]), torch.tensor([y for _, y in pairs]))  # type: ignore[method-assign]
    assert rows(data).shape == (2,)
    data.shape = (3,)  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"collate returned samples of shape \[2\] for row 0; `shape` is \[3\]"):
        rows(data)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, r"collate returned a NoneType for row 0; expected \(samples, targets\)"),
        ((torch.zeros(1, 2), torch.zeros(1), 3), r"collate returned a tuple for row 0"),
        (([torch.zeros(1, 2)], torch.tensor([1])), r"samples that can't be used \(a list\) for row 0"),
        (({"a b": torch.zeros(1, 2)}, torch.tensor([1])), r"the keys of a dict are the names of the model's arguments"),
        ((torch.zeros(2, 2), torch.tensor([1])), r"collate returned 2 samples for 1 rows \(row 0\)"),
        ((torch.zeros(1, 2), [1]), r"targets that are a list for row 0; expected a tensor"),
        ((torch.zeros(1, 2), torch.tensor([[1]])), r"targets of shape \[1, 1\] for 1 rows \(row 0\); expected \[1\]"),
        ((torch.zeros(1, 2), torch.tensor([2])), r"row 0 has class 2; expected 0 \.\. 1"),
        ((torch.zeros(1, 2), torch.tensor([0.5])), r"row 0 has class 0.5; expected 0 \.\. 1"),
        ((torch.zeros(1, 2), torch.tensor([1j])), r"targets of type torch.complex64"),
        ((torch.zeros(1, 2, dtype=torch.complex64), torch.tensor([1])), r"torch.complex64 is no type of a sample"),
    ],
)
def test_collate_that_returns_something_else_is_refused(result: Any, message: str) -> None:
    data = Words([([1], 0)])
    data.collate = lambda pairs: result  # type: ignore[method-assign]
    with pytest.raises(DataError, match=message):
        rows(data)


def test_collate_that_is_no_function_is_refused() -> None:
    data = Words([([1], 0)])
    data.collate = True  # type: ignore[method-assign, assignment]
    with pytest.raises(ConfigurationError, match=r"`collate` is a bool; expected a function of a list of"):
        rows(data)


def test_samples_may_be_several_tensors() -> None:
    several = [((np.array([index]), torch.ones(2, 2) * index), index) for index in range(3)]
    x, _ = rows(several).batch(np.array([2, 0]))
    assert isinstance(x, tuple)
    assert (x[0].tolist(), x[1][:, 0, 0].tolist(), rows(several).shape) == ([[2], [0]], [2.0, 0.0], ())
    assert rows(several).notes == ("a sample is 2 tensors, which are not scaled",)
    named = [({"a": [float(index)], "b": np.bool_(index)}, index) for index in range(3)]
    x, _ = rows(named).batch(np.array([1, 0]))
    assert isinstance(x, dict)
    assert (x["a"].tolist(), x["b"].tolist(), x["b"].dtype) == ([[1.0], [0.0]], [True, False], torch.bool)
    assert rows(named).notes == ("a sample is several tensors (a, b), which are not scaled",)


def test_samples_of_another_kind_are_refused_by_their_rows() -> None:
    data = [([0.0, 1.0], 0), ([0.0], 0), (3.0, 0), ({"a": [1]}, 0), (1,), ([1.0, 2.0], 9), (["x"], 0)]
    with pytest.raises(DataError) as caught:
        rows(data).batch(np.arange(7))
    said = str(caught.value).removeprefix("data.class pkg:Rows: ").split("; row ")
    assert len(said) == 5, "the sentences of rows 1, 3, 4, 5, 6; that of row 2 begins with its sample"
    assert "row 1 has shape [1] and row 0 [2]; all rows must have the same shape" in said[0]
    assert "the sample of row 2 is a single number; expected an array, such as [3]" in said[0]
    assert said[1].startswith("3 has shape a [1] and row 0 [2]")
    assert said[2].startswith("4 is a tuple; expected a pair")
    assert said[3].startswith("5 has class 9; expected 0 .. 2")
    assert said[4].startswith("6 can't be converted to a tensor and a number")


def test_sample_that_is_not_finite_is_refused() -> None:
    data = [([1.0], 0), ([float("nan")], 1), ([float("-inf")], 1)]
    with pytest.raises(DataError, match=r"sample of row 1 has a value that isn't finite; the sample of row 2 has"):
        rows(data).batch(np.arange(3))
    assert tensor(rows([([3e38], 0), ([3e38], 0)]).batch(np.arange(2))).tolist() == [[pytest.approx(3e38)]] * 2


def test_flipped_and_unsigned_arrays_are_samples() -> None:
    assert only(np.arange(3.0)[::-1], 0)[0].tolist() == [2.0, 1.0, 0.0]
    assert only(np.array([40_000], dtype=np.uint16), 0)[0].tolist() == [40_000]


# -- attributes -------------------------------------------------------------------------------------------------------
class With(list[Any]):
    def __init__(self, pairs: list[Any], **attributes: Any) -> None:
        super().__init__(pairs)
        for name, value in attributes.items():
            setattr(self, name, value)


PAIRS = [([0.0], 0), ([1.0], 2), ([2.0], 1)]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"classes": "abc"}, r"`classes` is text; expected a list of the classes' names"),
        ({"classes": 3}, r"`classes` is a int; expected a list"),
        ({"classes": ["a", "b", "a"]}, r"`classes` has a name twice: a$"),
        ({"fingerprint": b"x"}, r"`fingerprint` is a bytes; expected text"),
        ({"fingerprint": lambda: "x"}, r"`fingerprint` is a method \(make it a property\)"),
        ({"vocabulary": 0}, r"`vocabulary` is 0; expected the number of tokens"),
        ({"vocabulary": ["a"]}, r"`vocabulary` is a list"),
        ({"targets": [0, 1]}, r"`targets` has shape \[2\] and the dataset 3 rows"),
        ({"targets": ["a", "b", "c"]}, r"`targets` has values of type <U1"),
        ({"targets": [0, 1, 3]}, r"`targets`: row 2 has 3; expected 0 \.\. 2"),
        ({"targets": [0, float("nan"), 1]}, r"`targets`: row 1 has nan; expected 0 \.\. 2"),
        ({"weights": [1, -1, float("inf")]}, r"`weights`: row 1 has -1.0; row 2 has inf; expected finite numbers"),
        ({"weights": [0, 0, 0]}, r"`weights` are all 0"),
        ({"weights": lambda: [1]}, r"`weights` is a method"),
    ],
)
def test_attribute_that_cannot_be_used_is_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigurationError, DataError), match=message):
        rows(With(PAIRS, **attributes))


def test_attributes_are_taken() -> None:
    found = rows(With(PAIRS, targets=torch.tensor([0, 2, 1]), weights=[1, 2, 0.5], vocabulary=np.int64(7)))
    assert found.row_classes is not None
    assert found.row_classes.tolist() == [0, 2, 1]
    assert found.weights is not None
    assert (found.weights.tolist(), found.weights.dtype, found.vocabulary) == ([1, 2, 0.5], torch.float32, 7)
    assert rows(With(PAIRS, targets=[0.0, 2.0, 1.0]), NUMBERS).row_classes is None


def test_targets_that_differ_from_the_rows_are_refused() -> None:
    found = rows(With(PAIRS, targets=[0, 1, 1]))
    assert found.batch(np.array([0, 2]))[1].tolist() == [0, 1]
    with pytest.raises(DataError, match=r"`targets` differ from the rows: row 1 has target 2 and 1 there$"):
        found.batch(np.arange(3))


def test_tokens_beyond_the_vocabulary_are_refused() -> None:
    data = With([([0, 4], 0), ([5, 1], 0), ([-1, 2], 0)], vocabulary=5)
    with pytest.raises(DataError, match=r"row 1 has tokens 1 \.\. 5, expected 0 \.\. 4; row 2 has tokens -1 \.\. 2"):
        rows(data).batch(np.arange(3))


def test_targets_make_stratified_splits_and_balanced_draws_possible() -> None:
    kinds = [0] * 70 + [1] * 20 + [2] * 10
    data = With([([float(row)], kind) for row, kind in enumerate(kinds)], targets=kinds)
    training = Training.model_validate(
        {
            "task": {"name": "classification", "numClasses": 3},
            "data": {"class": "pkg:Rows", "batchSize": 10, "sampling": "balanced"},
            "model": {"name": "mlp"},
        }
    )
    found = prepare(rows(data), training)
    parts = [np.bincount(np.array(kinds)[part], minlength=3).tolist() for part in (found.train, found.validation)]
    assert parts == [[56, 16, 8], [7, 2, 1]]
    assert np.bincount(found.train_classes).tolist() == [56, 16, 8]  # type: ignore[arg-type]


def test_targets_of_a_regression_are_measured_over_all_rows() -> None:
    values = np.random.default_rng(0).normal(5, 2, 1000)
    data = With([([0.0], value) for value in values], targets=values)
    training = Training.model_validate(
        {"task": {"name": "regression"}, "data": {"class": "pkg:Rows", "batchSize": 10}, "model": {"name": "mlp"}}
    )
    found = prepare(rows(data, NUMBERS), training)
    assert found.target_mean == pytest.approx(values[found.train].mean(), rel=1e-12)
    assert found.target_std == pytest.approx(values[found.train].std(), rel=1e-12)


@pytest.mark.parametrize("model", ["mlp", "cnn", "vit"])
def test_built_in_model_of_samples_without_a_shape_is_refused(model: str) -> None:
    part = Training.model_validate({"task": {"name": "classification"}, "data": {"class": "pkg:Rows"},
                                    "model": {"name": model}}).model  # fmt: skip
    with pytest.raises(ConfigurationError, match=rf"^model.name {model} needs samples that are one tensor of a known"):
        build_model(part, Inputs(()), 3)
