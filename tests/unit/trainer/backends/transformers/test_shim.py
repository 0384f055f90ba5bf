"""Unchanged programs with transformers' Trainer, killed at given moments, end as an undisturbed run does."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from trainmaster_api.messages import Resume

from tests.factories import change
from tests.unit.trainer.backends.script.launching import Run
from tests.unit.trainer.backends.transformers.conftest import WARM

PROGRAMS = Path(__file__).parent / "programs"
FOLDER = "trainmaster-transformers"


def run_of(folder: Path, world: int, *args: str, every: str = "5step") -> Run:
    """Return a run that saves at an interval."""
    run = Run(folder, world, PROGRAMS, path="shapes.py", args=list(args))
    run.warm = WARM
    file = folder / "job.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()), {"spec.checkpoint.every": every})))
    return run


def hold(run: Run, moment: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Start, and wait until the program holds at a moment and its newest save is kept; return the kept saves."""
    monkeypatch.setenv("HOLD", moment)
    run.start(new_disks=True)
    disk = run.disk(0)

    def marks() -> set[str]:
        return {str(each.relative_to(disk)) for each in (disk / FOLDER).rglob("complete.json")}

    def is_kept() -> bool:
        if not all((run.disk(rank) / "held").exists() for rank in range(run.world)):
            return bool(run.results or run.failures)
        newest = run.sets._newest
        return newest is not None and marks() <= {each.path.removeprefix("node-0/") for each in newest.files}

    run.until(is_kept)
    assert not run.results, f"it has ended before {moment}"
    assert not run.failures, run.failures
    return sorted(str(Path(each).parent.relative_to(FOLDER)) for each in marks())


def finished(run: Run, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.delenv("HOLD", raising=False)
    run.start(new_disks=True)
    run.finish()
    file = run.disk(0) / "final.pt"
    return facts(file)


def plain(folder: Path, *shapes: str) -> dict[str, Any]:
    """Run the program as it is, without a job; return the same."""
    folder.mkdir()
    subprocess.run([sys.executable, PROGRAMS / "shapes.py", *shapes], cwd=folder, check=True, capture_output=True)
    return facts(folder / "final.pt")


def facts(file: Path) -> dict[str, Any]:
    """Return what each training ended with, tensors as their checksum."""

    def content(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return hashlib.sha256(value.numpy().tobytes()).hexdigest()
        return {key: content(each) for key, each in value.items()} if isinstance(value, dict) else value

    return {f"{name}: {key}": content(each) for name, found in torch.load(file).items() for key, each in found.items()}


KILLS = {
    "patience step 17": "train-1/checkpoint-15",  # the patience of early stopping
    "epochs evaluate 20": "train-3/checkpoint-15",  # an epoch's evaluation is under way
    "own loader step 17": "train-4/checkpoint-15",  # within an epoch whose order was drawn
    "own generator step 17": "train-5/checkpoint-15",
    "within end 14": "train-6/checkpoint-10",  # it ended within an epoch
}
SHAPES = ["patience", "best", "epochs", "own loader", "own generator", "within"]


def test_shim_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    calm = plain(tmp_path / "calm", *SHAPES)
    assert calm["best 0: best"][1] in (5, 15), "it isn't one of the program's saves, but it would be one of ours"
    run = run_of(tmp_path / "killed", 1, *SHAPES)
    for moment, newest in KILLS.items():
        assert hold(run, moment, monkeypatch)[-1] == newest
        run.kill()
    assert hold(run, "within step 7", monkeypatch)[-1] == "train-7/checkpoint-5"  # of the second call
    (run.root / "stop").touch()
    (run.disk(0) / "go").touch()
    run.until(lambda: bool(run.results or run.failures))
    assert run.results[0]["outcome"] == "Stopped"
    assert run.results[0]["step"] > 7
    run.kill()
    (run.root / "stop").unlink()
    assert finished(run, monkeypatch) == calm
    assert [each["resume"] for each in run.reports if each["resume"]][-1] == Resume.EXACT
    assert run.step == max(each["totalSteps"] for each in run.reports) == 24 + 20 + 30 + 2 * 20 + 2 * 14


def test_shim_two_ranks_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    calm = finished(run_of(tmp_path / "calm", 2, "lengths"), monkeypatch)
    run = run_of(tmp_path / "killed", 2, "lengths", every="3step")
    assert hold(run, "lengths step 8", monkeypatch)[-1] == "train-1/checkpoint-6"  # an epoch has five
    run.kill()
    assert finished(run, monkeypatch) == calm
    assert [each["resume"] for each in run.reports if each["resume"]][-1] == Resume.EXACT
    assert run.step == 2 * 5, "the ranks train together, though nothing says use_cpu"
