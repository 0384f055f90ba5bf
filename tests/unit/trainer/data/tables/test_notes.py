"""What the report says of a column that should be looked at twice."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trainmaster_trainer.data import load_data

from tests.unit.trainer.harness import small_job

ROWS = 200
NOISE = np.random.default_rng(0).normal(size=ROWS).round(4)


def notes(folder: Path, values: Any, **column: Any) -> list[str]:
    """The notes on a column `b` beside a good feature."""
    pq.write_table(pa.table({"a": NOISE, "b": values, "y": np.arange(ROWS) % 2}), folder / "t.parquet")
    asked = {"source": "t.parquet", "target": "y", "batchSize": 16, "missing": "impute", "columns": {"b": column}}
    task = {"name": "classification"}
    data = load_data(small_job({"spec.training.data": asked, "spec.training.task": task}), folder, {})
    (found,) = [each for each in data.description()["table"]["columns"] if each["name"] == "b"]
    return list(found["notes"])


def but_for(value: Any, base: Any = NOISE) -> Any:
    changed = list(base)
    changed[17] = value
    return changed


DAYS = np.datetime64("2024-01-01", "us") + np.arange(ROWS) * np.timedelta64(1, "D")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (but_for(-9999.0), "row 18 is -9999.0, far from all others"),
        (but_for(1e6), "row 18 is 1000000.0, far"),
        (but_for(2**31 - 1, np.arange(ROWS) % 50), "row 18 is 2147483647, far"),
        (but_for(np.datetime64("1970-01-01", "us"), DAYS), "row 18 is 1970-01-01 00:00:00, far"),
        (but_for(np.datetime64("9999-12-31", "us"), DAYS), "row 18 is 9999-12-31 00:00:00, far"),
        ([f"${i % 7}" for i in range(ROWS)], r"text such as '\$0' is no number"),
        ([f"{i % 7} %" for i in range(ROWS)], "text such as '0 %' is no number"),
        ([f"{i % 7},000,123" for i in range(ROWS)], "text such as '0,000,123' is no number"),
        ([f"\N{MINUS SIGN}{i % 7}" for i in range(ROWS)], "is no number"),
        ([["Oslo", "oslo", "Rome"][i % 3] for i in range(ROWS)], "'Oslo', 'oslo' are different categories"),
        ([["Rome", "Ro\u200bme"][i % 2 ^ (i // 50 % 2)] for i in range(ROWS)], r"'Rome', 'Ro\\u200bme' are different"),
        ([["caf\u00e9", "cafe\u0301"][i // 50 % 2] for i in range(ROWS)], r"'cafe\\u0301', 'caf\\xe9' are different"),
        (np.arange(ROWS), "counts the rows from 0"),
        (1e16 + np.arange(ROWS) % 4 * 2.0 + np.where(NOISE > 0, 1e17, 0), "float32 can tell 2 of its 5 distinct"),
    ],
)
def test_column_to_look_at_twice(tmp_path: Path, values: Any, words: str) -> None:
    found = notes(tmp_path, values)
    assert len(found) == 1
    assert re.search(words, found[0])


def lognormal(sigma: float) -> Callable[[], Any]:
    return lambda: np.exp(np.random.default_rng(1).normal(size=ROWS) * sigma)


@pytest.mark.parametrize(
    "make",
    [
        lambda: NOISE,
        lognormal(2.0),  # incomes, sizes of files
        lambda: np.where(np.arange(ROWS) % 10 == 0, 50_000.0, 0.0),  # mostly zero
        lambda: but_for(999, 500 + NOISE * 300),  # within the others
        lambda: DAYS,
        lambda: [f"{i % 7:05d}" for i in range(ROWS)],  # codes
        lambda: [["5 kg", "a-1", "x"][i % 3] for i in range(ROWS)],
        lambda: [["Oslo", "Rome"][i // 50 % 2] for i in range(ROWS)],
    ],
)
def test_column_like_any_other(tmp_path: Path, make: Callable[[], Any]) -> None:
    assert notes(tmp_path, make()) == []


def test_report_stays_in_its_lines(tmp_path: Path) -> None:
    """A line break in a name or a category would look like another row of the table."""
    names = ["a\nb", "y"]
    cells = [["x\n1", "x\u202e2", "z\xa03"][i * 7 % 3] for i in range(ROWS)]
    pq.write_table(pa.table([cells, np.arange(ROWS) % 2], names=names), tmp_path / "t.parquet")
    asked = {"source": "t.parquet", "target": "y", "batchSize": 16}
    task = {"name": "classification"}
    data = load_data(small_job({"spec.training.data": asked, "spec.training.task": task}), tmp_path, {})
    lines = data.about().splitlines()
    assert all(line.isprintable() for line in lines)
    (line,) = [line for line in lines if r"a\nb" in line]
    assert r"x\n1, x\u202e2, z\xa03" in line
