"""Programs of different shapes, unchanged, each killed twice at moments that are drawn from its own seed."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from .conftest import WARM
from .launching import PROGRAMS, Run, checksums

ROUNDS = 60
EVERY = 10


@dataclass(frozen=True)
class Shape:
    """A program.

    Attributes:
        script: How it is started.
        saved: Pattern of its checkpoints.
        steps: Optimizer steps that are done after a number of its rounds.
    """

    script: dict[str, Any]
    saved: str
    steps: Callable[[int], int] = field(default=lambda rounds: rounds)


OVERRIDES = ["model=deep", "optimizer=adamw", "optimizer.args.lr=0.02", "name=deep-adamw"]
SHAPES = {
    "two optimizers": Shape({"path": "gan.py"}, "gan.ckpt", lambda rounds: 2 * rounds),
    "moving average": Shape({"path": "ema.py"}, "checkpoints/ema.pt"),
    "accumulation": Shape({"path": "accumulate.py"}, "runs/accumulate/*/state.pt"),
    "scaler": Shape({"path": "scaler.py"}, "amp.pth", lambda rounds: rounds - (rounds > 4) - (rounds > 26)),
    "several loaders": Shape({"path": "loaders.py"}, "model.pth"),
    "sampler": Shape({"path": "sampler.py"}, "saved/mining.ckpt"),
    "argparse": Shape({"path": "plain.py", "args": ["--link", "--sleep=0", "--every", "10"]}, "out/step-*.pt"),
    "configuration groups": Shape({"path": "configured/train.py", "args": OVERRIDES}, "outputs/deep-adamw/last.ckpt"),
    "relative imports": Shape({"module": "package.runs.train"}, "state/newest.pt"),
    "package with data": Shape({"module": "pkg.train", "args": ["60"]}, "weights/model.safetensors"),
    "forked workers": Shape({"path": "forks.py"}, "forks.pt"),
    "without torch": Shape({"path": "without_torch.py"}, "w.npz"),
}


@pytest.mark.parametrize(("seed", "name"), list(enumerate(SHAPES)))
def test_shape_killed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, name: str) -> None:
    shape, dice = SHAPES[name], random.Random(seed)
    expected = plain(tmp_path / "plain", shape)
    run = Run(tmp_path / "job", **shape.script)
    run.warm = WARM
    monkeypatch.setenv("PACE", "0.012")  # the file system's clock moves every few milliseconds
    done = [0]
    for others in (False, True):  # on its own disk, then on another one
        # what was read is said at the first step; the first life saves before it ends
        moment = dice.randrange(2 if done[-1] else shape.steps(EVERY) + 1, shape.steps(ROUNDS) // 2)
        monkeypatch.setenv("HOLD", str(moment))
        run.start(new_disks=others)
        done.append(killed(run, shape))
    monkeypatch.delenv("HOLD")
    run.start(new_disks=True)
    run.finish()
    assert resumed(run) == [shape.steps(rounds) for rounds in done[1:]]
    assert run.results[0]["step"] == shape.steps(ROUNDS)
    assert run.model() == expected


def killed(run: Run, shape: Shape) -> int:
    """Kill a run that stands still, once its newest checkpoint is kept; return the rounds that this one has."""
    run.until(lambda: bool(run.held or run.results or run.failures))
    assert run.held, (run.results, run.failures, run.log())
    newest = max(run.disk(0).glob(shape.saved), key=lambda file: file.stat().st_mtime_ns)
    digest = hashlib.sha256(newest.read_bytes()).hexdigest()
    run.until(lambda: run.sets._newest is not None and digest in {file.sha256 for file in run.sets._newest.files})
    run.until(lambda: len(resumed(run)) == run.attempt - 1)
    run.kill()
    return rounds_of(newest)


def rounds_of(file: Path) -> int:
    """Return what a program has written down of its progress."""
    if file.suffix == ".npz":
        return int(np.load(file)["step"])
    return int((load_file(file) if file.suffix == ".safetensors" else torch.load(file))["step"])


def resumed(run: Run) -> list[int]:
    """Return the steps that the run resumed from, by its reports."""
    return [each["step"] for each in run.reports if each["kind"] == "Resumed" and each["reads"]]


def plain(folder: Path, shape: Shape) -> dict[str, str]:
    """Run the program without a job; return the checksums of what it leaves."""
    folder.mkdir()
    script = json.dumps(shape.script)
    ended = WARM.start(["--plain", str(folder), str(PROGRAMS), script], dict(os.environ), folder.with_suffix(".log"))
    ended.wait()
    found = checksums(folder)
    assert found, folder.with_suffix(".log").read_text()
    return found
