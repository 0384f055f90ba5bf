"""Scaling by the train split alone, and the sets that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.errors import DataError

from tests.unit.trainer.harness import small_job

NUMBER = {"name": "regression"}


def classes(count: int) -> dict[str, object]:
    return {"name": "classification", "numClasses": count}


def load(root: Path, task: dict[str, object], constant: bool = False) -> Prepared:
    dice = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"age": dice.integers(18, 80, 40), "size": dice.normal(5, 2, 40), "kind": dice.choice([*"bac"], 40)}
    )
    frame = frame.assign(age=3) if constant else frame
    frame.to_csv(root / "rows.csv", index=False)
    target = "size" if task is NUMBER else "kind"
    data = {"source": "rows.csv", "target": target, "batchSize": 8}
    # a constant column is left out unless it is asked for
    data["features"] = ["age"] if task is NUMBER else ["age", "size"] if constant else None
    return load_data(small_job({"spec.training.data": data, "spec.training.task": task}), root, {})


def test_the_train_split_alone_is_measured(tmp_path: Path) -> None:
    found = load(tmp_path, classes(3))
    x, _ = found.batch(found.train)
    torch.testing.assert_close(x.mean(dim=0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(x.std(dim=0, correction=0), torch.ones(2), atol=1e-6, rtol=0)


def test_a_regression_target_is_scaled_by_the_train_split_too(tmp_path: Path) -> None:
    found = load(tmp_path, NUMBER)
    _, y = found.batch(found.train)
    assert abs(float(y.mean())) < 1e-6
    assert float(y.std(correction=0)) == pytest.approx(1, abs=1e-6)


def test_a_constant_column_stays_finite(tmp_path: Path) -> None:
    found = load(tmp_path, classes(3), constant=True)
    x, _ = found.batch(found.train)
    assert torch.equal(x[:, 0], torch.zeros(len(x)))


def test_more_classes_than_the_task_has(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has 3 classes \(a, b, c\) but task\.numClasses is 2; set .* to 3"):
        load(tmp_path, classes(2))


def test_digits_are_those_of_scikit_learn() -> None:
    """We read the file inside the package; should it change, this fails first."""
    from sklearn.datasets import load_digits

    found, theirs = load_data(small_job(), Path(), {}), load_digits()
    x, y = found.rows.batch(np.arange(1797))
    assert np.array_equal(x.squeeze(1).numpy(), theirs.images.astype(np.float32))
    assert np.array_equal(y.numpy(), theirs.target)
    assert found.rows.labels == [str(name) for name in theirs.target_names]


@pytest.mark.parametrize(
    ("name", "rows", "features", "count"),
    [("iris", 150, 4, 3), ("wine", 178, 13, 3), ("breast_cancer", 569, 30, 2), ("diabetes", 442, 10, 0)],
)
def test_the_other_sets_of_scikit_learn(name: str, rows: int, features: int, count: int) -> None:
    data = {"source": f"sklearn:{name}", "batchSize": 8}
    found = load_data(
        small_job({"spec.training.data": data, "spec.training.task": classes(count) if count else NUMBER}), Path(), {}
    )
    assert len(found.rows) == rows
    assert found.rows.shape == (features,)
    assert len(found.rows.labels) == count
    assert len(found.rows.features) == features


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pictures" / "cat").mkdir(parents=True)
    for number in range(40):
        Image.new("L", (8, 8), number).save(tmp_path / "pictures" / "cat" / f"{number}.png")
    job = small_job({"spec.training.task": {"name": "classification"}, "spec.training.data.source": "images:pictures"})
    with pytest.raises(DataError, match=r"images:pictures has one class only, 'cat': there is nothing to predict"):
        load_data(job, tmp_path, {})


def test_classes_that_look_alike_are_a_warning(tmp_path: Path) -> None:
    lines = [f"{i % 9},{('yes', 'Yes', 'no')[i % 3]}" for i in range(120)]
    (tmp_path / "t.csv").write_text("\n".join(["a,y", *lines]))
    task = {"name": "classification"}
    asked = {"source": "t.csv", "target": "y", "batchSize": 16}
    data = load_data(small_job({"spec.training.task": task, "spec.training.data": asked}), tmp_path, {})
    assert [each for each in data.warnings if each.startswith("classes 'Yes', 'yes' differ in case")]
