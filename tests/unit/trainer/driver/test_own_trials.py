"""Trials of programs of the user's own: real agents and ranks, without Ray."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.layout import MANIFEST
from trainmaster_api.parameters import arguments
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.validation.validate import validate
from trainmaster_trainer.driver.search import Search
from trainmaster_trainer.ipc.messages import Progress, Stop
from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.reporting.state import RunState
from trainmaster_trainer.storage.store import open_store
from trainmaster_trainer.tuning.trials import METRICS, NUMBER, REASON, STATE, TIME, VALUES

from tests.factories import REMOVE, make_job

from . import test_trial
from .test_trial import World

open_world = test_trial.open_world
pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="which processes run is read from /proc")

EPOCHS, STEPS = 4, 5
_SOON = 300.0
PROGRAM = """
import argparse, os, sys, time
import torch
import torch.distributed as dist
import trainmaster

options = argparse.ArgumentParser()
options.add_argument("--log")
options.add_argument("--lr", type=float)
options.add_argument("--mode", default="")
options = options.parse_args()
assert trainmaster.parameters()["lr"] == options.lr
world, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
if world > 1:
    dist.init_process_group("gloo")
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
net = torch.nn.parallel.DistributedDataParallel(model) if world > 1 else model
optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
first = 0
os.makedirs("out", exist_ok=True)
if os.path.exists("out/last.pt"):
    state = torch.load("out/last.pt")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    first = state["epoch"]
for epoch in range(first, EPOCHS):
    for index in range(STEPS):
        draws = torch.Generator().manual_seed(epoch * STEPS + index)
        x = torch.randn(16, 4, generator=draws)
        loss = ((net(x) - x.sum(1, keepdim=True)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with open(options.log, "a") as file:
            print(options.lr, rank, epoch * STEPS + index + 1, os.getcwd(), file=file)
        time.sleep({"hang": 1000, "slow": 0.1}.get(options.mode, 0))
    if options.mode != "silent":
        trainmaster.report(epoch=epoch, loss=loss.item(), val_loss=float(model.weight.sum()))
    else:
        trainmaster.report(loss=loss.item(), val_mae=1.0)
    if rank == 0:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}, "out/next")
        os.replace("out/next", "out/last.pt")
""".replace("EPOCHS", str(EPOCHS)).replace("STEPS", str(STEPS))
NUMPY = """
import argparse, os
import numpy as np
import trainmaster

options = argparse.ArgumentParser()
options.add_argument("--log")
options.add_argument("--lr", type=float)
options = options.parse_args()
weight, first = 0.0, 0
if os.path.exists("out/w.npz"):
    found = np.load("out/w.npz")
    weight, first = float(found["weight"]), int(found["round"])
os.makedirs("out", exist_ok=True)
for number in range(first, EPOCHS):
    weight += options.lr * (1 - weight)
    with open(options.log, "a") as file:
        print(options.lr, 0, number + 1, os.getcwd(), file=file)
    trainmaster.report(val_loss=abs(1 - weight))
    np.savez("out/next.npz.tmp", weight=weight, round=number + 1)
    os.replace("out/next.npz.tmp.npz", "out/w.npz")
""".replace("EPOCHS", str(EPOCHS))


LIGHTNING = """
import time
import torch
import lightning.pytorch as pl
from torch.utils.data import DataLoader, TensorDataset

ROWS = torch.randn(40, 4, generator=torch.Generator().manual_seed(4))


class Net(pl.LightningModule):
    def __init__(self, log, lr, mode=""):
        super().__init__()
        self.path, self.lr, self.mode = log, lr, mode
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))

    def training_step(self, batch, index):
        with open(self.path, "a") as file:
            print(self.lr, self.global_rank, self.global_step + 1, file=file)
        time.sleep(0.1 if self.mode == "slow" else 0)
        return self.loss(batch)

    def validation_step(self, batch, index):
        self.log("val_loss", self.loss(batch), sync_dist=True)

    def test_step(self, batch, index):
        raise AssertionError("a trial isn't tested")

    def loss(self, batch):
        return ((self.net(batch[0]) - batch[0].sum(1, keepdim=True)) ** 2).mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(ROWS), batch_size=8 // self.trainer.world_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(TensorDataset(ROWS[:16]), batch_size=4)

    test_dataloader = val_dataloader
