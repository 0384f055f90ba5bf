"""New rows against the train split. Indices are computed by plain Python, from sorted lists and counts."""

from __future__ import annotations

import json
import math
import warnings
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.storage import Storage
from trainmaster_trainer.data import load_data
from trainmaster_trainer.data.files import Files
from trainmaster_trainer.data.finding import Finding
from trainmaster_trainer.data.tables.codes import NumericCode
from trainmaster_trainer.data.tables.drift import MOST_CATEGORIES, Statistics, compare
from trainmaster_trainer.data.tables.encode import Encoder
from trainmaster_trainer.data.tables.read import read_table
from trainmaster_trainer.data.tables.table import Column, ColumnType, Part, Table
from trainmaster_trainer.errors import ConfigurationError, DataError
from trainmaster_trainer.export.package import DriftWarning, Predictor, load_package

from tests.unit.trainer.harness import run_store, small_job, train

ROWS = 1000
DICE = np.random.default_rng(7)
AGE = DICE.normal(40, 9, ROWS).round(3)
CITY = DICE.choice(["Oslo", "Rome", "Bonn"], ROWS, p=[0.6, 0.3, 0.1])
VISITS = np.where(DICE.random(ROWS) < 0.5, 0, DICE.integers(1, 60, ROWS))  # half of them are 0: several deciles
DAY = np.datetime64("2024-01-01") + DICE.integers(0, 300, ROWS)
COLUMNS: dict[str, Sequence[Any]] = {
    "age": AGE.tolist(), "city": CITY.tolist(), "visits": VISITS.tolist(), "day": DAY.astype(str).tolist(),
    "label": DICE.choice(["yes", "no"], ROWS).tolist(),
}  # fmt: skip


def write(folder: Path, name: str, columns: dict[str, Sequence[Any]]) -> None:
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    (folder / name).write_text("\n".join(lines) + "\n")


def job(**data: Any) -> Any:
    asked = {"source": "rows.csv", "target": "label", "batchSize": 64, "split": {"by": "random"}, "missing": "impute"}
    return small_job({"spec.training.data": asked | data, "spec.training.task": {"name": "classification"}})


def table_of(folder: Path, name: str) -> Table:
    asked = Data.model_validate({"source": name, "target": "label"})
    return read_table(Files.open(name, Storage(uri="/x"), folder, {}, is_table=True), asked)


class Package:
    """Statistics of a train split, by way of JSON, and the rows of that split."""

    def __init__(self, folder: Path, columns: dict[str, Sequence[Any]] = COLUMNS) -> None:
        self.folder = folder
        write(folder, "rows.csv", columns)
        data = load_data(job(), folder, {})
        self.train = data.train
        self.wire = json.loads(json.dumps(data.description()))
        self.encoder = Encoder.read(self.wire["encoder"])
        self.statistics = [Statistics.read(each) for each in self.wire["statistics"]]

    def against(self, columns: dict[str, Sequence[Any]]) -> list[Finding]:
        write(self.folder, "new.csv", columns)
        return compare(self.encoder, self.statistics, table_of(self.folder, "new.csv"))


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path)


def changed(rows: slice = slice(None), **columns: Sequence[Any]) -> dict[str, Sequence[Any]]:
    return {name: columns.get(name, list(values)[rows]) for name, values in COLUMNS.items()}


def index_of(expected: Counter[Any], found: Counter[Any]) -> float:
    total = 0.0
    for each in {*expected, *found}:
        a = max(expected[each] / expected.total(), 1e-4)
        b = max(found[each] / found.total(), 1e-4)
        total += (b - a) * math.log(b / a)
    return total


def by_decile(train: list[float], values: list[float]) -> Counter[Any]:
    """Counts by decile; a value that is several deciles is a bin of its own."""
    ordered = sorted(train)
    deciles = [ordered[math.ceil(len(ordered) * tenth / 10) - 1] for tenth in range(1, 10)]
    edges = sorted(set(deciles))
    return Counter(
        ("equal", value) if deciles.count(value) > 1 else ("up to", bisect_left(edges, value)) for value in values
    )


def drift(found: list[Finding]) -> dict[str, float]:
    return {one.details["column"]: one.details["index"] for one in found if one.details["kind"] == "drift"}


@pytest.mark.parametrize(("name", "step"), [("age", 8), ("visits", 8), ("visits", -1)])
def test_index_of_numbers(package: Package, name: str, step: int) -> None:
    shifted = [value + step for value in COLUMNS[name]]
    train = [COLUMNS[name][row] for row in package.train.tolist()]
    expected = index_of(by_decile(train, train), by_decile(train, shifted))
    assert expected > 0.3
    assert drift(package.against(changed(**{name: shifted}))) == {name: pytest.approx(expected, abs=1e-6)}


def test_index_of_categories_and_missing_values(package: Package) -> None:
    city = DICE.choice(["Oslo", "Rome", "Kyiv", ""], ROWS, p=[0.2, 0.5, 0.2, 0.1]).tolist()
    train = [COLUMNS["city"][row] for row in package.train.tolist()]
    found = package.against(changed(city=city))
    assert drift(found) == {"city": pytest.approx(index_of(Counter(train), Counter(city)), abs=1e-6)}
    said = {one.details["kind"]: one.sentence for one in found}
    assert "column city: is distributed differently than in training: category 'Oslo' is " in said["drift"]


