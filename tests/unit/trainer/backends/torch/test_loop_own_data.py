"""Whole runs on data of the user's own that draws: stopped, killed, with worker processes, with several ranks."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.layout import METRICS
from trainmaster_api.spec.job import TrainingJob

from tests.unit.trainer.backends.torch.killable import JOBS, own_job
from tests.unit.trainer.backends.torch.test_loop_resume import run_and_kill
from tests.unit.trainer.harness import run_store, train_ranks, weights

PARTS = Path(__file__).parent / "parts"


def folder(tmp_path: Path, name: str) -> Path:
    """A folder of its own for a run's results, with the code in it."""
    (tmp_path / name).mkdir()
    shutil.copy(PARTS / "own_data.py", tmp_path / name)
    return tmp_path / name


def metrics(job: TrainingJob, root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_store(job, root).get(METRICS) or b"").splitlines()]


@pytest.mark.parametrize(("name", "seed"), [("spirals", 0), ("spirals", 1), ("shuffled", 0), ("shuffled", 1)])
def test_two_kills_anywhere_change_no_bit(tmp_path: Path, name: str, seed: int) -> None:
    """Worker processes, draws for each sample, balanced sampling, collate; and a stream with a shuffle buffer."""
    job, dice = JOBS[name](), random.Random(seed)
    whole, killed = folder(tmp_path, "whole"), folder(tmp_path, "killed")
    train_ranks(job, whole, 1)
    began = [run_and_kill(killed, attempt, dice.randint(2, 12), dice.uniform(0, 0.03), name) for attempt in (1, 2)]
    assert began == sorted(set(began))
    train_ranks(job, killed, 1, attempt=3)
    assert weights(job, killed) == weights(job, whole)
    assert metrics(job, killed) == metrics(job, whole)


@pytest.mark.parametrize("name", ["Spirals", "Shuffled"])
def test_worker_processes_change_no_bit(tmp_path: Path, name: str) -> None:
    found = []
    for workers in (0, 1, 3):
        root = folder(tmp_path, str(workers))
        train_ranks(own_job(name, workers), root, 1)
        found.append(weights(own_job(name, workers), root))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", ["Shuffled", "Stateless", "Shards"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_stopped_stream_continues_to_the_bit(tmp_path: Path, name: str, world_size: int) -> None:
    job = own_job(name, workers=1)
    whole, parts = folder(tmp_path, "whole"), folder(tmp_path, "parts")
    train_ranks(job, whole, world_size)
    train_ranks(job, parts, world_size, stop_at=11)
    assert run_store(job, parts).get("model/model.safetensors") is None
    train_ranks(job, parts, world_size, attempt=2)
    assert weights(job, parts) == weights(job, whole)
    assert metrics(job, parts) == metrics(job, whole)
    assert [line["test/accuracy"] for line in metrics(job, whole) if "test/accuracy" in line] > [0.7]
