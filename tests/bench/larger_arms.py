"""The arms of the benchmark of rows larger than memory: `python -m tests.bench.larger_arms ARM FOLDER STEPS`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SOURCE, CACHE, THEIRS = "rows", "cache", "theirs"
DOUBLES, FLOATS, LEVELS, KINDS = 96, 64, 256, 8
ROW_BYTES = 8 * DOUBLES + 4 * FLOATS  # decoded, without the category and the target
GROUP, GROUPS = 1 << 16, 32  # rows of a row group; row groups of a file
BATCH = 1024
SECONDS = 15.0  # that batches are read for


def make_rows(folder: Path, size: int) -> int:
    """Write Parquet files whose numbers take so many bytes when decoded, and return the number of rows.

    Columns have few distinct numbers, so that dictionaries keep the files small; the target depends on the features.
    """
    (folder / SOURCE).mkdir(parents=True)
    dice = np.random.default_rng(0)
    levels = np.sort(dice.normal(size=(DOUBLES + FLOATS, LEVELS)), axis=1)
    rows, writer = max(1, size // ROW_BYTES), None
    for number, start in enumerate(range(0, rows, GROUP)):
        count = min(GROUP, rows - start)
        drawn = dice.integers(0, LEVELS, (DOUBLES + FLOATS, count), dtype=np.uint8)
        kinds = dice.integers(0, KINDS, count)
        columns: dict[str, pa.Array] = {}
        score = 0.25 * (kinds - (KINDS - 1) / 2)
        for index, codes in enumerate(drawn):
            values = levels[index][codes]
            if index < 12:
                score += values
            columns[f"x{index:03}"] = pa.array(values if index < DOUBLES else values.astype(np.float32))
        columns["kind"] = pa.array(np.array([f"kind {each}" for each in range(KINDS)])[kinds])
        columns["y"] = pa.array(np.where(score + dice.normal(size=count) > 0, "yes", "no"))
        table = pa.table(columns)
        if writer is None or number % GROUPS == 0:
            if writer is not None:
                writer.close()
            path = folder / SOURCE / f"part-{number // GROUPS:03}.parquet"
            writer = pq.ParquetWriter(path, table.schema, compression="zstd", compression_level=1)
        writer.write_table(table, row_group_size=GROUP)
    assert writer is not None
    writer.close()
    return rows


def _job(folder: Path, steps: int) -> Any:
    from trainmaster_api.spec.job import TrainingJob

    from tests.factories import make_job

    changes = {
        "spec.training.data": {
            "source": SOURCE,
            "format": "parquet",
            "target": "y",
            "batchSize": BATCH,
            "split": {"train": 0.98, "validation": 0.01, "test": 0.01},
            "cache": {"mode": "always", "directory": str(folder / CACHE)},
        },
        "spec.training.task": {"name": "classification", "numClasses": 2},
        "spec.training.model.args": {"hidden": [64]},
        "spec.training.loop": {"duration": f"{steps}step", "validateEvery": f"{steps}step"},
    }
    return TrainingJob.model_validate(make_job(changes, name="larger"))


def ours(folder: Path, steps: int) -> dict[str, float]:
    """Train as a rank does, from the source or from the cache that is there: all steps, then validation and test."""
    import tempfile

    import torch
    from trainmaster_trainer.backends.torch.loop import fit
    from trainmaster_trainer.context import Context, Report, ReportKind
    from trainmaster_trainer.storage.store import open_store

    began = time.perf_counter()
    marks: dict[str, float] = {}

    def report(said: Report) -> None:
        now = time.perf_counter()
        print(f"{now - began:8.1f} s {said.kind} {said.step} {said.message}", file=sys.stderr, flush=True)
        if said.kind is ReportKind.FIRST_STEP:
            marks["first"] = now
        elif said.kind is ReportKind.VALIDATION:
            marks.setdefault("validated", now)
        if said.kind is ReportKind.STEP and said.step <= steps:
            marks["last"], marks["step"] = now, said.step

    with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as place:
        store = open_store(place, None, "us-east-1", {})
        here, device = Path(place), torch.device("cpu")
        found = fit(Context(_job(folder, steps), 0, 1, device, 1, store, place, folder, here, _Continue(), report))
    return {
        "first": marks["first"] - began,
        "rate": (marks["step"] - 1) * BATCH / (marks["last"] - marks["first"]),
        "accuracy": found.test_metrics["test/accuracy"],
        "total": time.perf_counter() - began,
    }


class _Continue:
    def poll(self) -> Any:
        from trainmaster_trainer.context import Signal

        return Signal.CONTINUE


def ours_batches(folder: Path, _: int) -> dict[str, float]:
    """Read shuffled batches of the cache, which is there."""
    import torch
    from trainmaster_trainer.data import load_data
    from trainmaster_trainer.data.order import Sampler

    began = time.perf_counter()
    data = load_data(_job(folder, 1), folder, {})
    data.move(torch.device("cpu"))
    sampler = Sampler(data.train, BATCH, 0)

    def read(step: int) -> float:
        x, y = data.batch(sampler.indices(step))
        assert isinstance(x, torch.Tensor)
        return float(x[0, 0]) + float(y[0])

    return _rate(began, read)


def theirs_build(folder: Path, _: int) -> dict[str, float]:
    """Let HF datasets make its memory-mapped Arrow files."""
    began = time.perf_counter()
    rows = len(_theirs(folder))
    return {"build": time.perf_counter() - began, "rows": rows}


def theirs_batches(folder: Path, _: int) -> dict[str, float]:
    """Read shuffled batches of HF datasets' memory map: float32 tensors of all numbers, and the target."""
    import torch

    began = time.perf_counter()
    found = _theirs(folder).with_format("numpy")
    order = np.random.default_rng(0).permutation(len(found))
    names = [name for name in found.column_names if name not in ("y", "kind")]

    def read(step: int) -> float:
        start = step * BATCH % (len(order) - BATCH)
        rows = found[order[start : start + BATCH]]
        x = torch.from_numpy(np.stack([rows[name] for name in names], axis=1).astype(np.float32))
        return float(x[0, 0]) + float((rows["y"] == "yes")[0])

    return _rate(began, read)


def _theirs(folder: Path) -> Any:
    import datasets

    datasets.disable_progress_bars()
    files = [str(each) for each in sorted((folder / SOURCE).iterdir())]
    return datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder / THEIRS))


def _rate(began: float, read: Callable[[int], float]) -> dict[str, float]:
    read(0)
    first, step = time.perf_counter(), 0
    while time.perf_counter() - first < SECONDS:
        step += 1
        read(step)
    return {"first": first - began, "rate": step * BATCH / (time.perf_counter() - first)}


def pandas_whole(folder: Path, _: int) -> dict[str, float]:
    """Read everything into a data frame."""
    import pandas as pd

    began = time.perf_counter()
    rows = len(pd.read_parquet(folder / SOURCE))
    return {"build": time.perf_counter() - began, "rows": rows}


ARMS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "ours": ours,
    "ours-batches": ours_batches,
    "theirs-build": theirs_build,
    "theirs-batches": theirs_batches,
    "pandas": pandas_whole,
}


if __name__ == "__main__":
    print(json.dumps(ARMS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
