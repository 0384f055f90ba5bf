"""Every kind of table is cached: what is said, refused and trained on is the same as in memory, to the bit."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.data.tables import cache, encode, raw
from trainmaster_trainer.data.tables.cells import is_blank, without
from trainmaster_trainer.data.text.encode import TextEncoder
from trainmaster_trainer.errors import DataError

from tests.unit.trainer.data.tables import cache_process
from tests.unit.trainer.harness import small_job, train, weights

ROWS = 2000
ROOT = Path(__file__).parents[5]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let little data be many batches and files."""
    for module, names in ((raw, ("TEXT_BLOCK", "BATCH")), (encode, ("BLOCK",))):
        for name in names:
            monkeypatch.setattr(module, name, 4096)
    for module in (raw, cache):
        monkeypatch.setattr(module, "SEGMENT", 20_000)


def job(
    folder: Path, mode: str, *, task: str = "classification", model: dict[str, Any] | None = None, **data: Any
) -> TrainingJob:
    found = {"target": "y", "batchSize": 16, "cache": {"mode": mode, "directory": str(folder / "cache")}}
    sources = {key: str(folder / value) for key, value in data.items() if key in ("source", "validationSource")}
    changes: dict[str, Any] = {"spec.training.data": found | data | sources, "spec.training.task": {"name": task}}
    return small_job(changes if model is None else changes | {"spec.training.model": model})


def loaded(folder: Path, mode: str, **data: Any) -> Prepared:
    return load_data(job(folder, mode, **data), folder, {})


def assert_same(folder: Path, **data: Any) -> tuple[Prepared, Prepared]:
    """Compare all that a job reads in memory and from the cache, to the bit."""
    one, other = loaded(folder, "never", **data), loaded(folder, "always", **data)
    assert not (one.notes and one.notes[-1].startswith("cached in"))
    assert other.notes[-1].startswith(f"cached in {folder / 'cache'}/tables (")
    for a, b in zip((one.train, one.validation, one.test), (other.train, other.validation, other.test), strict=True):
        assert (a == b).all()
    rows = np.random.default_rng(0).permutation(len(one.rows))
    for some in np.array_split(rows, 7):
        for mine, cached in zip(one.rows.batch(some), other.rows.batch(some), strict=True):
            assert isinstance(mine, torch.Tensor)
            assert isinstance(cached, torch.Tensor)
            assert (mine.dtype, mine.shape) == (cached.dtype, cached.shape)
            assert mine.numpy().tobytes() == cached.numpy().tobytes()
    assert (one.said, one.warnings, one.description()) == (other.said, other.warnings, other.description())
    assert other.about().replace(f"{other.notes[-1]}\n", "").replace(other.notes[-1], "").strip() == one.about().strip()
    assert list((folder / "cache" / "tables").glob("*/table.json"))
    return one, other


def refusal(folder: Path, mode: str, **data: Any) -> str:
    with pytest.raises(DataError) as found:
        loaded(folder, mode, **data)
    return str(found.value)


def assert_same_weights(folder: Path, **data: Any) -> None:
    found = []
    for mode in ("never", "always"):
        trained = job(folder, mode, **data)
        train(trained, folder / mode)
        found.append(weights(trained, folder / mode))
    assert found[0] == found[1]


# --- several sources -------------------------------------------------------------------------------------------------


def write_sources(folder: Path) -> dict[str, Any]:
    """Write three sources in which a column is of several types: numbers, whole numbers, nothing."""
    dice = np.random.default_rng(0)
    for name, values in (
        ("t.csv", [f"{x:.6f}" for x in dice.normal(size=ROWS) * 1e15]),
        ("v.csv", [str(x) for x in dice.integers(2**53, 2**53 + 9, 300)]),
        ("w.csv", [""] * 200),
    ):
        lines = [f"{x},{dice.integers(9)},{dice.choice(['a', 'b', ''])},{row % 2}" for row, x in enumerate(values)]
        (folder / name).write_text("x,k,c,y\n" + "".join(f"{line}\n" for line in lines))
    return {
        "source": "t.csv", "validationSource": "v.csv", "testSource": str(folder / "w.csv"), "csv": {"delimiter": ","},
    }  # fmt: skip


@pytest.mark.parametrize("missing", ["impute", "drop"])
def test_several_sources_are_the_same(tmp_path: Path, missing: str) -> None:
    asked = write_sources(tmp_path)
    if missing == "drop":  # the last source has no value of x
        del asked["testSource"]
    _, other = assert_same(tmp_path, missing=missing, **asked)
    assert len(list((tmp_path / "cache" / "tables").glob("*/table.json"))) == len(asked) - 1
    assert list((tmp_path / "cache" / "tables").glob("*/column-0-*.arrow"))  # x of the second, as numbers
    x = other.rows.table.column("x")  # type: ignore[attr-defined]
    assert any("integers as the nearest number" in note for note in x.notes)
    assert pc.count(x.values).as_py() == ROWS + 300


