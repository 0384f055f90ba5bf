"""A table from the file to the loop and the package: its split, its checks, its report, and new rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.storage import Storage
from trainmaster_trainer.context import ReportKind
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.data.files import Files
from trainmaster_trainer.data.tables.read import read_table
from trainmaster_trainer.data.tables.table import Table
from trainmaster_trainer.errors import DataError
from trainmaster_trainer.export.package import load_package

from tests.unit.trainer.harness import Recording, run_store, small_job, train

ROWS = 300


def write(folder: Path, columns: dict[str, Sequence[Any]], name: str = "rows.csv") -> None:
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    (folder / name).write_text("\n".join(lines) + "\n")


def people(seed: int = 0, count: int = ROWS) -> dict[str, Sequence[Any]]:
    """Rows whose class follows from age and city, but for some noise."""
    dice = np.random.default_rng(seed)
    age = dice.normal(40, 9, count).round(2)
    city = dice.choice(["Oslo", "Rome", "NA"], count)
    score = (age - 40) / 9 + (city == "Rome") * 2 + dice.normal(0, 0.3, count)
    return {"age": age.tolist(), "city": city.tolist(), "label": np.where(score > 0.5, "yes", "no").tolist()}


def job(classes: bool = True, **data: Any) -> Any:
    task = {"name": "classification"} if classes else {"name": "regression"}
    asked = {"source": "rows.csv", "target": "label", "batchSize": 16, "columns": {"city": {"missing": "impute"}}}
    return small_job({"spec.training.data": asked | data, "spec.training.task": task})


def loaded(folder: Path, classes: bool = True, **data: Any) -> Prepared:
    return load_data(job(classes, **data), folder, {})


def table_of(folder: Path, name: str) -> Table:
    asked = Data.model_validate({"source": name, "target": "label"})
    return read_table(Files.open(name, Storage(uri="/x"), folder, {}, is_table=True), asked)


def test_package_predicts_raw_rows_as_the_run_did(tmp_path: Path) -> None:
    write(tmp_path, people())
    result = train(job(), tmp_path)
    assert result.test_metrics["test/accuracy"] > 0.8
    model = load_package(run_store(job(), tmp_path))
    data = loaded(tmp_path)
    predicted = model.predict_table(table_of(tmp_path, "rows.csv"))
    _, true = data.rows.batch(data.test)
    accuracy = float((predicted[data.test] == true).double().mean())
    assert accuracy == result.test_metrics["test/accuracy"]


def test_mlp_embeds_categories_and_the_package_knows_them(tmp_path: Path) -> None:
    write(tmp_path, people())
    data = job(categories="index").spec.training.data.wire()
    optimizer = {"name": "adamw", "lr": 0.03}
    asked = small_job(
        {"spec.training.data": data, "spec.training.optimizer": optimizer, "spec.training.loop.duration": "10ep"}
    )
    result = train(asked, tmp_path)
    assert result.test_metrics["test/accuracy"] > 0.8
    model = load_package(run_store(asked, tmp_path))
    new = people(seed=1, count=60)
    write(tmp_path, {"city": [*new["city"][:59], "Kyiv"], "age": new["age"]}, "new.csv")
    predicted = model.predict_table(table_of(tmp_path, "new.csv"))
    true = [model.labels.index(str(label)) for label in new["label"]]
    assert (predicted.numpy() == true).mean() > 0.8
    embedding = model.model.get_submodule("0.tables.0").get_parameter("weight")
    assert embedding[0].abs().max() == 0, "a city that the train split doesn't have adds nothing"
    assert (embedding[1:].abs().amax(dim=1) > 0).all()


def test_package_takes_other_columns_and_refuses_missing_ones(tmp_path: Path) -> None:
    write(tmp_path, people())
    train(job(), tmp_path)
    model = load_package(run_store(job(), tmp_path))
    new = people(seed=1, count=40)
    write(tmp_path, {"more": [7] * 40, "city": new["city"], "age": new["age"]}, "new.csv")
    predicted = model.predict_table(table_of(tmp_path, "new.csv"))
    true = [model.labels.index(str(label)) for label in new["label"]]
    assert (predicted.numpy() == true).mean() > 0.8
    write(tmp_path, {"age": new["age"]}, "less.csv")
    with pytest.raises(DataError, match="city"):
        model.predict_table(table_of(tmp_path, "less.csv"))
    write(tmp_path, {"age": ["1", "", *["2"] * 38], "city": new["city"]}, "empty.csv")
    with pytest.raises(DataError, match="row 2, column age: is empty"):
        model.predict_table(table_of(tmp_path, "empty.csv"))


def test_target_among_the_features_is_refused(tmp_path: Path) -> None:
    columns = people()
    write(tmp_path, {**columns, "copy": [{"yes": "J", "no": "N"}[str(label)] for label in columns["label"]]})
    with pytest.raises(DataError, match=r"feature `copy` .*the model would see the answer"):
        loaded(tmp_path)


def test_a_feature_that_gives_it_away_is_reported_by_the_run(tmp_path: Path) -> None:
    columns = people()
    hint = [round(5 * (label == "yes") + row / ROWS, 3) for row, label in enumerate(columns["label"])]
    write(tmp_path, {**columns, "hint": hint})
    recording = Recording()
    train(job(), tmp_path, recording=recording)
    warnings = [one.message for one in recording.reports if one.kind is ReportKind.WARNING]
    assert any("feature `hint` alone predicts the target" in one for one in warnings), warnings


def test_split_by_a_column_that_is_no_feature(tmp_path: Path) -> None:
    parts = ["train"] * 200 + ["validation"] * 50 + ["test"] * 50
    write(tmp_path, {**people(), "part": parts})
    data = loaded(tmp_path, split={"by": "column", "column": "part"})
    assert sorted(data.test.tolist()) == list(range(250, 300))
    assert sorted(data.train.tolist()) == list(range(200))
    assert not any(name.startswith("part") for name in data.rows.features)


def test_split_by_group(tmp_path: Path) -> None:
    groups = np.arange(ROWS) // 7
    write(tmp_path, {**people(), "person": groups.tolist()})
    data = loaded(tmp_path, split={"by": "group", "column": "person"})
    sides = [set(groups[part].tolist()) for part in (data.train, data.validation, data.test)]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
    assert "person" not in data.rows.features


def test_dedupe_and_dropped_rows_keep_their_numbers(tmp_path: Path) -> None:
    """A row with a missing value is dropped, and the others are still found by what is in them."""
    columns = people()
    age = [*columns["age"]]
    age[5], age[250] = "", ""
    write(tmp_path, {**columns, "age": age})
    data = loaded(tmp_path, missing="drop", columns={})
    missing = {row for row in range(ROWS) if columns["city"][row] == "NA"} | {5, 250}
    assert len(data.rows) == ROWS - len(missing)
    assert f"dropped: {len(missing)} of {ROWS} rows" in data.about()
    twice = {key: [*values[:100], *values[:100]] for key, values in people().items()}
    write(tmp_path, twice)
    plain, clean = loaded(tmp_path), loaded(tmp_path, dedupe=True)
    held = {int(row) % 100 for row in (*clean.validation, *clean.test)}
    assert any(int(row) % 100 in held for row in plain.train)
    assert not any(int(row) % 100 in held for row in clean.train)


def test_encoding_is_fitted_on_the_train_split_only(tmp_path: Path) -> None:
    parts = ["train"] * 200 + ["validation"] * 50 + ["test"] * 50
    columns = people()
    age = [*columns["age"][:200], *[1000.0] * 100]
    write(tmp_path, {**columns, "age": age, "part": parts})
    data = loaded(tmp_path, split={"by": "column", "column": "part"})
    at = data.rows.features.index("age")
    x = data.rows.batch(np.arange(200))[0][:, at].double()
    known = np.asarray(columns["age"][:200], dtype=np.float64)
    np.testing.assert_allclose(x.numpy(), (known - known.mean()) / known.std(), rtol=1e-5, atol=1e-6)


def test_report_names_every_column_and_what_is_left_out(tmp_path: Path) -> None:
    columns = people()
    write(tmp_path, {**columns, "same": ["x"] * ROWS, "name": [f"person {row}" for row in range(ROWS)]})
    lines = loaded(tmp_path).about().splitlines()
    empty = sum(city == "NA" for city in columns["city"])
    assert lines[0] == f"rows.csv: {ROWS} rows, 3 of 5 columns, 5 features"
    table = {line.split()[0]: line.split() for line in lines if line.startswith("  ")}
    assert table["age"][1:4] == ["number", "numeric", "0"]
    assert table["city"][1:6] == ["text", "categorical", str(empty), "2", "Oslo,"]
    assert table["label"][2] == "target"
    assert any(line.startswith("left out: same: has one value only") for line in lines)
    assert any(line.startswith("left out: name: text with 300 distinct values") for line in lines)
    assert all(len(line) <= 100 for line in lines)


def test_large_numbers_are_as_good_as_small_ones(tmp_path: Path) -> None:
    """Seconds since 1970: float32 tells 128 s apart. The expected error is that of a linear fit in float64."""
    dice = np.random.default_rng(0)
    seconds = np.arange(400) * 3 + 1_760_000_000
    dice.shuffle(seconds)
    y = 0.05 * (seconds - seconds.mean()) + dice.normal(0, 1, 400)
    write(tmp_path, {"when": seconds.tolist(), "label": y.round(4).tolist()})
    longer = {
        "spec.training.data": {"source": "rows.csv", "target": "label", "batchSize": 16},
        "spec.training.task": {"name": "regression"},
        "spec.training.model.args": {"hidden": [32], "dropout": 0.0},
        "spec.training.optimizer": {"name": "adamw", "lr": 0.01},
        "spec.training.loop": {"duration": "60ep", "seed": 3},
    }
    result = train(small_job(longer), tmp_path)
    data = loaded(tmp_path, classes=False, columns={})
    x = data.rows.batch(np.arange(400))[0][:, 0].numpy()
    assert len(np.unique(x)) == 400
    slope, offset = np.polyfit(seconds[data.train] - 1_760_000_000, y[data.train], 1)
    floor = float(np.sqrt(np.mean((y[data.test] - slope * (seconds[data.test] - 1_760_000_000) - offset) ** 2)))
    assert result.test_metrics["test/rmse"] < 1.3 * floor
