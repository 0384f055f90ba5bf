"""Unchanged Lightning programs, killed twice, end with the weights of an undisturbed run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader
from trainmaster_api.messages import Outcome, Resume
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.backends.lightning import position

from tests.unit.trainer.backends.lightning.launch import (
    EVERY,
    HAS_OLD_NAME,
    NO_OLD_NAME,
    PROGRAMS,
    LightningRun,
    held,
    killed,
    said,
)
from tests.unit.trainer.backends.script.launching import checksums

EXACT = [
    "plain", "accumulation", "estimated", "limited", "limited_plateau", "workers", "validated", "several",
    "scheduled_full_batch",
]  # fmt: skip
AS_ITS_LOADER = ["twice", "stream", "stateful"]
TWICE = [(6, 11), (15, 20)]
"""Steps in which a program is killed."""


Models = dict[str, str]


def both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: list[tuple[int, int]] = TWICE, world: int = 1, **own: Any
) -> tuple[LightningRun, Models, Models]:
    """Run a program undisturbed and killed; return the second run, and both models."""
    calm = LightningRun(tmp_path / "calm", world, **own)
    calm.start()
    run = LightningRun(tmp_path / "killed", world, **own)
    killed(run, monkeypatch, lives)
    calm.finish()
    return run, calm.model(), run.model()


@pytest.fixture(scope="module")
def without_us(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Return the models that Python alone trains."""
    folder, shapes = tmp_path_factory.mktemp("alone"), EXACT + AS_ITS_LOADER
    subprocess.run([sys.executable, PROGRAMS / "shapes.py", *shapes], cwd=folder, check=True, capture_output=True)
    return checksums(folder)


@pytest.mark.parametrize("shape", EXACT + AS_ITS_LOADER)
def test_shim_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str, without_us: Models) -> None:
    lives = [(6, 11), (42, 47)] if shape == "twice" else TWICE  # the second fit begins at 36
    every = 6 if shape == "stateful" else EVERY  # at the end of an epoch
    run, expected, found = both(tmp_path, monkeypatch, lives, path="shapes.py", args=[shape], every=every)
    assert found["final.pt"] == expected["final.pt"]
    assert expected["final.pt"] == without_us[f"{shape}.pt"], "a job trains as the program does alone"
    assert said(run, "Resumed", "resume")[-1] == (Resume.EXACT if shape in EXACT else Resume.LOADER)


@pytest.mark.skipif(not HAS_OLD_NAME, reason=NO_OLD_NAME)
def test_shim_killed_by_its_older_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, expected, found = both(tmp_path, monkeypatch, [(6, 11)], path="old_name.py")
    assert found["final.pt"] == expected["final.pt"]
    assert said(run, "Resumed", "resume")[-1] == Resume.EXACT


def test_shim_two_ranks_killed_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program: dict[str, Any] = {"world": 2, "path": "shapes.py", "args": ["ranks"]}
    calm = LightningRun(tmp_path / "calm", **program)
    calm.start()
    run = LightningRun(tmp_path / "run", **program)
    held(run, monkeypatch, 8)
    run.kill()
    stop = run.root / "stop"
    monkeypatch.setenv("RELEASE", str(stop))
    held(run, monkeypatch, 13)
    stop.touch()  # which lets them train on, too
    run.finish()
    calm.finish()
    assert [each["outcome"] for each in run.results.values()] == [Outcome.STOPPED] * 2
    stopped_at = run.results[0]["step"]
    assert 13 < stopped_at < 30
    stop.unlink()
    monkeypatch.delenv("HOLD")
    run.start(new_disks=True)
    run.finish()
    assert said(run, "Resumed", "step")[-1] == stopped_at, "nothing is trained again after a stop"
    assert said(run, "Resumed", "resume")[-1] == Resume.EXACT
    assert [run.results[rank]["step"] for rank in (0, 1)] == [30, 30], "96 rows on 2 ranks, 2 batches of 4 a step"
    found = run.model()
    assert found["node-0/final.pt"] == found["node-1/final.pt"] == calm.model()["node-0/final.pt"]
    assert said(run, "Warning", "message")[0] == (
        "Lightning's Trainer follows the workers of the job: num_nodes=1 became 2, strategy='ddp_spawn' became 'ddp'"
    )


def test_shim_draws_of_the_dataset_are_said(tmp_path: Path) -> None:
    run = LightningRun(tmp_path, path="shapes.py", args=["draws"])
    run.start()
    run.finish()
    assert said(run, "Resumed", "resume")[-1] == Resume.LOADER
    assert said(run, "Warning", "message") == [
        "the training data has a random generator of its own (dataset.dataset.dice): a resumed epoch draws other "
        "numbers from it"
    ]


def test_shim_loss_that_is_not_finite(tmp_path: Path) -> None:
    run = LightningRun(tmp_path, path="shapes.py", args=["diverges"])
    run.start()
    run.until(lambda: bool(run.failures or run.results))
    assert run.failures[0]["class"] == FailureClass.NON_FINITE_LOSS
    assert run.failures[0]["message"].startswith("the training loss became NaN or infinite at or shortly before step ")


def test_shim_puts_the_loader_back() -> None:
    before = DataLoader.__iter__
    undo = position.install()
    assert DataLoader.__iter__ is not before
    position.install()()  # by the other name of the package: it is wrapped once, and stays
    assert DataLoader.__iter__ is not before
    undo()
    assert DataLoader.__iter__ is before