def test_several_sources_train_to_the_same_weights(tmp_path: Path) -> None:
    assert_same_weights(tmp_path, missing="impute", **write_sources(tmp_path))


def test_several_sources_are_refused_alike(tmp_path: Path) -> None:
    asked = write_sources(tmp_path)
    (tmp_path / "v.csv").write_text("x,k,d,y\n1,2,a,0\n")
    found = [refusal(tmp_path, mode, missing="impute", **asked) for mode in ("never", "always")]
    assert found[0] == found[1]
    assert "has no column 'c'" in found[0]


def test_samples_of_several_sources_are_those_of_all(tmp_path: Path) -> None:
    """Another file behind validationSource has other samples, although the first source is the same."""
    asked = write_sources(tmp_path)
    assert_same(tmp_path, missing="impute", **asked)
    text = (tmp_path / "v.csv").read_text().splitlines()
    (tmp_path / "v.csv").write_text("\n".join([text[0], *text[:0:-1]]) + "\n")  # the same statistics, in another order
    assert_same(tmp_path, missing="impute", **asked)


# --- JSON Lines ------------------------------------------------------------------------------------------------------


def write_lines(folder: Path) -> dict[str, Any]:
    """Write two files of lines whose types and keys appear late: nulls first, then whole numbers, then fractions."""
    dice = np.random.default_rng(1)
    for name, rows in (("a.jsonl", ROWS), ("b.jsonl", 300)):
        lines = []
        for row in range(rows):
            record: dict[str, Any] = {
                "y": "no" if row % 2 else "yes",
                "n": None if row < 400 else 2**53 + 1 + row if row < 900 else row / 7,
            }
            record |= {"c": str(dice.choice(["a", "ü"])), "big": row + (2**64 if row % 700 == 699 else 0)}
            record |= {"t": f"2024-01-{row % 28 + 1:02}", "b": bool(row % 3), "none": None, "list": [row]}
            if row > rows // 2:
                record["late"] = row
            lines.append(json.dumps(record) + ("\n\n" if row % 500 == 0 else "\n"))
        (folder / "parts.jsonl").mkdir(exist_ok=True)
        (folder / "parts.jsonl" / name).write_text("".join(lines))
    return {"source": "parts.jsonl", "format": "jsonl", "missing": "impute", "columns": {"list": {"role": "ignore"}}}


def test_json_lines_are_the_same(tmp_path: Path) -> None:
    one, other = assert_same(tmp_path, **write_lines(tmp_path))
    mine, cached = (each.rows.table for each in (one, other))  # type: ignore[attr-defined]
    assert (mine.parts, mine.left_out) == (cached.parts, cached.left_out)
    for a, b in zip(mine.columns, cached.columns, strict=True):
        assert (a.name, a.type, a.notes) == (b.name, b.type, b.notes)
        assert a.values.equals(b.values)
    assert any("which don't have the key" in note for note in cached.column("late").notes)
    assert any("integers as the nearest number" in note for note in cached.column("n").notes)


def test_json_lines_train_to_the_same_weights(tmp_path: Path) -> None:
    assert_same_weights(tmp_path, **write_lines(tmp_path))


@pytest.mark.parametrize(
    ("at", "line"),
    [(1500, '{"y": "no", "n": 1'), (1500, '{"y": "no", "n": "1"}'), (1200, '{"y": "no", "d": {}}'), (3, "[1]")],
)
def test_json_lines_are_refused_alike(tmp_path: Path, at: int, line: str) -> None:
    asked = write_lines(tmp_path)
    file = tmp_path / "parts.jsonl" / "a.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:at], line, line, *lines[at:]]) + "\n")
    found = [refusal(tmp_path, mode, **asked) for mode in ("never", "always")]
    assert found[0] == found[1]
    assert not list((tmp_path / "cache" / "tables").glob("*/*"))


def test_json_lines_may_have_no_keys(tmp_path: Path) -> None:
    """A block of records without a key is as many rows."""
    records = ["{}" if 500 < row < 2500 else json.dumps({"y": row % 2, "x": row}) for row in range(4000)]
    (tmp_path / "t.jsonl").write_text("\n".join(records))
    asked = {"source": "t.jsonl"}
    assert refusal(tmp_path, "never", **asked) == refusal(tmp_path, "always", **asked)


def test_entry_of_json_lines_depends_on_what_may_be_nested(tmp_path: Path) -> None:
    asked = write_lines(tmp_path)
    assert_same(tmp_path, **asked)
    assert "column list has lists or objects" in refusal(tmp_path, "always", **asked | {"columns": {}})