def test_rows_of_the_same_distribution_are_not_said() -> None:
    dice = np.random.default_rng(11)
    code = NumericCode("a", ColumnType.NUMBER, "error", 0, 0.0, 1.0, None, False)
    for rows in (100, 400, 3000):
        for _ in range(40):
            old, new = (
                Column("a", ColumnType.NUMBER, pa.chunked_array([dice.normal(0, 1, count)])) for count in (800, rows)
            )
            known = Statistics.fit(code, old, np.arange(800))
            found = compare(Encoder((code,)), [known], Table("new", (new,), (Part("new", rows),), {}))
            assert not drift(found), rows


def test_few_rows_have_no_index(package: Package) -> None:
    few = changed(slice(0, 99), age=[value + 9 for value in COLUMNS["age"][:99]])
    assert drift(package.against(few)) == {}


def test_values_outside_of_the_range_of_training(package: Package) -> None:
    train = AGE[package.train]
    age = AGE.tolist()[:50]
    age[4], age[20] = train.max() + 1, train.min() - 1
    (found,) = [one for one in package.against(changed(slice(0, 50), age=age)) if one.details["kind"] == "range"]
    assert found.details["rows"] == 2 + int(((AGE[:50] > train.max()) | (AGE[:50] < train.min())).sum())
    assert f"(4.0%) are outside of the range of training, {train.min():.6g} .. {train.max():.6g}" in found.sentence
    assert f"row 5 ({age[4]})" in found.sentence
    day = ["2030-02-03", *COLUMNS["day"][1:50]]
    said = [one.sentence for one in package.against(changed(slice(0, 50), day=day))]
    assert any("column day: 1 of 50 rows (2.0%)" in one and "2024-01-01 00:00:00 .. " in one for one in said), said


def test_missing_values_that_training_had_none_of(package: Package) -> None:
    age = ["", *COLUMNS["age"][1:20], ""]
    (found,) = package.against(changed(slice(0, 21), age=age))
    assert found.sentence == (
        "column age: 2 of 21 rows (9.5%) have no value (row 1, row 21), and in training each had one"
    )


def test_categories_that_training_had_none_of(package: Package) -> None:
    city = [f"new {row % 12}" for row in range(18)] + ["Oslo"] * 2
    (found,) = package.against(changed(slice(0, 20), city=city))
    assert found.details["rows"] == 18
    assert "18 of 20 rows (90.0%) have a category that training didn't have: 'new 0' (2), 'new 1' (2)" in found.sentence
    assert found.sentence.endswith(" and 2 more")


def test_types_of_columns(package: Package) -> None:
    found = package.against(changed(slice(0, 30), visits=[row % 7 + 0.5 for row in range(30)]))
    assert [one.sentence for one in found] == ["column visits: is of type number, and was integer in training"]
    whole = [round(value) for value in COLUMNS["age"][:30]]
    assert package.against(changed(slice(0, 30), age=whole)) == []  # numbers that are whole by chance


def test_statistics_are_bounded(tmp_path: Path) -> None:
    many = Package(tmp_path, {**COLUMNS, "city": [f"c{row % 90}" for row in range(ROWS)]})
    known = {each.name: each for each in many.statistics}
    assert len(known["city"].categories) == MOST_CATEGORIES
    assert sum(known["city"].counts) == len(many.train) == sum(known["visits"].counts)
    assert max(len(json.dumps(each)) for each in many.wire["statistics"]) < 1000


# -- by the packaged model --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Predictor]:
    folder = tmp_path_factory.mktemp("drift")
    write(folder, "rows.csv", COLUMNS)
    train(job(), folder)
    write(folder, "same.csv", changed(slice(0, 200)))
    write(folder, "new.csv", changed(age=[value + 30 for value in COLUMNS["age"]], city=["Kyiv"] * ROWS))
    return folder, load_package(run_store(job(), folder))


def test_new_rows_are_warned_of_by_default(trained: tuple[Path, Predictor]) -> None:
    folder, model = trained
    with pytest.warns(DriftWarning, match=r"new.csv differs from the training data in 4 ways: column age: ") as caught:
        warned = model.predict_table(table_of(folder, "new.csv"))
    assert [each.filename for each in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert warned.tolist() == model.predict_table(table_of(folder, "new.csv"), check="off").tolist()


def test_strict_predicts_nothing_and_says_everything(trained: tuple[Path, Predictor]) -> None:
    folder, model = trained
    table = table_of(folder, "new.csv")
    with pytest.raises(DataError) as caught:
        model.predict_table(table, check="strict")
    for finding in model.findings(table):
        assert finding.sentence in caught.value.message
    assert {one.details["kind"] for one in model.findings(table)} == {"range", "unseen", "drift"}
    with pytest.raises(ConfigurationError, match="check is 'loud'; it can be strict, warn, off"):
        model.predict_table(table, check="loud")  # type: ignore[arg-type]


def test_package_without_statistics_can_not_be_compared(trained: tuple[Path, Predictor]) -> None:
    folder, model = trained
    table = table_of(folder, "same.csv")
    old = Predictor(**{**vars(model), "statistics": ()})
    with pytest.warns(DriftWarning, match="has no statistics of the train split"):
        old.predict_table(table)
    with pytest.raises(ConfigurationError, match="has no statistics of the train split"):
        old.predict_table(table, check="strict")
