"""Text from the file to the loop and the package: its role, its report, its batches, and new texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.storage import Storage
from trainmaster_trainer.context import ReportKind
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.data.files import Files
from trainmaster_trainer.data.tables.read import read_table
from trainmaster_trainer.data.tables.table import Table
from trainmaster_trainer.data.text.rows import TextRows
from trainmaster_trainer.errors import DataError
from trainmaster_trainer.export.package import load_package

from tests.factories import change
from tests.unit.trainer.harness import Recording, run_store, small_job, train, train_ranks, weights

ROWS = 320
TINY: dict[str, Any] = {"name": "transformer", "args": {"dim": 16, "depth": 1, "heads": 2}}
SUBJECTS = {"sea": ["ship", "wave", "sailor", "harbor"], "sky": ["cloud", "bird", "pilot", "wing"]}
OTHERS = ["the", "a", "old", "slow", "sees", "waits", "for", "and", "under", "of"]


def stories(count: int = ROWS, seed: int = 0) -> list[dict[str, Any]]:
    """Return texts of which some words tell the class."""
    dice = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        label = str(dice.choice(list(SUBJECTS)))
        words = [*dice.choice(OTHERS, dice.integers(2, 20)), *dice.choice(SUBJECTS[label], 2)]
        found.append({"story": " ".join(dice.permutation(words)), "label": label})
    return found


def write(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> None:
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), folder / name)
    elif name.endswith(".csv"):
        cell = lambda value: '"' + str(value).replace('"', '""') + '"'  # noqa: E731
        lines = [",".join(rows[0]), *(",".join(map(cell, row.values())) for row in rows)]
        (folder / name).write_text("\n".join(lines) + "\n")
    else:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def job(model: dict[str, Any] = TINY, task: str = "classification", loop: Any = None, **data: Any) -> Any:
    asked = {
        "source": "rows.jsonl", "target": "label", "batchSize": 16, "columns": {"story": {"role": "text"}},
        "text": {"vocabulary": 400, "maxLength": 64},
    }  # fmt: skip
    changes = {"spec.training.data": asked | data, "spec.training.task": {"name": task}, "spec.training.model": model}
    return small_job(changes | ({"spec.training.loop": loop} if loop else {}))


def loaded(folder: Path, **data: Any) -> Prepared:
    return load_data(job(**data), folder, {})


def rows_of(data: Prepared) -> TextRows:
    assert isinstance(data.rows, TextRows)
    return data.rows


def table_of(folder: Path, name: str) -> Table:
    asked = Data.model_validate({"source": name, "target": "label"})
    return read_table(Files.open(name, Storage(uri="/x"), folder, {}, is_table=True), asked)


def refused(folder: Path, **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        loaded(folder, **data)
    return str(caught.value)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_text_is_the_same_from_every_format(tmp_path: Path, name: str) -> None:
    rows = [{"story": f'{row["story"]},\n"é" {at}', "label": row["label"]} for at, row in enumerate(stories(60))]
    write(tmp_path, rows, name)
    data = loaded(tmp_path, source=name, text={"tokenizer": "bytes", "maxLength": 500})
    x, y = data.rows.batch(np.arange(60))
    assert data.rows.labels == ["sea", "sky"]
    for line, target, row in zip(x.numpy(), y.tolist(), rows, strict=True):
        assert bytes((line[line > 0] - 2).astype(np.uint8).tolist()).decode() == row["story"]
        assert data.rows.labels[target] == row["label"]


def test_tokenizer_learns_nothing_from_a_test_source(tmp_path: Path) -> None:
    write(tmp_path, stories())
    write(
        tmp_path, [{"story": f"{row['story']} qqqq qqqq", "label": row["label"]} for row in stories(40, 1)], "t.jsonl"
    )
    data = load_data(job(testSource="t.jsonl"), tmp_path, {})
    assert sorted(data.test) == list(range(ROWS, ROWS + 40))
    assert isinstance(data.rows, TextRows)
    alone = load_data(job(), tmp_path, {})
    assert isinstance(alone.rows, TextRows)
    content = data.rows.encoder.content()
    assert content is not None
    assert b"qq" not in content


def test_text_must_be_declared(tmp_path: Path) -> None:
    write(tmp_path, stories())
    found = refused(tmp_path, columns={}, text={})
    assert "story: text with 320 distinct values in 320 rows" in found
    assert "declare role: text to read it" in found


def test_text_and_other_features_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [{**row, "pages": at % 7 + 0.5} for at, row in enumerate(stories())])
    found = refused(tmp_path)
    assert "'story' has the role text, which can't be combined with other features yet ('pages')" in found
    assert "data.features: [story]" in found
    data = loaded(tmp_path, features=["story"])
    assert "left out: pages: not in data.features" in data.about()


def test_text_role_is_for_text(tmp_path: Path) -> None:
    write(tmp_path, [{"story": at, "label": row["label"]} for at, row in enumerate(stories())])
    assert "'story' is of type integer (row 1: 0, row 2: 1, row 3: 2) and can't be text" in refused(tmp_path)


def test_text_columns_are_joined(tmp_path: Path) -> None:
    write(tmp_path, [{"head": "Hi", "story": row["story"], "label": row["label"]} for row in stories(40)])
    columns = {"story": {"role": "text"}, "head": {"role": "text"}}
    data = loaded(tmp_path, columns=columns, text={"tokenizer": "bytes"})
    x, _ = data.rows.batch(np.arange(1))
    assert bytes((x[0][x[0] > 0] - 2).to(torch.uint8).tolist()).decode() == f"Hi\n{stories(40)[0]['story']}"
    assert data.rows.features == ["head", "story"]


def test_empty_texts_are_missing(tmp_path: Path) -> None:
    rows = stories()
    rows[3]["story"], rows[5]["story"], rows[9]["story"] = "", None, " \n"
    write(tmp_path, rows)
    found = refused(tmp_path)
    assert "row 4, column story: is empty; " in found
    assert "row 6, column story: is empty; " in found
    assert "row 10, column story: is empty" in found
    dropped = loaded(tmp_path, missing="drop")
    assert len(dropped.rows) == ROWS - 3
    assert "dropped: 3 of 320 rows, for missing values in story (3)" in dropped.about()
    filled = loaded(tmp_path, missing="impute")
    assert filled.rows.batch(np.array([3, 5, 9]))[0].tolist() == [[1, *[0] * 7]] * 3
    assert "note: story: 2 texts without a character, taken as missing" in filled.about()


def test_report_says_what_texts_became(tmp_path: Path) -> None:
    write(tmp_path, stories())
    data = loaded(tmp_path, text={"tokenizer": "bytes", "maxLength": 40})
    lengths = np.array([len(row["story"]) for row in stories()])
    cut = int((lengths > 40).sum())
    line = next(line for line in data.about().splitlines() if line.lstrip().startswith("story"))
    assert f"{lengths.min()} .. {lengths.max()} characters" in line
    assert line.endswith("bytes, 258 tokens")
    median = int(np.median(np.minimum(lengths, 40)))
    words = f"note: story: tokens of a text: median {median}, most 40; {cut} texts ({cut / ROWS:.1%}) cut at 40"
    assert words in data.about().splitlines()


def test_tokenizer_is_fitted_on_train_only(tmp_path: Path) -> None:
    rows = [
        {**row, "story": row["story"] + (" zebra" if at >= 200 else " horse"), "part": "train" if at < 200 else part}
        for at, (row, part) in enumerate(zip(stories(300), ["val", "test"] * 150, strict=True))
    ]
    write(tmp_path, rows)
    data = loaded(tmp_path, split={"by": "column", "column": "part"}, text={"vocabulary": 1000})
    learned = Tokenizer.from_str(rows_of(data).files()["tokenizer.json"].decode()).get_vocab()
    assert "Ġhorse" in learned
    assert not any("zeb" in word for word in learned)


def test_batches_are_padded_to_their_longest(tmp_path: Path) -> None:
    write(tmp_path, stories())
    data = loaded(tmp_path, text={"tokenizer": "bytes", "maxLength": 100})
    rows = rows_of(data)
    lengths = np.minimum([len(row["story"]) for row in stories()], 100)
    assert rows.lengths.tolist() == lengths.tolist()
    for some in (data.train[:5], data.test[:1], np.flatnonzero(lengths == 100)[:3]):
        x, _ = rows.batch(some)
        assert x.shape[1] == min(100, -(-lengths[some].max() // 8) * 8)
        assert (x != 0).sum(dim=1).tolist() == lengths[some].tolist()
    assert data.inputs.shape == (100,)
    assert data.inputs.vocabulary == 258


@pytest.mark.parametrize("bucketing", [True, False])
def test_bucketing_may_be_turned_off(tmp_path: Path, bucketing: bool) -> None:
    write(tmp_path, stories())
    data = loaded(tmp_path, text={"tokenizer": "bytes", "bucketing": bucketing})
    assert (data.lengths is not None) is bucketing
    steps = np.diff(rows_of(data).lengths[data.validation])
    assert bool((steps >= 0).all()) is bucketing


def test_text_is_trained_on_and_packaged(tmp_path: Path) -> None:
    write(tmp_path, stories())
    asked = job(loop={"duration": "12ep", "seed": 0})
    recording = Recording()
    result = train(asked, tmp_path, recording=recording)
    assert any("bpe, " in report.message for report in recording.reports if report.kind is ReportKind.DATA)
    assert result.test_metrics["test/accuracy"] > 0.9
    model, data = load_package(run_store(asked, tmp_path)), load_data(asked, tmp_path, {})
    predicted = model.predict_table(table_of(tmp_path, "rows.jsonl"))
    _, true = data.rows.batch(data.test)
    assert float((predicted[data.test] == true).double().mean()) == result.test_metrics["test/accuracy"]
    new = stories(100, seed=9)
    predicted = model.predict_text([row["story"] for row in new])
    assert np.mean([model.labels[index] == row["label"] for index, row in zip(predicted, new, strict=True)]) > 0.9
    assert model.predict_text([]).shape == (0,)
    with pytest.raises(DataError, match="row 2, column story: is empty"):
        model.predict_text(["a ship", " "])
    write(tmp_path, [{"stories": "a"}], "new.jsonl")
    with pytest.raises(DataError, match=r"has no column 'story' \(is it 'stories'\?\)"):
        model.predict_table(table_of(tmp_path, "new.jsonl"))


def test_package_reads_digits_as_text(tmp_path: Path) -> None:
    write(tmp_path, stories())
    asked = job(loop={"duration": "1ep", "seed": 0}, missing="impute")
    train(asked, tmp_path)
    model = load_package(run_store(asked, tmp_path))
    write(tmp_path, [{"story": 12}, {"story": 7}], "new.jsonl")
    predicted = model.predict_table(table_of(tmp_path, "new.jsonl"))
    assert predicted.tolist() == model.predict_text(["12", "7"]).tolist()
    assert model.predict_text(["", "12"], check="off").shape == (2,)  # impute: no text


def test_text_of_a_regression_is_scaled_by_the_whole_train_split(tmp_path: Path) -> None:
    rows = [{"story": row["story"], "label": float(at**2)} for at, row in enumerate(stories(700))]
    write(tmp_path, rows)
    data = load_data(job(task="regression", split={"seed": 3}), tmp_path, {})
    true = np.array([row["label"] for row in rows])[data.train]
    assert len(true) > 500
    assert data.target_mean == pytest.approx(true.mean())
    assert data.target_std == pytest.approx(true.std())


def test_resumed_text_is_as_undisturbed(tmp_path: Path) -> None:
    asked = job({**TINY, "args": {**TINY["args"], "dropout": 0.1}}, loop={"duration": "6ep", "seed": 5})
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, stories())
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of several threads are added up in another order
    try:
        train(asked, tmp_path / "whole")
        stopped = train(asked, tmp_path / "parts", recording=Recording(stop_at=20))
        assert 20 <= stopped.step < 96
        train(asked, tmp_path / "parts", attempt=2)
    finally:
        torch.set_num_threads(before)
    assert weights(asked, tmp_path / "parts") == weights(asked, tmp_path / "whole")


def test_ranks_train_as_one(tmp_path: Path) -> None:
    asked = job(loop={"duration": "1ep", "seed": 5})
    asked = TrainingJob.model_validate(change(asked.wire(), {"spec.training.optimizer": {"name": "sgd", "lr": 0.1}}))
    found = []
    for name, ranks in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, stories())
        train_ranks(asked, tmp_path / name, ranks)
        found.append(load_package(run_store(asked, tmp_path / name)).model.state_dict())
    assert found[0].keys() == found[1].keys()
    for key, value in found[0].items():  # each rank pads its part by itself, so sums differ by rounding
        torch.testing.assert_close(found[1][key], value, atol=1e-5, rtol=1e-3)
