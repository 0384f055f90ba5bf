"""Validations of a trial: which they are, how they are counted, and the directories of trials."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trainmaster
from trainmaster_trainer.backends.script import folders
from trainmaster_trainer.backends.script.gate import Gate
from trainmaster_trainer.backends.script.steps import Progress
from trainmaster_trainer.context import Report, Verdict
from trainmaster_trainer.errors import UserCodeError


class Search:
    """What decides: a trial ends with its validation of that number."""

    def __init__(self, last: int = 100) -> None:
        self.last = last
        self.asked: list[tuple[int, int, dict[str, float]]] = []

    def __call__(self, report: Report, time: int) -> Verdict:
        self.asked.append((time, report.step, report.metrics))
        return Verdict.STOP if time == self.last else Verdict.CONTINUE


def gate_of(search: Search, progress: Progress, rank: int = 0) -> Gate:
    job = SimpleNamespace(spec=SimpleNamespace(training=SimpleNamespace(backend="script")))
    context: Any = SimpleNamespace(rank=rank, world_size=1, objectives=("val/score", "val/loss"), gate=search, job=job)
    return Gate(context, progress, lambda: None)


def test_metrics_of_the_search_make_a_validation():
    gate = gate_of(Search(), Progress())
    assert not gate.completes(["val_score", "loss"])
    assert gate.completes(["eval_loss"]), "told one after the other"
    assert gate.completes(["loss", "val_score", "val_loss"])
    assert not gate.completes(["score"])
    assert not gate.completes(["val_loss"])


def test_validations_are_counted_and_the_last_one_ends_the_trial():
    search, progress = Search(last=5), Progress()
    gate = gate_of(search, progress)
    gate.resume(3)
    progress.tell(7, None, None, {"val_score": 0.5, "loss": 2.0})
    assert not gate.ends()
    assert gate.ends()
    assert search.asked[0] == (4, 7, {"val/score": 0.5, "train/loss": 2.0})
    assert gate.time == 5


def test_program_that_has_begun_again_counts_from_the_start():
    search = Search()
    gate = gate_of(search, Progress())
    gate.resume(3)
    gate.resume(0)
    gate.ends()
    assert search.asked[0][0] == 1


@pytest.mark.parametrize(("is_framework", "expected"), [(True, [1, 2]), (False, [1, 2, 3])])
def test_what_is_reported_beside_a_framework_is_its_validation(is_framework, expected):
    search, progress = Search(), Progress()
    gate = gate_of(search, progress)
    gate.is_framework = is_framework
    for step in (5, 5, 9):
        progress.tell(step, None, None, {})
        gate.ends()
    assert [time for time, _, _ in search.asked] == expected


def test_validation_is_the_step_of_a_program_without_steps(tmp_path):
    progress, search = Progress(), Search()
    progress.base = 4
    gate = gate_of(search, progress)
    steps = []
    for _ in range(3):
        progress.validated()
        gate.ends()
        file = tmp_path / "w.npz"
        file.write_bytes(b"x")
        steps.append(progress.step_at(file.stat().st_mtime))
    assert steps == [5, 6, 7] == [step for _, step, _ in search.asked]
    optimizer = SimpleNamespace
    progress.count(optimizer)
    progress.validated()
    assert progress.step == 5, "once it makes steps, these are counted"


def test_trial_without_a_validation_is_an_error():
    progress = Progress()
    gate = gate_of(Search(), progress)
    with pytest.raises(UserCodeError, match=r"having reported val/score, .* were: no metrics. Call .*\(val_score="):
        gate.require()
    progress.tell(1, None, None, {"val_score": 1.0})
    with pytest.raises(UserCodeError, match=r"having reported val/loss, .* were: val/score. Call .*\(val_loss="):
        gate.require()
    gate_of(Search(), progress, rank=1).require()
    gate.ends()
    gate.require()


def test_directories_of_trials_that_are_over_are_removed(tmp_path: Path) -> None:
    mine, over, running = (folders.of_trial(tmp_path, f"trials/{number:04d}") for number in range(3))
    for each in (over, running):
        each.mkdir(parents=True)
    with running.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        folders.enter(mine)
    assert mine.is_dir()
    assert running.is_dir()
    assert not over.exists()
    folders._held.pop().close()


def test_parameters_of_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "TRAINMASTER_PARAMETERS" not in os.environ
    assert trainmaster.parameters() == {}
    monkeypatch.setenv("TRAINMASTER_PARAMETERS", json.dumps({"lr": 0.1, "model": {"name": "vit"}}))
    assert trainmaster.parameters() == {"lr": 0.1, "model": {"name": "vit"}}