# --- text ------------------------------------------------------------------------------------------------------------

TINY: dict[str, Any] = {"name": "transformer", "args": {"dim": 16, "depth": 1, "heads": 2}}


def write_texts(folder: Path, kind: str = "csv") -> dict[str, Any]:
    """Write two columns of text: long and short, some blank, some empty, some copied."""
    dice, words = np.random.default_rng(2), ["ship", "wave", "Über", "cloud", "wing", "日本", "o'clock"]
    texts = [" ".join(dice.choice(words, dice.integers(1, 30))) for _ in range(ROWS)]
    texts[5:9], texts[700], texts[1999] = ["  ", "\u3000", "", " \t"], texts[3], "x" * 9000
    heads = [str(dice.choice(["", "one", "two words"])) for _ in range(ROWS)]
    table = pa.table({"body": texts, "head": heads, "y": [row % 3 for row in range(ROWS)]})
    if kind == "csv":
        pa.csv.write_csv(table, folder / "t.csv", pa.csv.WriteOptions(quoting_style="all_valid"))
    elif kind == "jsonl":
        (folder / "t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in table.to_pylist()))
    else:
        pq.write_table(table, folder / "t.parquet", row_group_size=300)
    roles = {name: {"role": "text"} for name in ("body", "head")}
    return {"source": f"t.{kind}", "columns": roles, "missing": "impute", "text": {"vocabulary": 300, "maxLength": 64}}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("missing", ["impute", "drop"])
def test_texts_are_the_same(tmp_path: Path, kind: str, missing: str) -> None:
    asked = write_texts(tmp_path, kind)
    one, other = assert_same(tmp_path, **asked | {"missing": missing})
    assert isinstance(other.rows.tokens.values, np.memmap)  # type: ignore[attr-defined]
    assert one.rows.files() == other.rows.files()  # type: ignore[attr-defined]
    assert np.array_equal(one.lengths, other.lengths)  # type: ignore[arg-type]
    assert any("without a character" in note for note in one.rows.plans[0].column.notes)  # type: ignore[attr-defined]


@pytest.mark.parametrize("start", [0, 1, 9])
def test_blank_texts_become_null_without_a_copy(start: int) -> None:
    texts = pa.array(["a", " ", None, "b", "\u3000", "", "c"] * 3, pa.large_string())[start:]
    found = without(texts, is_blank(texts))
    assert found.to_pylist() == [text if text and text.strip() else None for text in texts.to_pylist()]
    assert found.null_count == sum(not (text and text.strip()) for text in texts.to_pylist())
    assert found.buffers()[2].address == texts.buffers()[2].address


def test_long_texts_are_checked_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where texts may not fit into memory their hashes are compared: the same is found."""
    asked = write_texts(tmp_path)
    table = pa.csv.read_csv(tmp_path / "t.csv", convert_options=pa.csv.ConvertOptions(strings_can_be_null=False))
    tell = [f"of class {row % 3}" for row in range(ROWS)]
    pa.csv.write_csv(table.append_column("tell", [tell]), tmp_path / "t.csv")
    asked["columns"] = {"tell": {"role": "text"}}
    asked["features"] = ["tell"]
    plain = refusal(tmp_path, "never", **asked)
    assert "`tell` has a value of its own for each value of the target" in plain
    asked["columns"] = {"body": {"role": "text"}}
    asked["features"] = ["body"]
    one = loaded(tmp_path, "never", **asked)
    assert any("exact cop" in warning for warning in one.warnings)
    monkeypatch.setattr("trainmaster_trainer.data.tables.distinct.LARGE_BYTES", 10)
    other = loaded(tmp_path, "always", **asked)
    assert (one.warnings, one.description()) == (other.warnings, other.description())
    asked["columns"] = {"tell": {"role": "text"}}
    asked["features"] = ["tell"]
    assert refusal(tmp_path, "always", **asked) == plain


def test_texts_train_to_the_same_weights(tmp_path: Path) -> None:
    assert_same_weights(tmp_path, model=TINY, **write_texts(tmp_path))


def test_texts_are_refused_alike(tmp_path: Path) -> None:
    asked = write_texts(tmp_path) | {"missing": "error"}
    found = [refusal(tmp_path, mode, **asked) for mode in ("never", "always")]
    assert found[0] == found[1]
    assert "row 6, column body: is empty" in found[0]


@pytest.mark.parametrize("left", ["both", "tokens", "none"])
def test_tokens_are_written_once_and_read_on_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """What a killed process left: a text cut off in both files, tokens without lengths, nothing."""
    asked = write_texts(tmp_path)
    first = loaded(tmp_path, "always", **asked)
    file = next((tmp_path / "cache" / "tables").glob("*/*.tokens"))
    lengths = file.with_suffix(".lengths")
    whole = file.read_bytes(), lengths.read_bytes()
    first.rows._cached.entry.close()  # type: ignore[attr-defined]
    file.unlink()
    lengths.unlink()
    if left != "none":
        file.with_suffix(".partial").write_bytes(whole[0][: len(whole[0]) // 2 + 1])
    if left == "both":
        lengths.write_bytes(whole[1][: ROWS // 2 * 4 + 3])
    rows: list[int] = []
    blocks = TextEncoder.blocks

    def counted(self: TextEncoder, columns: Any, some: Any) -> Any:
        rows.append(len(some))
        return blocks(self, columns, some)

    monkeypatch.setattr(TextEncoder, "blocks", counted)
    loaded(tmp_path, "always", **asked)
    loaded(tmp_path, "always", **asked)
    assert len(rows) == 1
    assert (rows[0] < ROWS * 2 // 3) == (left == "both")
    assert (file.read_bytes(), lengths.read_bytes()) == whole


def test_texts_larger_than_memory(tmp_path: Path) -> None:
    """400 MB of texts are read, checked, encoded and made batches of in 100 MB, a quarter of their size."""
    rows = 100_000
    letters = np.random.default_rng(0).integers(97, 122, 1 << 20, dtype=np.uint8).tobytes().decode()
    schema = pa.schema({"body": pa.string(), "y": pa.int64()})
    with pq.ParquetWriter(tmp_path / "t.parquet", schema, use_dictionary=False, compression="none") as writer:
        for seed in range(0, rows, 5000):
            starts = np.random.default_rng(seed).integers(0, 10**6, 5000)
            texts = [f"{letters[at : at + 4000]} {seed}" for at in starts]
            writer.write_table(pa.table({"body": texts, "y": [row % 2 for row in range(5000)]}, schema))
    size = (tmp_path / "t.parquet").stat().st_size
    more = {"columns": {"body": {"role": "text"}}, "text": {"tokenizer": "bytes", "maxLength": 512}}
    command = [sys.executable, cache_process.__file__, "measure", str(tmp_path), "t.parquet", str(tmp_path / "cache")]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | cache_process.EXACT_MEMORY | {"PYTHONPATH": paths}
    ran = subprocess.run([*command, json.dumps(more)], env=env, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["rows"] == rows
    assert size > 400 * 10**6
    assert found["peak"] < size / 4


# --- images ----------------------------------------------------------------------------------------------------------


def write_images(folder: Path, kind: str) -> dict[str, Any]:
    """Write small images as files behind paths, as bytes, or as the struct of both; the last are copies."""
    dice, rows = np.random.default_rng(3), 120
    cells: list[Any] = []
    for row in range(rows):
        content = io.BytesIO()
        Image.fromarray(dice.integers(0, 256, (9, 7, 3), np.uint8)).save(content, "png")
        (folder / f"{row}.png").write_bytes(content.getvalue())
        path = f"{row % 110}.png"
        read = (folder / path).read_bytes()
        cells.append({"path": path, "bytes": read, "struct": {"bytes": read, "path": path}}[kind])
    cells[7] = None
    table = pa.table({"picture": cells, "k": list(range(rows)), "y": [row % 2 for row in range(rows)]})
    pq.write_table(table, folder / "t.parquet", row_group_size=30)
    return {
        "source": "t.parquet", "columns": {"picture": {"role": "image"}}, "missing": "drop", "imageSize": 8,
        "model": {"name": "cnn"},
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["path", "bytes", "struct"])
def test_images_of_a_column_are_the_same(tmp_path: Path, kind: str) -> None:
    asked = write_images(tmp_path, kind)
    one, other = assert_same(tmp_path, **asked)
    assert any("exact cop" in warning for warning in one.warnings)
    assert one.rows.content.identity() == other.rows.content.identity()  # type: ignore[attr-defined]
    again = pickle.loads(pickle.dumps(other.rows))
    assert torch.equal(again.batch(np.arange(5))[0], one.rows.batch(np.arange(5))[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_a_column_train_to_the_same_weights(tmp_path: Path, workers: int) -> None:
    assert_same_weights(tmp_path, loading={"workers": workers}, **write_images(tmp_path, "bytes"))


def test_images_of_a_column_are_refused_alike(tmp_path: Path) -> None:
    asked = write_images(tmp_path, "path")
    (tmp_path / "3.png").write_bytes(b"no image")
    found = [refusal(tmp_path, mode, **asked) for mode in ("never", "always")]
    assert found[0] == found[1]
    assert "3.png" in found[0]
