"""Data that is replaced between two attempts (datasets#2956, OpenTau#502), and further members of the kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from trainmaster_api.messages import Outcome
from trainmaster_trainer.errors import DataChanged

from tests.unit.trainer.harness import Recording, small_job, train

ROWS = [f"{i % 7},{i % 5},{int(i % 7 > 3)}" for i in range(200)]


def job(source: str, **data: Any) -> Any:
    table = {} if source.startswith("images:") else {"target": "cls"}
    asked = {"source": source, "batchSize": 32, "imageSize": 8, **table, **data}
    task = {"name": "classification"}
    loop = {"duration": "40ep", "seed": 3}
    return small_job({"spec.training.task": task, "spec.training.data": asked, "spec.training.loop": loop})


def csv(path: Path, rows: list[str] = ROWS) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["a,b,cls", *rows]) + "\n")


def parts(folder: Path) -> None:
    for number in range(2):
        csv(folder / "days" / f"{number}.csv", ROWS[number::2])


def parquet(folder: Path) -> None:
    columns = np.array([[int(cell) for cell in row.split(",")] for row in ROWS]).T
    pq.write_table(pa.table(dict(zip(("a", "b", "cls"), columns, strict=True))), folder / "t.parquet")


def pictures(folder: Path) -> None:
    for number in range(80):
        path = folder / "images" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 3 * number).save(path)


def same_size_and_time(path: Path, old: bytes, new: bytes) -> None:
    stat = path.stat()
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)


TABLE = job("t.csv")
DAYS = job("days", format="csv")
COLUMNS = job("t.parquet")
IMAGES = job("images:images")


@pytest.mark.parametrize(
    ("asked", "make", "change", "said"),
    [
        (TABLE, lambda f: csv(f / "t.csv"), lambda f: csv(f / "t.csv", [*ROWS, "1,1,0"]), "202 lines, before 201"),
        (TABLE, lambda f: csv(f / "t.csv"), lambda f: csv(f / "t.csv", ROWS[::-1]), "t.csv: other content"),
        (
            TABLE,
            lambda f: csv(f / "t.csv"),
            lambda f: same_size_and_time(f / "t.csv", b"6,1,1", b"6,1,0"),
            "t.csv: other content, 1,208 bytes; 201 lines; line",
        ),
        (DAYS, parts, lambda f: csv(f / "days" / "2.csv"), "days/2.csv: added"),
        (DAYS, parts, lambda f: (f / "days" / "1.csv").unlink(), "days/1.csv: removed"),
        (DAYS, parts, lambda f: (f / "days/1.csv").rename(f / "days/9.csv"), "days/9.csv: renamed, before days/1"),
        (
            COLUMNS,
            parquet,
            lambda f: pq.write_table(pq.read_table(f / "t.parquet").slice(0, 199), f / "t.parquet"),
            "199 rows, before 200",
        ),
        (
            COLUMNS,
            parquet,
            lambda f: pq.write_table(
                pq.read_table(f / "t.parquet").rename_columns(["b", "a", "cls"]), f / "t.parquet"
            ),
            "t.parquet: ",
        ),
        (
            IMAGES,
            pictures,
            lambda f: (f / "images" / "cat").rename(f / "images" / "lynx"),
            "lynx/0.png: renamed, before cat/0.png",
        ),
        (IMAGES, pictures, lambda f: Image.new("L", (8, 8), 9).save(f / "images" / "cat" / "0.png"), "cat/0.png: "),
        (IMAGES, pictures, lambda f: (f / "images" / "cat" / "0.png").unlink(), "cat/0.png: removed"),
    ],
    ids=[
        "appended", "reordered", "same-size-and-time", "part-added", "part-removed", "part-renamed", "rows-removed",
        "columns-swapped", "class-renamed", "image-replaced", "image-removed",
    ],
)  # fmt: skip
def test_changed_data_is_not_trained_on(
    tmp_path: Path, asked: Any, make: Callable[[Path], Any], change: Callable[[Path], Any], said: str
) -> None:
    make(tmp_path)
    assert train(asked, tmp_path, recording=Recording(stop_at=2)).outcome is Outcome.STOPPED
    change(tmp_path)
    recording = Recording()
    with pytest.raises(DataChanged) as caught:
        train(asked, tmp_path, attempt=2, recording=recording)
    assert said in str(caught.value)
    assert recording.reports == []


@pytest.mark.parametrize(
    ("asked", "make", "change"),
    [
        (TABLE, lambda f: csv(f / "t.csv"), lambda f: os.utime(f / "t.csv", (1, 1))),
        (TABLE, lambda f: csv(f / "t.csv"), lambda f: csv(f / "u.csv")),
        (DAYS, parts, lambda f: (f / "days" / "_SUCCESS").touch()),
        (IMAGES, pictures, lambda f: (f / "images" / ".DS_Store").write_bytes(b"x")),
        (IMAGES, pictures, lambda f: (f / "images" / "cat" / "Thumbs.db").write_bytes(b"x")),
    ],
    ids=["touched", "beside", "marker", "hidden", "thumbs"],
)
def test_data_that_is_the_same_is_resumed(
    tmp_path: Path, asked: Any, make: Callable[[Path], Any], change: Callable[[Path], Any]
) -> None:
    make(tmp_path)
    assert train(asked, tmp_path, recording=Recording(stop_at=2)).outcome is Outcome.STOPPED
    change(tmp_path)
    recording = Recording(stop_at=3)
    assert train(asked, tmp_path, attempt=2, recording=recording).step >= 2
