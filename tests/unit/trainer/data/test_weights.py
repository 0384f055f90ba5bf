"""Weights of rows, from a column or a dataset to the loss."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.data.prepared import prepare
from trainmaster_trainer.data.rows import TensorRows
from trainmaster_trainer.errors import DataError
from trainmaster_trainer.export.package import load_package

from tests.unit.trainer.harness import run_store, small_job, train

ROWS = 80
ROLE = {"w": {"role": "weight"}}


def write(folder: Path, weights: list[Any]) -> None:
    dice = np.random.default_rng(1)
    a = dice.normal(0, 1, ROWS).round(3)
    y = np.where(a + dice.normal(0, 0.5, ROWS) > 0, "yes", "no")
    lines = ["a,w,y", *(f"{a[i]},{weights[i]},{y[i]}" for i in range(ROWS))]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")


def job(**data: Any) -> Any:
    asked = {"source": "rows.csv", "target": "y", "batchSize": 8, "columns": ROLE, **data}
    return small_job({"spec.training.data": asked, "spec.training.task": {"name": "classification"}})


def load(folder: Path, **data: Any) -> Prepared:
    return load_data(job(**data), folder, {})


def refused(folder: Path, weights: list[Any], **data: Any) -> str:
    write(folder, weights)
    with pytest.raises(DataError) as caught:
        load(folder, **data)
    return str(caught.value)


def test_weights_have_mean_1_over_train(tmp_path: Path) -> None:
    raw = np.random.default_rng(2).integers(1, 9, ROWS)
    write(tmp_path, raw.tolist())
    data = load(tmp_path)
    assert isinstance(data.rows, TensorRows)
    assert data.rows.weights is not None
    assert data.rows.weights.dtype == torch.float32
    assert data.rows.weights.numpy() == pytest.approx(raw / raw[data.train].mean(), rel=1e-6)
    assert data.rows.features == ["a"]  # no feature
    assert "weights the loss" in data.about()


def test_weights_are_those_of_the_rows_that_stay(tmp_path: Path) -> None:
    raw = list(range(1, ROWS + 1))
    write(tmp_path, raw)
    text = (tmp_path / "rows.csv").read_text().splitlines()
    text[5] = "," + text[5].partition(",")[2]  # the fifth row has no value of a
    (tmp_path / "rows.csv").write_text("\n".join(text) + "\n")
    data = load(tmp_path, missing="drop", dedupe=True)
    assert isinstance(data.rows, TensorRows)
    assert data.rows.weights is not None
    left = np.array([weight for weight in raw if weight != 5])
    assert data.rows.weights.numpy() == pytest.approx(left / left[data.train].mean(), rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({3: "-1", 7: "-0.5"}, "row 4, column w: -1.0 is negative, and a weight is 0 or more; row 8, column w: -0.5"),
        ({2: ""}, "row 3, column w: is empty"),
        ({2: "inf"}, "row 3, column w: inf is not a finite number"),
        (dict.fromkeys(range(ROWS), "0"), "'w' has the role weight and is 0 in every row"),
        ({2: "x"}, "is of type text .* and can't be weight, which takes integer, number"),
    ],
)
def test_weights_that_are_none_are_refused(tmp_path: Path, changes: dict[int, str], words: str) -> None:
    said = refused(tmp_path, [changes.get(row, "1.5") for row in range(ROWS)])
    assert re.search(words.replace("(", r"\(").replace(")", r"\)"), said), said


def test_second_column_of_weights_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, [1.5] * ROWS, columns={**ROLE, "a": {"role": "weight"}})
    assert "data.columns: 'a', 'w' have the role weight; at most one column can have it" in said


def test_split_whose_weights_are_0_is_refused() -> None:
    rows = TensorRows(torch.randn(100, 2), torch.arange(100) % 2, ["a", "b"], ["x", "y"])
    rows.weights = torch.zeros(100)
    rows.weights[:10] = 1.0
    training = small_job({"spec.training.task": {"name": "classification"}}).spec.training
    division = prepare(TensorRows(rows.x, rows.y, ["a", "b"], []), training)
    rows.weights = torch.ones(100)
    rows.weights[torch.from_numpy(division.test)] = 0.0
    with pytest.raises(DataError, match="the weights of the test split are all 0"):
        prepare(rows, training)


def test_reported_loss_of_a_run_is_weighted(tmp_path: Path) -> None:
    raw = np.random.default_rng(3).integers(0, 9, ROWS)
    write(tmp_path, raw.tolist())
    result = train(job(), tmp_path)
    data = load(tmp_path)
    model = load_package(run_store(job(), tmp_path))
    x, y = data.rows.batch(data.test)
    assert isinstance(x, torch.Tensor)
    with torch.no_grad():
        output = model.model(x).double().numpy()
    log = output - np.log(np.exp(output).sum(axis=1, keepdims=True))
    expected = np.average(-log[np.arange(len(y)), y.numpy()], weights=raw[data.test])
    assert result.test_metrics["test/loss"] == pytest.approx(expected, rel=1e-5)


def test_rows_of_weight_0_are_not_trained_on(tmp_path: Path) -> None:
    weights = np.random.default_rng(3).integers(0, 2, ROWS)
    asked = job(split={"by": "random"})  # so that the split doesn't depend on the classes
    packages = []
    for name in ("as it is", "with other classes"):
        folder = tmp_path / name
        folder.mkdir()
        write(folder, weights.tolist())
        lines = (folder / "rows.csv").read_text().splitlines()
        for row in load_data(asked, folder, {}).train.tolist():
            if name == "with other classes" and not weights[row]:
                start, _, label = lines[row + 1].rpartition(",")
                lines[row + 1] = f"{start},{'no' if label == 'yes' else 'yes'}"
        (folder / "rows.csv").write_text("\n".join(lines) + "\n")
        train(asked, folder)
        packages.append(run_store(asked, folder).get("model/model.safetensors"))
    assert packages[0] is not None
    assert packages[0] == packages[1]
