"""Categories of validation and test that the train split doesn't have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trainmaster_trainer.data import load_data

from tests.unit.trainer.harness import small_job

PARTS = ["train"] * 40 + ["validation"] * 20 + ["test"] * 20


def warned(folder: Path, city: list[str], **data: Any) -> list[str]:
    lines = ["a,city,part,y", *(f"{row * 7 % 31},{city[row]},{PARTS[row]},{row * row % 3 % 2}" for row in range(80))]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    asked = {
        "source": "rows.csv", "target": "y", "batchSize": 8, "split": {"by": "column", "column": "part"},
        "columns": {"city": {"role": "categorical"}}, **data,
    }  # fmt: skip
    job = small_job({"spec.training.data": asked, "spec.training.task": {"name": "classification"}})
    return [each for each in load_data(job, folder, {}).warnings if each.startswith("column city")]


def test_categories_that_train_lacks_are_counted(tmp_path: Path) -> None:
    city = ["Oslo", "Rome"] * 40
    assert warned(tmp_path, city) == []
    city[41], city[42], city[43], city[70] = "Lima", "Kyiv", "Kyiv", "Kyiv"
    (said,) = warned(tmp_path, city)
    assert said.startswith(
        "column city: 3 of 20 rows of validation and 1 of 20 rows of test have a category that train doesn't have: "
        "'Kyiv' (3), 'Lima' (1). They are encoded as the feature `city is another`, whose weight isn't trained"
    )
    assert "number 0, whose embedding isn't trained" in warned(tmp_path, city, categories="index")[0]


def test_split_without_them_is_not_named_and_ten_are(tmp_path: Path) -> None:
    city = ["Oslo", "Rome"] * 40
    city[65:78] = [f"c{row}" for row in range(13)]
    (said,) = warned(tmp_path, city)
    assert "column city: 13 of 20 rows of test have" in said
    assert "'c5' (1), 'c6' (1) and 3 more." in said  # by name, as they are equally many


@pytest.mark.parametrize(("in_train", "expected"), [(False, 1), (True, 0)])
def test_missing_values_that_train_lacks(tmp_path: Path, in_train: bool, expected: int) -> None:
    city = ["Oslo", "Rome"] * 40
    city[50] = ""
    if in_train:
        city[3] = ""
    said = warned(tmp_path, city, missing="impute")
    assert len(said) == expected
    assert all(
        "1 of 20 rows of validation have a category that train doesn't have: missing values (1)" in s for s in said
    )
