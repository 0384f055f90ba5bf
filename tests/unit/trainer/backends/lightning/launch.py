"""Runs of Lightning programs: undisturbed, and killed at random steps."""

from __future__ import annotations

import functools
import importlib.util
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.factories import REMOVE, Changes, change
from tests.unit.trainer.backends.script.launching import Run
from tests.unit.trainer.backends.script.warm import Warm

PROGRAMS = Path(__file__).parent / "programs"
HAS_OLD_NAME = importlib.util.find_spec("pytorch_lightning") is not None
NO_OLD_NAME = "pytorch_lightning, the older name of the package, isn't installed"
WARM = Warm(
    "lightning.pytorch",
    *(["pytorch_lightning"] if HAS_OLD_NAME else []),
    "trainmaster_trainer.backends.lightning.fit",
    "trainmaster_trainer.storage.store",
)
EVERY = 5


class LightningRun(Run):
    """Saves at every so many steps; a program, or with `lightning` the section of a job."""

    def __init__(
        self, folder: Path, world: int = 1, changes: Changes | None = None, every: int = EVERY, **own: Any
    ) -> None:
        super().__init__(folder, world, PROGRAMS, **own)
        self.warm, self.every = WARM, every
        file = folder / "job.json"
        changed: Changes = {"spec.checkpoint.every": f"{every}step"}
        if "lightning" in own:
            changed |= {"spec.training.script": REMOVE, "spec.training.lightning": own["lightning"]}
        file.write_text(json.dumps(change(json.loads(file.read_text()), changed, changes or {})))


def killed(run: LightningRun, monkeypatch: pytest.MonkeyPatch, lives: list[tuple[int, int]]) -> None:
    """Kill all ranks at a random step of each range; then let them end. Each life is on other disks."""
    dice = random.Random(1)
    for first, end in lives:
        held(run, monkeypatch, dice.randrange(first, end))
        run.kill()
    monkeypatch.delenv("HOLD")
    run.start(new_disks=True)
    run.finish()


def held(run: LightningRun, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Start all ranks and let them wait in a step, until the save before it is committed."""
    monkeypatch.setenv("HOLD", str(step))
    run.start(new_disks=True)
    run.until(functools.partial(_is_there, run, step))
    assert not run.results, "it has ended before it could be killed"
    assert not run.failures, (run.failures, run.log())


def _is_there(run: LightningRun, step: int) -> bool:
    is_saved = bool(run.commits) and run.commits[-1].step >= step - step % run.every
    return bool(run.results or run.failures) or (is_saved and run.step >= step)


def said(run: LightningRun, kind: str, field: str) -> list[Any]:
    """Return a field of all reports of a kind that have it."""
    return [each[field] for each in run.reports if each["kind"] == kind and each[field]]
