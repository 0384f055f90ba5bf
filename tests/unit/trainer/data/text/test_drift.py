"""New texts against the train split. Indices are computed by plain Python, from sorted lists and counts."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainmaster_trainer.data import load_data
from trainmaster_trainer.data.finding import Finding
from trainmaster_trainer.data.text.drift import TextStatistics, compare
from trainmaster_trainer.data.text.encode import TextEncoder, joined
from trainmaster_trainer.errors import ConfigurationError, DataError
from trainmaster_trainer.export.package import DriftWarning, load_package

from tests.unit.trainer.data.tables.test_drift import by_decile, index_of
from tests.unit.trainer.data.text.test_rows import job, stories, table_of, write
from tests.unit.trainer.harness import run_store, train


class Package:
    """Statistics of the texts of a train split, by way of JSON, and those texts."""

    def __init__(self, folder: Path, rows: list[dict[str, Any]], **data: Any) -> None:
        self.folder = folder
        write(folder, rows)
        prepared = load_data(job(**data), folder, {})
        self.train = [rows[row]["story"] or "" for row in prepared.train.tolist()]
        wire = json.loads(json.dumps(prepared.description()))
        self.encoder = TextEncoder.read(wire["text"], prepared.files().get("tokenizer.json"))
        self.known = TextStatistics.read(wire["textStatistics"])

    def against(self, texts: Sequence[str | None]) -> dict[str, Finding]:
        write(self.folder, [{"story": text} for text in texts], "new.jsonl")
        columns = self.encoder.columns(table_of(self.folder, "new.jsonl"))
        tokens = self.encoder.tokenizer.encode(joined(columns)).tokens
        found = list(compare(self.known, columns, self.encoder.tokenizer, tokens))
        return {each.sentence.split(" is ")[0].split(":")[-1].strip(): each for each in found}

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """Return what the packaged tokenizer makes of texts, one by one."""
        learned = self.encoder.tokenizer.learned  # type: ignore[attr-defined]
        return [learned.encode(text).ids[: self.encoder.tokenizer.asked.max_length] for text in texts]


LENGTHS, TOKENS = "the number of characters", "the frequency of tokens"
SIZES = "the mean number of bytes of a text's tokens"


def texts(seed: int, count: int = 300) -> list[str]:
    return [row["story"] for row in stories(count, seed)]


def of(found: dict[str, Finding], what: str) -> float:
    return float(found[what].details["index"])


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path, stories(1000))


def test_texts_of_the_same_source_are_not_said(package: Package) -> None:
    for seed in range(1, 11):
        assert package.against(texts(seed)) == {}


def test_lengths(package: Package) -> None:
    longer = [f"{text} {text}" for text in texts(1)]
    train, new = ([float(len(text)) for text in found] for found in (package.train, longer))
    expected = index_of(by_decile(train, train), by_decile(train, new))
    found = package.against(longer)
    assert found.keys() == {LENGTHS}
    assert of(found, LENGTHS) == pytest.approx(expected, abs=1e-6)
    assert found[LENGTHS].details["column"] == "story"


def test_another_language(package: Package) -> None:
    """Of the same lengths, so that only its tokens tell."""
    other = [text.translate(str.maketrans("aeioust", "ɒɛɪɔʊʃθ")) for text in texts(1)]
    found = package.against(other)
    assert found.keys() == {SIZES, TOKENS}
    known, new = package.tokens(package.train), package.tokens(other)
    train = [len(text.encode()) / len(ids) for text, ids in zip(package.train, known, strict=True)]
    sizes = [len(text.encode()) / len(ids) for text, ids in zip(other, new, strict=True)]
    assert of(found, SIZES) == pytest.approx(index_of(by_decile(train, train), by_decile(train, sizes)), abs=1e-6)
    frequent = Counter(token for ids in known for token in ids)
    most = {token for token, _ in sorted(frequent.items(), key=lambda each: (-each[1], each[0]))[:20]}
    bins = [Counter(token if token in most else -1 for ids in each for token in ids) for each in (known, new)]
    assert of(found, TOKENS) == pytest.approx(index_of(*bins), abs=1e-6)


def test_another_subject_is_not_measured(package: Package) -> None:
    """The sentence of the module's documentation: a class that is rarer has the same pieces in the same lengths."""
    sea = [row["story"] for row in stories(700, 4) if row["label"] == "sea"][:300]
    assert LENGTHS not in package.against(sea)


