"""The split that was asked for, its default, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainmaster_api.spec.data import Split
from trainmaster_trainer.data.division import Division, Keys, divide
from trainmaster_trainer.data.order import split_rows
from trainmaster_trainer.data.prepared import prepare
from trainmaster_trainer.data.rows import TensorRows
from trainmaster_trainer.errors import ConfigurationError, DataError

from tests.unit.trainer.harness import small_job

HALF = {"train": 0.5, "validation": 0.25, "test": 0.25}


def counts(found: Division) -> list[int]:
    return [len(part) for part in found.parts]


@settings(deadline=None)
@given(
    st.sampled_from(["random", "stratified", "group", "time", "column"]),
    st.integers(12, 200),
    st.integers(0, 2**31 - 1),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_every_row_is_in_one_split(by: Any, rows: int, seed: int, validation: int, test: int) -> None:
    dice = np.random.default_rng(rows)
    if by == "column":
        validation = test = 0
    keys = Keys(
        rows + validation + test,
        dice.integers(0, 3, rows + validation + test),
        values=np.arange(rows + validation + test) % 3
        if by == "column"
        else dice.permutation(rows + validation + test),
        words=("train", "val", "test"),
        validation_rows=validation,
        test_rows=test,
    )
    found = divide(Split(by=by, seed=seed), keys)
    assert sorted(np.concatenate(found.parts).tolist()) == list(range(keys.rows))
    again = divide(Split(by=by, seed=seed), keys)
    assert all(np.array_equal(a, b) for a, b in zip(found.parts, again.parts, strict=True))
    assert found.by == ("sources" if validation and test else by)
    assert all(part.dtype == np.int64 for part in found.parts)
    if validation:
        assert sorted(found.validation.tolist()) == list(range(rows, rows + validation))
    if test:
        assert sorted(found.test.tolist()) == list(range(rows + validation, rows + validation + test))


def test_the_default_without_classes_is_the_random_split() -> None:
    found = divide(Split(seed=3), Keys(101))
    assert all(np.array_equal(a, b) for a, b in zip(found.parts, split_rows(101, 0.8, 0.1, 3), strict=True))
    assert found.said == ("split at random: train 81 rows (80.2% of 80.0% asked), validation 10 rows "
                          "(9.9%), test 10 rows (9.9%)",)  # fmt: skip
    assert not found.warnings


def test_the_default_is_stratified_where_the_smallest_class_has_a_row_for_each_split() -> None:
    found = divide(Split(), Keys(60, np.repeat([0, 1], [50, 10])))
    assert found.by == "stratified"
    assert counts(found) == [48, 6, 6]
    assert not found.warnings
    assert divide(Split(**HALF), Keys(54, np.repeat([0, 1], [50, 4]))).by == "stratified"


def test_the_default_is_random_for_a_smaller_class_and_warns() -> None:
    found = divide(Split(), Keys(59, np.repeat([0, 1], [50, 9]), ("common", "rare")))
    assert found.by == "random"
    assert all(np.array_equal(a, b) for a, b in zip(found.parts, split_rows(59, 0.8, 0.1, 0), strict=True))
    (warning,) = found.warnings
    assert "class `rare` has 9 rows, and each class needs 10" in warning
    assert "set data.split.by: stratified" in warning
    assert found.said[-1] == warning
    assert not divide(Split(by="random"), Keys(59, np.repeat([0, 1], [50, 9]))).warnings


def test_stratified_names_classes_without_a_row_for_every_split() -> None:
    found = divide(Split(by="stratified"), Keys(53, np.repeat([0, 1, 2], [50, 2, 1]), ("a", "b", "c")))
    assert found.warnings == ("classes with too few rows for every split: `b` (2 rows), `c` (1 row); add rows of them",)


def test_stratified_far_from_its_shares_warns() -> None:
    found = divide(Split(by="stratified"), Keys(120, np.repeat(np.arange(40), 3)))
    assert counts(found) == [40, 40, 40]
    assert "train 33.3% instead of 80.0%" in found.warnings[0]


def test_a_group_of_most_rows_warns() -> None:
    keys = Keys(100, values=np.repeat([0, 1, 2, 3], [94, 2, 2, 2]))
    found = divide(Split(by="group", column="store"), keys)
    assert counts(found) == [94, 4, 2] or counts(found) == [94, 2, 4]
    assert "train 94.0% instead of 80.0%" in found.warnings[0]
    assert any(sentence.startswith("groups: train 1, validation") for sentence in found.said)


def test_times_at_the_borders_are_said() -> None:
    days = np.datetime64("2024-01-01T06:00") + np.arange(10) * np.timedelta64(1, "D")
    found = divide(Split(by="time", column="day"), Keys(10, values=days[::-1]))
    assert sorted(found.test.tolist()) == [0]
    assert sorted(found.validation.tolist()) == [1]
    assert (
        "times: train from 2024-01-01 06:00:00 to 2024-01-08 06:00:00, validation from 2024-01-09 06:00:00 to "
        "2024-01-09 06:00:00, test from 2024-01-10 06:00:00 to 2024-01-10 06:00:00; rows of one time are in one split"
    ) in found.said


@pytest.mark.parametrize("bad", [np.array([1.0, 2, np.nan, 4]), np.array(["2020-01-01", "2020-01-02", "NaT"], "M8[D]")])
def test_a_time_that_is_none_is_refused(bad: np.ndarray[Any, Any]) -> None:
    with pytest.raises(DataError, match=r"row 3, column day: (nan|NaT) is no time"):
        divide(Split(by="time", column="day"), Keys(len(bad), values=bad))


def test_sources_of_their_own_leave_their_share_to_the_others() -> None:
    found = divide(Split(), Keys(100, validation_rows=10))
    assert counts(found) == [80, 10, 10]  # 90 rows by 0.8 : 0.1
    assert found.said[-1] == "the validation split is data.validationSource: 10 rows"
    assert counts(divide(Split(), Keys(100, validation_rows=10, test_rows=5))) == [85, 10, 5]
    classes = np.zeros(100, np.int64)
    classes[95:] = 1  # of the test source alone: it can't be divided and isn't asked to be
    assert divide(Split(), Keys(100, classes, test_rows=5)).by == "stratified"


@pytest.mark.parametrize(
    ("by", "words"), [("group", "needs a column"), ("time", "needs a column"), ("stratified", "needs the class")]
)
def test_what_a_source_lacks_is_refused(by: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        divide(Split(by=by), Keys(50))


def rows(target: torch.Tensor) -> TensorRows:
    return TensorRows(
        torch.randn(len(target), 2), target, ["a", "b"] if not target.is_floating_point() else [], ["x", "y"]
    )


def test_prepared_rows_are_stratified_for_classes_alone() -> None:
    classes = torch.arange(200) % 10 // 9  # one of ten
    found = prepare(rows(classes), small_job().spec.training)
    assert [int(classes[part].sum()) for part in (found.train, found.validation, found.test)] == [16, 2, 2]
    assert found.train_classes is None
    job = small_job({"spec.training.task": {"name": "regression"}, "spec.training.data.source": "sklearn:diabetes"})
    found = prepare(rows(torch.randn(200)), job.spec.training)
    for part, expected in zip((found.train, found.validation, found.test), split_rows(200, 0.8, 0.1, 0), strict=True):
        assert np.array_equal(part, expected)


def test_prepared_rows_know_their_classes_for_balanced_sampling() -> None:
    classes = torch.arange(200) % 10 // 9
    found = prepare(rows(classes), small_job({"spec.training.data.sampling": "balanced"}).spec.training)
    assert found.train_classes is not None
    assert np.array_equal(found.train_classes, classes.numpy()[found.train])


def test_what_only_tables_can_do_is_refused_elsewhere() -> None:
    job = small_job({"spec.training.data.dedupe": True})
    with pytest.raises(ConfigurationError, match=r"data\.dedupe is for tables"):
        prepare(rows(torch.arange(200) % 2), job.spec.training)


def test_a_column_without_a_split_is_refused(tmp_path: Path) -> None:
    division = divide(Split(by="column", column="part"), Keys(200, values=np.arange(200) % 2, words=("train", "val")))
    job = small_job({"spec.training.data.split": {"by": "column", "column": "part"}})
    with pytest.raises(ConfigurationError, match=r"data\.split\.test has no rows .*; column part must have rows of it"):
        prepare(rows(torch.arange(200) % 2), job.spec.training, division)
