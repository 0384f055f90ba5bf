"""What was found in a cached table is read by the next start, and never where anything that it is of has changed."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.data.tables import results
from trainmaster_trainer.data.tables.cache import CachedTable, cached_table
from trainmaster_trainer.data.tables.results import UNUSED, Results, to_json
from trainmaster_trainer.errors import DataError

from tests.unit.trainer.data.tables.test_cache import asked, opened
from tests.unit.trainer.harness import small_job

ROWS = 1500
NAMES = ("roles", "encoder", "columns", "checks", "copies", "statistics")
LOOKED = ("deciding the roles of", "measuring", "describing", "checking")


def text(rows: int = ROWS, seed: int = 0) -> str:
    """Return rows with everything that is found: a copy of the target, copies of rows, far values, missing ones."""
    dice = np.random.default_rng(seed)
    lines = []
    for row in range(rows):
        y = int(dice.integers(2))
        x = -9999 if row == 700 else round(float(dice.normal()) + y, 3)
        lines.append(
            f"{x},{dice.choice(['a', 'B', 'b', ''])},2024-01-{1 + row % 28:02},{row // 3},{y + abs(x) / 1e3:.4f},{y}\n"
        )
    lines[10:20] = lines[900:910] = lines[300:310]
    return "x,c,day,who,near,y\n" + "".join(lines)


def job(folder: Path, mode: str, task: str = "classification", **data: Any) -> TrainingJob:
    found = {
        "source": str(folder / "t.csv"), "target": "y", "batchSize": 16, "missing": "impute",
        "csv": {"delimiter": ","}, "cache": {"mode": mode, "directory": str(folder / "cache")},
    }  # fmt: skip
    return small_job({"spec.training.data": found | data, "spec.training.task": {"name": task}})


def start(folder: Path, mode: str = "always", **asked: Any) -> tuple[list[Any], list[str]]:
    """Return everything that is said and trained on, and what was looked for."""
    said: list[str] = []
    found = load_data(job(folder, mode, **asked), folder, {}, said.append)
    return everything(found), [words for words in LOOKED if any(each.startswith(words) for each in said)]


def everything(found: Prepared) -> list[Any]:
    parts = [part.tobytes() for part in (found.train, found.validation, found.test)]
    x, y = found.rows.batch(np.arange(len(found.rows)))
    assert isinstance(x, torch.Tensor)
    weight: torch.Tensor | None = getattr(found.rows, "weights", None)
    about = [
        line for line in found.about().splitlines() if "cached in" not in line and "mapped into memory" not in line
    ]
    numbers = [each.numpy().tobytes() for each in (x, y, *([] if weight is None else [weight]))]
    return [*parts, *numbers, found.said, found.warnings, found.description(), found.files(), about]


def stored(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "cache/tables").glob("*/found-*.bin"))}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"missing": "drop", "dedupe": True},
        {
            "categories": "index",
            "columns": {"who": {"role": "group"}, "x": {"role": "ignore"}, "near": {"role": "weight"}},
        },
        {"columns": {"day": {"role": "datetime", "indicator": True}, "x": {"missing": "drop"}}},
        {"features": ["c"], "missing": "drop", "columns": {"c": {"role": "text"}}, "nulls": ["", "B"]},
        {"task": "regression", "target": "near", "normalize": False},
    ],
)
def test_second_start_looks_for_nothing(tmp_path: Path, more: dict[str, Any]) -> None:
    (tmp_path / "t.csv").write_text(text())
    in_memory, nothing = start(tmp_path, "never", **more)
    first, looked = start(tmp_path, **more)
    files = stored(tmp_path)
    second, again = start(tmp_path, **more)
    assert in_memory == first == second
    assert (nothing, again) == ([], [])
    assert {"deciding the roles of", "describing", "checking"} <= set(looked)
    assert stored(tmp_path) == files
    assert {name.split("-")[1] for name in files} >= {"roles", "columns", "checks", "copies"}


@pytest.mark.parametrize("case", ["content", "rows", "file", "second source"])
def test_changed_data_is_looked_through_again(tmp_path: Path, case: str) -> None:
    """The size and the time of the file are the same where only its content changes."""
    path, other, more = tmp_path / "t.csv", text(seed=1), {}
    path.write_text(text())
    if case == "second source":
        path = tmp_path / "v.csv"
        path.write_text(text(300))
        more, other = {"validationSource": str(path)}, text(300, seed=1)
    elif case == "file":
        path = tmp_path / "d.csv/1.csv"
        path.parent.mkdir()
        path.write_text(text())
        more = {"source": str(tmp_path / "d.csv")}
    before, _ = start(tmp_path, **more)
    status = path.stat()
    if case == "content":
        path.write_text(text().replace("-9999,", "-8888,"))
        assert path.stat().st_size == status.st_size
    elif case == "file":
        (tmp_path / "d.csv/2.csv").write_text(text(50, seed=2))
    else:
        path.write_text(text(ROWS + 1, seed=1) if case == "rows" else other)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after, looked = start(tmp_path, **more)
    assert looked == list(LOOKED)
    assert after == start(tmp_path, "never", **more)[0] != before


@pytest.mark.parametrize(
    "change",
    [
        {"split": {"seed": 5}},
        {"split": {"train": 0.6, "validation": 0.3, "test": 0.1}},
        {"split": {"by": "group", "column": "who"}},
        {"nulls": ["", "a"]},
        {"features": ["x", "c"]},
        {"columns": {"x": {"role": "ignore"}}},
        {"columns": {"c": {"missing": "drop"}}},
        {"missing": "drop"},
        {"dedupe": True},
        {"normalize": False},
        {"categories": "index"},
        {"target": "c", "missing": "drop", "nulls": ["?"]},
        {"task": "regression"},
    ],
)
def test_results_of_another_job_are_not_used(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "t.csv").write_text(text())
    before, _ = start(tmp_path)
    after, looked = start(tmp_path, **change)
    assert looked == list(LOOKED)
    assert after == start(tmp_path, "never", **change)[0] != before
    assert start(tmp_path) == (before, [])  # those of the first job are still there


def test_settings_without_an_effect_are_known(tmp_path: Path) -> None:
    assert set(Data.model_fields) >= UNUSED
    (tmp_path / "t.csv").write_text(text())
    before, _ = start(tmp_path)
    assert start(tmp_path, batchSize=32, loading={"workers": 2}) == (before, [])


def test_results_of_other_code_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.csv").write_text(text())
    before, _ = start(tmp_path)
    monkeypatch.setattr(results, "_code", lambda: "another")
    assert start(tmp_path) == (before, list(LOOKED))


def test_damaged_results_are_found_again(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text())
    before, _ = start(tmp_path, dedupe=True)
    start(tmp_path, dedupe=True, split={"seed": 5})
    places = {path.name: path for path in (tmp_path / "cache/tables").glob("*/found-*.bin")}
    files, dice = stored(tmp_path), np.random.default_rng(0)
    for name in NAMES:
        of_name = [each for each in files if each.startswith(f"found-{name}-")]
        swapped = dict(zip(of_name, reversed(of_name), strict=True))
        for damage in ("cut off", "empty", "a bit", "of another job", "no file"):
            for each in of_name:
                content = bytearray(files[each])
                if damage == "a bit":
                    content[int(dice.integers(len(content)))] ^= 1
                elif damage == "no file":
                    places[each].unlink()
                    continue
                elif damage == "of another job":
                    content = bytearray(files[swapped[each]])
                else:
                    del content[len(content) // 2 if damage == "cut off" else 0 :]
                places[each].write_bytes(content)
            assert start(tmp_path, dedupe=True)[0] == before, (name, damage)
            start(tmp_path, dedupe=True, split={"seed": 5})
            assert stored(tmp_path) == files, (name, damage)


def test_results_that_have_no_room_are_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.csv").write_text(text())
    write = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.name.startswith("found-"):
            write(self, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "no space")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    first, looked = start(tmp_path)
    assert looked == list(LOOKED)
    assert start(tmp_path) == (first, looked)
    assert not [path for path in (tmp_path / "cache/tables").glob("*/found-*") if path.suffix != ".lock"]


def test_refusals_are_said_again(tmp_path: Path) -> None:
    lines = text().splitlines()
    (tmp_path / "t.csv").write_text("\n".join([lines[0] + ",copy", *(f"{each},{each[-1]}" for each in lines[1:])]))
    said = []
    for mode in ("never", "always", "always"):
        with pytest.raises(DataError) as refused:
            start(tmp_path, mode)
        said.append(str(refused.value))
    assert len(set(said)) == 1
    assert "feature `copy`" in said[0]


def test_two_processes_look_once(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text(100))
    made: list[int] = []

    def make() -> list[int]:
        made.append(1)
        time.sleep(0.3)  # long enough for the other to come
        return [len(made)]

    def get() -> None:
        table = cached_table(opened(tmp_path, "t.csv"), asked("t.csv"), tmp_path / "cache")
        seen.append(_results(table, tmp_path).get("some", make, to_json, lambda said: list(map(int, [said[1:-1]]))))

    seen: list[list[int]] = []
    threads = [threading.Thread(target=get) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert seen == [[1]] * 3
    assert made == [1]


def _results(table: CachedTable, folder: Path) -> Results:
    training = job(folder, "always").spec.training
    return Results(table, training.data, training.task)