"""


def searching(log: Path, workers: int = 1, **changes: Any) -> TrainingJob:
    no_parts = {f"spec.training.{part}": REMOVE for part in ("task", "data", "model")}
    job, problems = validate(make_job(no_parts, {
        "metadata.uid": "u",
        "spec.training.code": {"path": "code"},
        "spec.training.script": {"path": "train.py", "args": ["--log", str(log)], "checkpoints": ["out"]},
        "spec.cluster.workers.count": workers,
        "spec.tuning": {
            "objectives": [{"metric": "val/loss", "goal": "minimize"}],
            "space": {"lr": {"min": 0.001, "max": 1.0}, "mode": {"values": ["", "silent", "slow", "hang"]}},
            "trial": {"workers": workers},
        },
    }, changes, name="t"))  # fmt: skip
    assert job is not None, problems
    return job


@pytest.fixture
def open_program(open_world: Callable[..., World], tmp_path: Path) -> Callable[..., World]:
    def begin(name: str = "a", program: str = PROGRAM, workers: int = 1, **changes: Any) -> World:
        code = tmp_path / name / "code"
        code.mkdir(parents=True, exist_ok=True)
        (code / "train.py").write_text(program)
        if program == LIGHTNING:
            changes |= section(tmp_path / f"{name}.log")
        world: World = open_world(searching(tmp_path / f"{name}.log", workers, **changes), name)
        return world

    return begin


def texts(root: Path) -> dict[str, Any]:
    """Write texts; return what a job has that trains a text classifier on them."""
    lines = [f"{('good', 'bad')[n % 2]},it was {('lovely', 'dull')[n % 2]} {n}" for n in range(60)]
    root.mkdir(parents=True, exist_ok=True)
    (root / "reviews.csv").write_text("\n".join(["verdict,text", *lines]) + "\n")
    config = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "intermediate_size": 32, "max_position_embeddings": 40}  # fmt: skip
    return {
        "spec.training.script": REMOVE,
        "spec.training.code": REMOVE,
        "spec.training.task": {"name": "classification"},
        "spec.training.data": {
            "source": "reviews.csv", "target": "verdict", "columns": {"text": {"role": "text"}}, "batchSize": 8,
            "text": {"maxLength": 32},
        },
        "spec.training.transformers": {"model": {"config": config}, "arguments": {"num_train_epochs": EPOCHS}},
        "spec.checkpoint.every": "1ep",
        "spec.tuning.space": {"learning_rate": {"min": 0.001, "max": 1.0}},
    }  # fmt: skip


def section(log: Path) -> dict[str, Any]:
    """Return what a job with `training.lightning` has in place of a script."""
    return {
        "spec.training.script": REMOVE,
        "spec.training.lightning": {
            "module": {"class": "train:Net", "args": {"log": str(log), "lr": 0.1}},
            "datamodule": {"class": "train:Data"},
            "trainer": {"max_epochs": EPOCHS, "enable_model_summary": False, "logger": False},
        },
        "spec.checkpoint.every": f"{STEPS}step",
    }


def begin(world: World, number: int, **values: Any) -> None:
    assert world.host.begin({NUMBER: number, VALUES: values})


def to_the_end(world: World, said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    while not said or not said[-1]["done"]:
        said.append(world.host.step())
    return said


def written(world: World, lr: float, rank: int = 0) -> list[int]:
    """Return the steps that the program of a trial has written down."""
    lines = [line.split() for line in world.root.with_suffix(".log").read_text().splitlines()]
    return [int(line[2]) for line in lines if line[:2] == [str(lr), str(rank)]]


def store_of(world: World, number: int) -> Path:
    return world.root / "default" / "t" / "u" / "trials" / f"{number:04d}"


def until_saved(world: World, number: int, step: int) -> None:
    """Wait until a set of files of a step is committed, while the program waits for the verdict."""
    deadline = time.monotonic() + _SOON
    while not list(store_of(world, number).glob(f"checkpoints/*step-{step:07d}/{MANIFEST}")):
        assert time.monotonic() < deadline, list(store_of(world, number).glob("checkpoints/*"))
        world.host._turn()


@pytest.mark.parametrize(
    ("program", "workers"), [(PROGRAM, 1), (PROGRAM, 2), (LIGHTNING, 1), (LIGHTNING, 2)],
    ids=["script", "script of two ranks", "lightning", "lightning of two ranks"],
)  # fmt: skip
def test_pruned_program_has_made_no_further_step(open_program, program, workers):
    world = open_program(program=program, workers=workers)
    begin(world, 0, lr=0.5)
    assert world.host.step()[TIME] == 1
    begin(world, 1, lr=0.25)
    said = to_the_end(world, [])
    assert [each for each, _ in measured(said)] == list(range(1, EPOCHS + 1))
    assert said[-1][STATE] == "Complete"
    assert said[-1][NUMBER] == 1
    for rank in range(workers):
        assert written(world, 0.25, rank) == list(range(1, EPOCHS * STEPS + 1))
        pruned = written(world, 0.5, rank)
        assert pruned[:STEPS] == list(range(1, STEPS + 1))
        assert len(pruned) == STEPS
    assert not (store_of(world, 0) / "checkpoints").exists()


def test_each_trial_has_a_folder_and_a_process_of_its_own(open_program):
    world = open_program()
    begin(world, 0, lr=0.5)
    to_the_end(world, [])
    begin(world, 1, lr=0.25)
    world.host.step()
    folders = {line.split()[3] for line in world.root.with_suffix(".log").read_text().splitlines()}
    mine = world.root / "work" / ".trainmaster" / "trials"
    assert folders == {str(mine / "0000"), str(mine / "0001")}
    assert [each.name for each in mine.iterdir() if each.is_dir()] == ["0001"], "what is over is removed"
    to_the_end(world, [])


@pytest.mark.parametrize("program", [PROGRAM, LIGHTNING], ids=["script", "lightning"])
def test_killed_program_continues_from_the_trial_s_files(open_program, program):
    calm = open_program("calm", program)
    begin(calm, 0, lr=0.5)
    expected = measured(to_the_end(calm, []))
    world = open_program(program=program)
    begin(world, 0, lr=0.5)
    said = [world.host.step(), world.host.step(), world.host.step()]
    until_saved(world, 0, 2 * STEPS)
    for pid in world.ranks():
        os.kill(pid, signal.SIGKILL)
    to_the_end(world, said)
    assert [each for each, _ in measured(said)] == [1, 2, 3, 3, 4]
    assert dict(measured(said)) == dict(expected)
    assert written(world, 0.5) == [*range(1, 3 * STEPS + 1), *range(2 * STEPS + 1, 4 * STEPS + 1)]


def test_killed_program_without_steps_counts_its_validations(open_program):
    calm = open_program("calm", NUMPY)
    begin(calm, 0, lr=0.5)
    expected = measured(to_the_end(calm, []))
    world = open_program(program=NUMPY)
    begin(world, 0, lr=0.5)
    said = [world.host.step(), world.host.step(), world.host.step()]
    until_saved(world, 0, 2)
    for pid in world.ranks():
        os.kill(pid, signal.SIGKILL)
    to_the_end(world, said)
    assert [each for each, _ in measured(said)] == [1, 2, 3, 3, 4]
    assert dict(measured(said)) == dict(expected)
    assert written(world, 0.5) == [1, 2, 3, 3, 4]


@pytest.mark.parametrize("program", [PROGRAM, LIGHTNING], ids=["script", "lightning"])
def test_stopped_program_is_saved_and_continues_later(open_program, program):
    world = open_program(program=program)
    begin(world, 0, lr=0.5, mode="slow")
    said = [world.host.step(), world.host.step()]
    until_saved(world, 0, STEPS)
    world.driver.peers[0].send(Stop())
    while not world.host._is_stopping:
        world.host._turn()
    to_the_end(world, said)
    assert said[-1][STATE] == "Stopped"
    seen = measured(said)
    later = open_program(program=program)
    begin(later, 0, lr=0.5)
    seen += measured(to_the_end(later, []))
    calm = open_program("calm", program)
    begin(calm, 0, lr=0.5)
    assert dict(seen) == dict(measured(to_the_end(calm, [])))
    assert written(world, 0.5).count(1) == 1, "it has not begun again"


def test_program_that_never_reports_the_metric_has_failed(open_program):
    world = open_program()
    begin(world, 0, lr=0.5, mode="silent")
    (said,) = to_the_end(world, [])
    assert said[STATE] == "Failed"
    assert said[REASON] == (
        "UserCodeError: the program ended without having reported val/loss, which the search compares; reported were: "
        "train/loss, val/mae. Call trainmaster.report(val_loss=...) after each validation"
    )


def test_program_that_hangs_has_failed(open_program):
    world = open_program(**{"spec.run.stallSeconds": 10})
    begin(world, 0, lr=0.5, mode="hang")
    said: list[dict[str, Any]] = []
    thread = threading.Thread(target=to_the_end, args=[world, said], daemon=True)
    thread.start()
    thread.join(_SOON)
    assert said[-1][STATE] == "Failed"
    assert said[-1][REASON] == (
        "Stalled: no new step and no report for 10 s after step 1; the search waits for val/loss, and reported were: "
        "no metrics; look for a deadlock, or raise run.stallSeconds"
    )
    begin(world, 1, lr=0.25)
    assert to_the_end(world, [])[-1][STATE] == "Complete", "the host is as good as before"


def test_metrics_that_are_compared_are_the_newest(open_program):
    world = open_program()
    begin(world, 0, lr=0.5)
    found = json.loads(world.host.step()[METRICS])
    assert set(found) == {"train/loss", "val/loss"}


def test_search_trains_the_winner_with_its_values(open_program):
    """The search and its trials together, with pruning; what Ray Tune does is done here."""
    tuning = {
        "objectives": [{"metric": "val/loss", "goal": "minimize"}],
        "space": {"lr": {"values": [0.5, 0.0625, 0.25, 0.125]}},
        "search": {"algorithm": "grid"},
        "pruning": {"algorithm": "asha", "reductionFactor": 2},
    }
    world = open_program(program=NUMPY, **{"spec.tuning": tuning})
    run = open_store(f"file://{world.root}", None, None, {}).under("default/t/u")
    job = world.host.job
    search = Search(DriverSettings("", 1, "", "", "", "", ""), job, run, RunState(job, 1))

    def execute(search: Search, parallel: int) -> None:
        while (config := search.suggest()) is not None:
            world.host.begin(config)
            result = world.host.step()
            while not result["done"] and not search.report(config[NUMBER], result):
                result = world.host.step()
            search.ended(config[NUMBER], result, is_lost=False)

    winner = search.lead(execute)
    assert isinstance(winner, TrainingJob)
    assert winner.spec.training.script is not None
    assert arguments(winner.spec.training.script) == ["--log", str(world.root.with_suffix(".log")), "--lr", "0.5"]
    trials = json.loads(run.get("tuning/result.json") or b"{}")["trials"]
    assert sorted(each["values"]["lr"] for each in trials) == [0.0625, 0.125, 0.25, 0.5]
    for each in trials:
        steps = written(world, each["values"]["lr"])
        assert steps == list(range(1, each["time"] + 1)), "as many rounds as validations"
        expected = (1 - each["values"]["lr"]) ** each["time"]
        assert each["objectives"] == [pytest.approx(expected)]
        assert each["state"] == ("Complete" if each["time"] == EPOCHS else "Pruned")
    assert {each["state"] for each in trials} == {"Complete", "Pruned"}


def measured(said: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """Return the objective of each validation; whether the learning rate was told by then depends on the clock."""
    return [(each[TIME], json.loads(each[METRICS])["val/loss"]) for each in said if not each["done"]]


def steps_of(world: World, number: int) -> list[int]:
    reports = [each for each in world.driver.messages if isinstance(each, Progress) and each.generation == number]
    return [each.report.step for each in reports]


def test_trials_of_transformers(open_program, tmp_path):
    """One that is pruned, and one that is killed and equals an undisturbed one."""
    world = open_program(**texts(tmp_path / "a"))
    begin(world, 0, learning_rate=0.5)
    first = world.host.step()
    assert first[TIME] == 1
    begin(world, 1, learning_rate=0.01)
    said = [world.host.step(), world.host.step(), world.host.step()]
    epoch = max(steps_of(world, 0))
    assert epoch == -(-(60 - 2 * round(60 * 0.1)) // 8), "no step after the verdict"
    until_saved(world, 1, 2 * epoch)
    for pid in world.ranks():
        os.kill(pid, signal.SIGKILL)
    to_the_end(world, said)
    assert [each for each, _ in measured(said)] == [1, 2, 3, 3, 4]
    assert said[-1][STATE] == "Complete"
    assert {"val/loss", "val/accuracy"} <= set(json.loads(first[METRICS]))
    assert not any(world.root.rglob("transformers-model")), "what is kept is the winner's"
    calm = open_program("calm", **texts(tmp_path / "calm"))
    begin(calm, 1, learning_rate=0.01)
    expected = dict(measured(to_the_end(calm, [])))
    assert dict(measured(said)) == expected