def test_markup_is_found_by_its_tokens(package: Package) -> None:
    found = package.against([text.replace(" ", "<br>") for text in texts(1)])
    assert "token" in found[TOKENS].sentence
    assert "of the tokens" in found[TOKENS].sentence


def test_missing_texts_that_training_had_none_of(tmp_path: Path) -> None:
    package = Package(tmp_path, stories(300), missing="impute")
    found = package.against([None, "", " ", *texts(1, 7)])
    (one,) = found.values()
    assert one.sentence == "column story: 3 of 10 rows (30.0%) have no text, and in training each had one"
    rows = stories(300)
    rows[5]["story"] = rows[6]["story"] = ""
    rows += [row | {"story": ""} for row in stories(60, 3)]
    assert not Package(tmp_path, rows, missing="impute").against([None, *texts(1, 7)])


def test_few_rows_are_not_compared(package: Package) -> None:
    assert package.against(["x" * 50] * 99) == {}
    assert package.against(["x" * 50] * 100)


def test_bytes_have_statistics_too(tmp_path: Path) -> None:
    package = Package(tmp_path, stories(400), text={"tokenizer": "bytes"})
    assert package.against(texts(1)) == {}
    found = package.against([text.upper() for text in texts(1)])
    assert found.keys() == {TOKENS}
    assert "token 'e' is 0.0% of the tokens" in found[TOKENS].sentence or "all others are" in found[TOKENS].sentence


def test_several_columns_are_named(tmp_path: Path) -> None:
    both = {"story": {"role": "text"}, "title": {"role": "text"}}
    rows = [row | {"title": row["story"][:20]} for row in stories(400)]
    write(tmp_path, rows)
    asked = job(columns=both)
    train(asked, tmp_path)
    model = load_package(run_store(asked, tmp_path))
    new = [row | {"title": row["story"] * 3} for row in stories(200, 2)]
    write(tmp_path, new, "new.jsonl")
    found = model.findings(table_of(tmp_path, "new.jsonl"))
    assert {each.details.get("column") for each in found} == {"title", None}


def test_package_refuses_or_warns_or_does_not_look(tmp_path: Path) -> None:
    write(tmp_path, stories(300))
    asked = job()
    train(asked, tmp_path)
    store = run_store(asked, tmp_path)
    model = load_package(store)
    other = [text * 2 for text in texts(1)]
    with pytest.raises(DataError, match=r"differs from the training data in \d way.*Nothing was predicted"):
        model.predict_text(other, check="strict")
    with pytest.warns(DriftWarning, match="the number of characters is distributed differently") as caught:
        warned = model.predict_text(other)
    assert [each.filename for each in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.predict_text(other, check="off").tolist() == warned.tolist()
        assert len(model.predict_text(texts(2), check="strict")) == 300
    description = json.loads(store.get("model/data.json") or b"")
    del description["textStatistics"]
    store.put("model/data.json", json.dumps(description).encode())
    with pytest.raises(ConfigurationError, match="has no statistics of the train split"):
        load_package(store).predict_text(other, check="strict")


def test_cached_texts_have_the_same_statistics(tmp_path: Path) -> None:
    write(tmp_path, stories(300))
    found = []
    for mode in ("never", "always", "always"):
        data = load_data(job(cache={"mode": mode, "directory": str(tmp_path / "cache")}), tmp_path, {})
        found.append(data.description()["textStatistics"])
    assert found[0] == found[1] == found[2]
    assert np.isfinite(found[0]["sizes"]["high"])
