"""Situations with names and indexes of tables from public bug reports, and further members of their kinds."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .test_case_tables import CLASSES, ROWS, A, B, accuracy, load, refusal, text, write

# --- names of columns (dask#5000) ------------------------------------------------------------------------------------


def frame(names: list[Any]) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():  # of mixed types of names
        warnings.simplefilter("ignore")
        pd.DataFrame(np.c_[A, B, CLASSES], columns=names).to_parquet(out)
    return out.getvalue()


def table(names: list[str]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table([A, B, CLASSES], names=names), out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "features", "target"),
    [
        (frame([0, 1, 2]), ["0", "1"], "2"),
        (frame([0.5, 1.5, "y"]), ["0.5", "1.5"], "y"),
        (frame([b"a", b"b", "y"]), ["a", "b"], "y"),
        (frame([("p", "a"), ("p", "b"), ("y", "")]), ["('p', 'a')", "('p', 'b')"], "('y', '')"),
        (table([" a ", "b c", "y"]), ["a", "b c"], "y"),
        (table(["a.b", "a[0]", "y"]), ["a.b", "a[0]"], "y"),
        (table(["a\nb", "a,b", "y"]), ["a\nb", "a,b"], "y"),
        (table(["Y", "\N{LATIN SMALL LETTER U WITH DIAERESIS}", "y"]), ["Y", "\xfc"], "y"),
    ],
    ids=["whole", "fraction", "bytes", "levels", "spaces", "dots", "breaks", "case"],
)
def test_any_name_of_a_column_is_text(tmp_path: Path, content: bytes, features: list[str], target: str) -> None:
    (tmp_path / "t.parquet").write_bytes(content)
    data = load(tmp_path, "t.parquet", target=target, normalize=False)
    assert data.rows.features == features
    x, y = data.rows.batch(np.arange(ROWS))
    np.testing.assert_array_equal(x.numpy(), np.c_[A, B].astype(np.float32))
    np.testing.assert_array_equal(y.numpy(), CLASSES)


@pytest.mark.parametrize("names", [["a", "a", "y"], ["a", " a", "y"], ["a", "", "y"], ["a", " ", "y"]])
def test_names_that_mean_no_column_are_refused_from_both(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "t.parquet").write_bytes(table(names))
    (tmp_path / "t.csv").write_text(text(",".join(names)))
    words = "has no name" if not names[1].strip() else "is 'a' again, as field 1"
    for source in ("t.csv", "t.parquet"):
        assert refusal(tmp_path, source).startswith(f"{source}: field 2 of the header {words}")


def test_columns_named_with_numbers_train(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(frame([0, 1, 2]))
    assert accuracy(tmp_path, "t.parquet", target="2") >= 0.9


@pytest.mark.parametrize(
    ("asked", "near"), [("Y", "y"), (" y", "y"), ("YY", None)], ids=["case", "space", "other"]
)  # fmt: skip
def test_target_that_is_almost_a_name(tmp_path: Path, asked: str, near: str | None) -> None:
    (tmp_path / "t.csv").write_text(text())
    found = refusal(tmp_path, target=asked)
    assert found.startswith(f"t.csv has no column {asked!r}")
    assert (f"did you mean '{near}'?" in found) is (near is not None)


# --- columns that give the target away (datasets PR 5490) ------------------------------------------------------------

SORTED = np.sort(np.arange(ROWS) % 2)


@pytest.mark.parametrize(
    ("header", "index"),
    [
        ("", range(ROWS)),
        ("", range(1, ROWS + 1)),
        ('""', [f'"{n}"' for n in range(1, ROWS + 1)]),  # R's write.csv
    ],
    ids=["pandas", "from-1", "R"],
)
def test_nameless_index_is_left_out_and_the_accuracy_is_honest(
    tmp_path: Path, header: str, index: Sequence[Any]
) -> None:
    lines = [f"{n},{a},{b},{y}" for n, a, b, y in zip(index, A, B, SORTED, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join([f"{header},a,b,y", *lines]))
    data = load(tmp_path)
    assert data.rows.features == ["a", "b"]
    assert "left out: the first column, which has no name: counts the rows" in data.about()
    assert accuracy(tmp_path) < 0.8  # coin flips; 1.0 from the index


def test_index_of_pandas_is_left_out(tmp_path: Path) -> None:
    for index in (np.arange(ROWS) + 5, np.random.default_rng(0).permutation(ROWS)):
        pd.DataFrame({"a": A, "y": SORTED}, index=index).to_parquet(tmp_path / "t.parquet")
        assert pq.read_schema(tmp_path / "t.parquet").names == ["a", "y", "__index_level_0__"]
        data = load(tmp_path, "t.parquet")
        assert data.rows.features == ["a"]
        assert "left out: column __index_level_0__" in data.about()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Unnamed: 0", range(ROWS)),
        ("id", range(ROWS)),
        ("id", np.random.default_rng(0).choice(10**9, ROWS, replace=False)),
        ("day", [datetime(2024, 1, 1) + timedelta(days=n) for n in range(ROWS)]),
        ("noisy", SORTED + np.random.default_rng(0).normal(0, 0.01, ROWS).round(4)),
        ("code", [f"{'pq'[y]}{n % 4}" for n, y in enumerate(SORTED)]),
    ],
    ids=["pandas", "id", "shuffled-id", "day", "noisy-copy", "codes"],
)
@pytest.mark.parametrize("file", ["t.csv", "t.parquet"])
def test_column_that_gives_the_target_away_is_named(
    tmp_path: Path, name: str, values: Sequence[Any], file: str
) -> None:
    rows = np.argsort(np.asarray(values)) if name == "id" else np.arange(ROWS)  # sorted by it, in any order in the file
    y = np.empty(ROWS, int)
    y[rows] = SORTED
    cells = [value.item() if isinstance(value, np.generic) else value for value in values]
    write(tmp_path, {name: cells, "a": A.tolist(), "y": y.tolist()}, file)
    assert any(f"`{name}`" in warning and "target `y`" in warning for warning in load(tmp_path, file).warnings)


@pytest.mark.parametrize(
    "copy", [SORTED, 1 - SORTED, [f"c{y}" for y in SORTED], [bool(y) for y in SORTED], SORTED * 0.1]
)
@pytest.mark.parametrize("shuffled", [False, True])
def test_copy_of_the_target_is_refused(tmp_path: Path, copy: Sequence[Any], shuffled: bool) -> None:
    rows = np.random.default_rng(0).permutation(ROWS) if shuffled else np.arange(ROWS)
    write(tmp_path, {"a": A[rows], "k": [copy[row] for row in rows], "y": SORTED[rows].tolist()})
    assert "feature `k` " in refusal(tmp_path)
