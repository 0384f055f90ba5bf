"""Sources, and the sentences for what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.context import ReportKind
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.errors import ConfigurationError, DataError, TrainingError
from trainmaster_trainer.export.package import load_package

from tests.unit.trainer.harness import Recording, run_store, small_job, train

TWO_CLASSES = {"name": "classification", "numClasses": 2}
ROWS = [[str(i), str(2 * i), "ab"[i % 2]] for i in range(30)]


def write(root: Path, changes: dict[tuple[int, int], str] | None = None, header: str = "a,b,y") -> None:
    rows = [list(row) for row in ROWS]
    for (row, column), value in (changes or {}).items():
        rows[row][column] = value
    (root / "data.csv").write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")


def load(root: Path, task: dict[str, Any] = TWO_CLASSES, **data: Any) -> Prepared:
    asked = {"source": "data.csv", "target": "y", "batchSize": 2} | data
    found = {key: value for key, value in asked.items() if value is not None}
    return load_data(small_job({"spec.training.task": task, "spec.training.data": found}), root, {})


def said(root: Path, **data: Any) -> str:
    with pytest.raises(TrainingError) as caught:
        load(root, **data)
    return str(caught.value)


def test_table_features_and_classes(tmp_path: Path) -> None:
    write(tmp_path)
    data = load(tmp_path, normalize=False)
    assert (data.rows.features, data.rows.labels) == (["a", "b"], ["a", "b"])
    x, y = data.rows.batch(np.array([3, 4]))
    assert x.tolist() == [[3.0, 6.0], [4.0, 8.0]]
    assert y.tolist() == [1, 0]


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    write(tmp_path)
    pd.read_csv(tmp_path / "data.csv").to_parquet(tmp_path / "data.parquet")
    first, second = load(tmp_path), load(tmp_path, source="data.parquet")
    assert torch.equal(first.batch(first.train)[0], second.batch(second.train)[0])


def test_a_broken_cell_has_row_column_and_value(tmp_path: Path) -> None:
    write(tmp_path, {(7, 1): "abc", (20, 0): "", (25, 0): "inf"})
    message = said(tmp_path)
    assert "row 8, column b: 'abc' is not a finite number" in message
    assert "row 21, column a: is empty" in message
    assert "row 26, column a: inf is not a finite number" in message


def test_ten_broken_cells_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    write(tmp_path, {(row, 1): "x" for row in range(14)})
    message = said(tmp_path)
    assert message.count("column b") == 10
    assert " and 4 more. " in message


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"target": "z"}, "data.csv has no column 'z'; its columns are a, b, y"),
        ({"features": ["a", "bb"]}, "no column 'bb' (did you mean 'b'?)"),
        ({"source": "nope.csv"}, "no such file"),
        ({"source": "images:nope", "target": None}, "no such folder"),
        ({"batchSize": 1000}, "data.batchSize 1000 is more than the 24 rows of the train split"),
        ({"task": {"name": "classification", "numClasses": 3}, "target": "a"}, "set task.numClasses to 30"),
    ],
)
def test_what_does_not_fit_is_said_with_what_would(tmp_path: Path, data: dict[str, Any], expected: str) -> None:
    write(tmp_path)
    assert expected in said(tmp_path, **data)


def test_too_few_rows_for_every_split_are_all_said(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,y\n1,p\n2,q\n")
    with pytest.raises(ConfigurationError, match=r"split\.validation has no rows.*split\.test has no rows"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"a,b,y\n", b"a,y\n1,p\n1,p,q\n", b"PAR1junk"])
@pytest.mark.parametrize("source", ["data.csv", "data.parquet"])
def test_a_file_that_is_no_table_is_a_data_error(tmp_path: Path, source: str, content: bytes) -> None:
    (tmp_path / source).write_bytes(content)
    with pytest.raises(DataError, match=source):
        load(tmp_path, source=source)


def image_folder(root: Path) -> Path:
    dice = np.random.default_rng(0)
    for number in range(400):
        folder = root / "images" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = dice.integers(0, 120, (6, 6), dtype=np.uint8) + 100 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03}.png")
    return root / "images"


IMAGES: dict[str, Any] = {
    "spec.training.task": TWO_CLASSES,
    "spec.training.data": {"source": "images:images", "imageSize": 8, "channels": 1, "batchSize": 16},
    "spec.training.model": {"name": "cnn", "args": {"widths": [8]}},
}


def test_a_folder_of_images_trains_and_its_package_predicts(tmp_path: Path) -> None:
    image_folder(tmp_path)
    job = small_job(IMAGES, {"spec.training.optimizer": {"name": "adamw", "lr": 0.01}})
    result = train(job, tmp_path)
    assert result.test_metrics["test/accuracy"] > 0.8
    model = load_package(run_store(job, tmp_path))
    data = load_data(job, tmp_path, {})
    x, y = data.rows.batch(data.test)
    assert model.labels == ["a", "b"]
    assert float((model.predict(x) == y).double().mean()) == result.test_metrics["test/accuracy"]


def test_what_was_passed_over_is_reported_before_the_first_step(tmp_path: Path) -> None:
    folder = image_folder(tmp_path)
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "1.png").write_bytes(b"junk")
    (folder / "a" / "notes.txt").write_text("mine")
    seen = Recording()
    train(small_job(IMAGES), tmp_path, recording=seen)
    kinds = [one.kind for one in seen.reports]
    said = seen.reports[kinds.index(ReportKind.DATA)]
    assert kinds.index(ReportKind.DATA) < kinds.index(ReportKind.FIRST_STEP)
    assert [line.split(",")[0] for line in said.message.split("\n")] == [
        "1 hidden file passed over", "1 file passed over: not an image by its extension (.bmp",
        "split by class: train 320 rows (80.0%)",
    ]  # fmt: skip


def test_a_broken_image_met_in_the_run_is_named(tmp_path: Path) -> None:
    folder = image_folder(tmp_path)
    job = small_job(IMAGES)
    data = load_data(job, tmp_path, {})
    late = next(index for index in data.train[256:])  # not among those that the scaling is measured on
    path = sorted(folder.rglob("*.png"))[late]
    path.write_bytes(path.read_bytes()[:60])  # its header is whole, and is all that is checked before the first step
    name = str(path.relative_to(folder))
    with pytest.raises(TrainingError, match=rf"images/{name} is not a readable image \(60 bytes: ") as caught:
        train(job, tmp_path)  # by a worker process, where there is a core for one
    assert caught.value.failure_class is FailureClass.DATA_ERROR
    path.write_bytes(b"junk")
    with pytest.raises(DataError, match=rf"1 image of 400 can't be read: images/{name}: unknown image format"):
        load_data(job, tmp_path, {})


def test_a_regression_speaks_the_unit_of_its_target(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    a, b = dice.normal(size=(2, 400))
    frame = pd.DataFrame({"a": a, "b": b, "y": 1000 * a - 500 * b + 7000 + 10 * dice.normal(size=400)})
    frame.to_csv(tmp_path / "data.csv", index=False)
    job = small_job(
        {
            "spec.training.task": {"name": "regression"},
            "spec.training.data": {"source": "data.csv", "target": "y", "batchSize": 16},
            "spec.training.model": {"name": "mlp", "args": {"hidden": []}},
            "spec.training.optimizer": {"name": "adamw", "lr": 0.02, "weightDecay": 0},
            "spec.training.loop": {"duration": "30ep"},
        },
    )
    result = train(job, tmp_path)
    assert result.test_metrics["test/r2"] > 0.999
    data = load_data(job, tmp_path, {})
    x, y = data.rows.batch(data.test)
    predicted = load_package(run_store(job, tmp_path)).predict(x)
    rmse = float((predicted.double() - y.double()).pow(2).mean().sqrt())
    assert rmse == pytest.approx(result.test_metrics["test/rmse"], rel=1e-3)
