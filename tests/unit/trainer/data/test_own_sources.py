"""Splits with sources of their own: read by the same rules, numbered as one, checked and identified together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.data.differences import what_changed
from trainmaster_trainer.data.fingerprint import take
from trainmaster_trainer.errors import DataError

from tests.unit.trainer.harness import small_job

BOTH = {"validationSource": "val.csv", "testSource": "test.csv"}


def write(folder: Path, name: str, rows: Sequence[Sequence[Any]], header: str = "a,city,y", mark: str = ",") -> None:
    lines = [header.replace(",", mark), *(mark.join(map(str, row)) for row in rows)]
    (folder / name).write_text("\n".join(lines) + "\n")


def rows(count: int, start: int = 0, cities: Sequence[str] = ("Oslo", "Rome")) -> list[list[Any]]:
    """Rows that are all different; a feature alone says nothing of the class."""
    dice = np.random.default_rng(start)
    return [[start + i, cities[i % len(cities)], ["no", "yes"][int(dice.integers(2))]] for i in range(count)]


@pytest.fixture
def three(tmp_path: Path) -> Path:
    write(tmp_path, "train.csv", rows(40))
    write(tmp_path, "val.csv", rows(10, 100))
    write(tmp_path, "test.csv", rows(8, 200))
    return tmp_path


def job(**data: Any) -> TrainingJob:
    asked = {"source": "train.csv", "target": "y", "batchSize": 4, **data}
    return small_job({"spec.training.data": asked, "spec.training.task": {"name": "classification"}})


def load(folder: Path, **data: Any) -> Prepared:
    return load_data(job(**data), folder, {})


def refused(folder: Path, **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(folder, **data)
    return str(caught.value)


# -- tables -----------------------------------------------------------------------------------------------------------


def test_splits_are_their_sources(three: Path) -> None:
    data = load(three, normalize=False, **BOTH)
    assert sorted(data.train.tolist()) == list(range(40))
    x, _ = data.rows.batch(np.sort(data.validation))
    assert x[:, 0].tolist() == list(range(100, 110))
    assert sorted(data.rows.batch(data.test)[0][:, 0].tolist()) == list(range(200, 208))
    assert "split by source: train 40 rows, validation 10 rows, test 8 rows" in data.about()


def test_split_without_a_source_is_divided_in_proportion(three: Path) -> None:
    data = load(three, testSource="test.csv", split={"by": "random"})
    # 40 rows by 0.8 : 0.1 are 35.6 and 4.4
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 8)
    assert max(*data.train, *data.validation) < 40


def test_statistics_are_of_train_only(three: Path) -> None:
    code = load(three, **BOTH).description()["encoder"]["columns"][0]
    values = np.arange(40.0)
    assert code["offset"] + code["mean"] == pytest.approx(values.mean())
    assert code["std"] == pytest.approx(values.std())


def test_sources_may_have_other_delimiters_orders_and_formats(three: Path) -> None:
    plain = load(three, **BOTH)
    write(three, "val.csv", [row[::-1] for row in rows(10, 100)], "y,city,a", ";")
    columns = dict(zip(("a", "city", "y"), zip(*rows(8, 200), strict=True), strict=True))
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), three / "test.parquet")
    other = load(three, validationSource="val.csv", testSource="test.parquet")
    for one, two in zip((plain.validation, plain.test), (other.validation, other.test), strict=True):
        (x, _), (same, _) = plain.batch(one), other.batch(two)
        assert isinstance(x, torch.Tensor)
        assert isinstance(same, torch.Tensor)
        assert torch.equal(x, same)
    assert other.description()["table"]["dialect"]["validationSource"]["delimiter"] == ";"


@pytest.mark.parametrize(
    ("train", "test", "joined"),
    [
        (["1", "2"], ["1.5", ""], "number"),
        (["1", "2"], ["a", "3"], "text"),
        (["1.5", "2"], ["a", "b"], None),
        (["", ""], ["2024-01-01", ""], "time"),
        (["true", "false"], ["1", "0"], None),
        (["2024-01-01", ""], ["3", "4"], None),
    ],
)
def test_types_of_a_column(tmp_path: Path, train: list[str], test: list[str], joined: str | None) -> None:
    for name, cells in (("train.csv", train), ("test.csv", test)):
        write(tmp_path, name, [[*row, cells[i % 2]] for i, row in enumerate(rows(20, len(name)))], "a,city,y,b")
    asked: dict[str, Any] = {"testSource": "test.csv", "columns": {"b": {"role": "ignore"}}}
    if joined is None:
        assert "column b is " in refused(tmp_path, **asked)
        assert " in train.csv and " in refused(tmp_path, **asked)
    else:
        columns = load(tmp_path, **asked).description()["table"]["columns"]
        assert next(each["type"] for each in columns if each["name"] == "b") == joined


def test_other_columns_are_refused_by_name(three: Path) -> None:
    write(three, "val.csv", rows(10, 100), "a,town,y")
    said = refused(three, **BOTH)
    assert "val.csv has no column 'city', which train.csv has" in said
    assert "train.csv has no column 'town', which val.csv has" in said


def test_messages_name_the_source_and_its_row(three: Path) -> None:
    broken = rows(8, 200)
    broken[5][0] = "inf"
    write(three, "test.csv", broken)
    assert "test.csv: row 6, column a: inf is not a finite number" in refused(three, **BOTH)
    assert refused(three, testSource="none.csv").startswith("data.testSource none.csv: no such file")


def test_class_of_the_test_alone_is_said(three: Path) -> None:
    write(three, "test.csv", [*rows(7, 200), [300, "Oslo", "maybe"]])
    data = load(three, **BOTH)
    assert data.rows.labels == ["maybe", "no", "yes"]
    assert any("the train split has no row of class `maybe` (1 rows)" in each for each in data.warnings)


def test_copies_and_groups_are_found_over_all_sources(three: Path) -> None:
    write(three, "test.csv", [*rows(6, 200), *rows(2)])
    (said,) = [each for each in load(three, **BOTH).warnings if "exact copies" in each]
    assert "2 rows of train are exact copies" in said
    assert "train.csv: row 1 = test.csv: row 7" in said
    assert len(load(three, dedupe=True, **BOTH).train) == 38
    write(three, "test.csv", rows(8, 200, ["Rome"]))
    write(three, "val.csv", rows(10, 100, ["Lima"]))
    asked = {**BOTH, "columns": {"city": {"role": "group"}}}
    assert any("1 of 3 groups of `city` are in more than one split (Rome)" in w for w in load(three, **asked).warnings)


def test_source_whose_rows_are_all_dropped_is_refused(three: Path) -> None:
    write(three, "val.csv", [["", *row[1:]] for row in rows(10, 100)])
    assert "drop all 10 rows of data.validationSource" in refused(three, missing="drop", **BOTH)


# -- images -----------------------------------------------------------------------------------------------------------


def image_folders(root: Path) -> None:
    for source, classes, count in (("train", "ac", 6), ("val", "ac", 3), ("test", "abc", 2)):
        for number, name in enumerate(classes):
            (root / source / name).mkdir(parents=True)
            for index in range(count):
                shade = 20 * (number + 1) + index + {"train": 0, "val": 100, "test": 150}[source]
                Image.new("L", (8, 8), shade).save(root / source / name / f"{index}.png")


def test_image_folders_have_one_numbering_of_classes(tmp_path: Path) -> None:
    image_folders(tmp_path)
    folders = {"validationSource": "images:val", "testSource": "images:test", "imageSize": 8, "channels": 1}
    data = load(tmp_path, source="images:train", target=None, normalize=False, **folders)
    assert data.rows.labels == ["a", "b", "c"]
    assert [len(part) for part in (data.train, data.validation, data.test)] == [12, 6, 6]
    x, y = data.rows.batch(np.array([17, 0, 12, 20, 11]))  # c of val, a of train, a of val, b of test, c of train
    shades = [round(float(each[0, 0, 0]) * 255) for each in x]
    assert (shades, y.tolist()) == ([142, 20, 120, 190, 45], [2, 0, 0, 1, 2])
    assert any("the train split has no image of class `b`" in each for each in data.warnings)


# -- identity ---------------------------------------------------------------------------------------------------------


def test_fingerprint_covers_all_sources(three: Path) -> None:
    asked = job(**BOTH)
    before = take(asked, three, {})
    assert (before.count, before.source) == (3, "train.csv, val.csv, test.csv")
    write(three, "test.csv", rows(9, 200))
    (three / "val.csv").unlink()
    write(three, "val.csv", rows(10, 100))
    after = take(asked, three, {}, before)
    assert after.digest != before.digest
    (said,) = what_changed(before, after)
    assert said.startswith("data.testSource test.csv: ")
    assert "10 lines, before 9" in said
    write(three, "test.csv", rows(8, 200))
    restored = take(asked, three, {}, after)
    assert restored.digest == before.digest
    assert take(asked, three, {}, before).digest == before.digest


def test_fingerprint_of_a_split_is_not_that_of_another(three: Path) -> None:
    swapped = {"validationSource": "test.csv", "testSource": "val.csv"}
    assert take(job(**BOTH), three, {}).digest != take(job(**swapped), three, {}).digest
