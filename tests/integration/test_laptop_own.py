"""`trainmaster run` of programs of one's own that hang or crash on one rank, with a real Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.factories import REMOVE, make_job

pytestmark = pytest.mark.ray

PARTS = """
import ctypes, glob, os, threading, time
import torch

def step_of(number, saves=False):
    if number == 7 and os.environ["RANK"] == "1":
        while saves and not glob.glob(os.path.join(FOLDER, "trainmaster-runs/default/*/*/LATEST")):
            time.sleep(0.05)
        threading.Event().wait() if os.path.exists(os.path.join(FOLDER, "hang")) else ctypes.string_at(0)
"""
SCRIPT = """
import torch.distributed as dist
dist.init_process_group("gloo")
model = torch.nn.Linear(2, 1)
net = torch.nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for step in range(1, 100):
    optimizer.zero_grad()
    loss = net(torch.ones(4, 2)).sum()
    step_of(step)
    loss.backward()
    optimizer.step()
"""
MODULE = """
import lightning.pytorch as pl

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(2, 1)

    def training_step(self, batch, index):
        step_of(self.global_step + 1, saves=True)
        return self.net(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(256, 2), 4)
"""
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "script": (SCRIPT, {"script": {"path": "own.py"}}),
    "lightning": (
        MODULE,
        {
            "framework": "lightning",
            "lightning": {
                "module": {"class": "own:Net"},
                "trainer": {"max_epochs": 9, "logger": False, "enable_model_summary": False},
            },
        },
    ),
}


def run(folder: Path, kind: str) -> str:
    """Run a program on two ranks to its failure; return what is printed."""
    code, section = KINDS[kind]
    (folder / "own.py").write_text(f"FOLDER = {str(folder)!r}\n{PARTS}{code}")
    parts = {f"spec.training.{part}": REMOVE for part in ("task", "data", "model")}
    given = {f"spec.training.{name}": value for name, value in {"code": {"path": "."}, **section}.items()}
    job = make_job(parts, given, {"spec.cluster.workers.count": 2, "spec.run.stallSeconds": 10})
    job["spec"]["checkpoint"] = {"every": "5step"}
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "trainmaster_cli.main", "run", "job.yaml", "--plain"],
        cwd=folder, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    out = done.stdout + done.stderr
    assert done.returncode == 1, out
    assert "Traceback" not in out, out
    return out


def line_of(folder: Path, text: str) -> int:
    lines = (folder / "own.py").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def events(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.glob("trainmaster-runs/default/*/*/events.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_that_hangs(tmp_path: Path, kind: str) -> None:
    """The other rank waits in its backward; the one that hangs is named, with the user's own line first."""
    (tmp_path / "hang").touch()
    out = run(tmp_path, kind)
    line = line_of(tmp_path, "threading.Event().wait()")
    assert "failed: Stalled (rank 1)" in out, out
    assert (
        f"no new step for 10 s after step 6: rank 1 is at own.py:{line} in step_of while rank 0 waits for it; "
        "look for a deadlock, or raise run.stallSeconds"
    ) in out, out
    shown = out.partition("failed: Stalled")[2].splitlines()
    assert f'own.py", line {line}, in step_of' in shown[2], shown
    assert "threading.Event().wait()" in shown[3]
    assert not [each for each in events(tmp_path) if each.get("state") == "Recovering"], "nothing is known to be better"


@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_that_crashes_each_time(tmp_path: Path, kind: str) -> None:
    """It is started again three times, from its save where there is one; a step that is made again is no progress."""
    out = run(tmp_path, kind)
    line = line_of(tmp_path, "ctypes.string_at(0)")
    losses = [each["message"] for each in events(tmp_path) if each.get("state") == "Recovering"]
    assert losses == ["the process of rank 1 crashed with SIGSEGV"] * 4, out
    assert "failed: NoProgress (rank 1)" in out, out
    assert (
        "workers were lost 4 times in a row without a new step; last: the process of rank 1 crashed with SIGSEGV" in out
    )
    shown = out.partition("failed: NoProgress")[2].splitlines()
    assert shown[2].strip() == "Fatal Python error: Segmentation fault"
    assert f'own.py", line {line} in step_of' in shown[3], shown
    assert "next: look at the last lines" in out
    resumed = [each["step"] for each in events(tmp_path) if each.get("kind") == "Resumed"]
    assert resumed[-1] == (5 if kind == "lightning" else 0)
