"""Whole runs on data of the user's own that draws: stopped, killed, with worker processes, with several ranks."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from trainmaster_api.layout import METRICS
from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.context import ReportKind
from trainmaster_trainer.failures import RankError, rank_error

from tests.unit.trainer.backends.torch.killable import JOBS, PARTS, own_job, write_data
from tests.unit.trainer.backends.torch.test_loop_resume import run_and_kill
from tests.unit.trainer.harness import Recording, run_store, train, train_ranks, weights


@pytest.fixture(autouse=True)
def code_and_one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(PARTS))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def metrics(job: TrainingJob, root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_store(job, root).get(METRICS) or b"").splitlines()]


@pytest.mark.parametrize("name", ["spirals", "shuffled"])
def test_two_kills_anywhere_change_no_bit(tmp_path: Path, name: str) -> None:
    """Worker processes, draws for each sample, balanced sampling, collate; and a stream with a shuffle buffer."""
    job, dice = JOBS[name](), random.Random(name)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(job, whole)
    began = [run_and_kill(killed, attempt, dice.randint(2, 12), dice.uniform(0, 0.03), name) for attempt in (1, 2)]
    assert began == sorted(set(began))
    assert train(job, killed, attempt=3).outcome is Outcome.COMPLETE
    assert weights(job, killed) == weights(job, whole)
    assert metrics(job, killed) == metrics(job, whole)


@pytest.mark.parametrize("name", ["pictures", "cached"])
def test_kills_of_what_is_read_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Decoded by processes, augmented, mixed, kept on disk; and a mapped table with weights. Classes are balanced."""
    monkeypatch.setenv("TRAINMASTER_CACHE", str(tmp_path / "cache"))
    job, dice = JOBS[name](), random.Random(name)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        write_data(folder)
    began = [run_and_kill(killed, attempt, dice.randint(2, 12), dice.uniform(0, 0.03), name) for attempt in (1, 2)]
    assert began == sorted(set(began))
    assert train(job, killed, attempt=3).outcome is Outcome.COMPLETE
    assert train(job, whole).test_metrics["test/accuracy"] > 0.8
    assert weights(job, killed) == weights(job, whole)
    assert metrics(job, killed) == metrics(job, whole)


@pytest.mark.parametrize("name", ["Spirals", "Shuffled"])
def test_worker_processes_change_no_bit(tmp_path: Path, name: str) -> None:
    jobs = {number: own_job(name, number) for number in (0, 2)}
    for number, job in jobs.items():
        train(job, tmp_path / str(number))
    assert weights(jobs[0], tmp_path / "0") == weights(jobs[2], tmp_path / "2")


@pytest.mark.parametrize("name", ["Shuffled", "Stateless", "Shards"])
@pytest.mark.parametrize("workers", [0, 1])
def test_stopped_stream_continues_to_the_bit(tmp_path: Path, name: str, workers: int) -> None:
    job, whole, parts = own_job(name, workers), tmp_path / "whole", tmp_path / "parts"
    result, recording = train(job, whole), Recording()
    assert result.test_metrics["test/accuracy"] > 0.75
    assert train(job, parts, recording=Recording(stop_at=11)).outcome is Outcome.STOPPED
    train(job, parts, attempt=2, recording=recording)
    assert weights(job, parts) == weights(job, whole)
    assert metrics(job, parts) == metrics(job, whole)
    said = [report.message for report in recording.reports if report.kind in (ReportKind.DATA, ReportKind.WARNING)]
    how = "resume: by skipping" if name == "Stateless" else "resume: from the dataset's state at item"
    assert any(how in sentence for sentence in said)


@pytest.mark.parametrize("name", ["Shuffled", "Shards"])
def test_stopped_stream_of_two_ranks_continues_to_the_bit(tmp_path: Path, name: str) -> None:
    job, whole, parts = own_job(name, workers=1, duration="3ep"), tmp_path / "whole", tmp_path / "parts"
    train_ranks(job, whole, 2)
    train_ranks(job, parts, 2, stop_at=11)
    assert run_store(job, parts).get("model/model.safetensors") is None
    train_ranks(job, parts, 2, attempt=2)
    assert weights(job, parts) == weights(job, whole)
    assert metrics(job, parts) == metrics(job, whole)


@pytest.mark.parametrize("name", ["BrokenRow", "BrokenItem"])
@pytest.mark.parametrize("workers", [0, 1])
def test_exception_in_a_dataset_is_the_users_wherever_it_is_read(tmp_path: Path, name: str, workers: int) -> None:
    with pytest.raises(KeyError if workers == 0 else RankError, match="no such spiral") as caught:
        train(own_job(name, workers), tmp_path)
    error = rank_error(caught.value, 0, "")
    assert error.failure_class is FailureClass.USER_CODE_ERROR
    assert "own_data.py" in error.last_lines[0]
