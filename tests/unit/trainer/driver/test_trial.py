"""Trials one after another in kept processes: real agents and ranks, without Ray."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.validation.validate import validate
from trainmaster_trainer.cluster.tune import run_one
from trainmaster_trainer.driver.host_settings import HostSettings
from trainmaster_trainer.driver.trial import TrialHost
from trainmaster_trainer.ipc.channel import Channel, Peer
from trainmaster_trainer.ipc.messages import Message, Placement, Progress, Returned, Stop
from trainmaster_trainer.processes import descendants
from trainmaster_trainer.storage.store import open_store
from trainmaster_trainer.tuning.trials import METRICS, NUMBER, REASON, STATE, TIME, VALUES

from tests.factories import make_job

EPOCHS = 3
_SOON = 100  # seconds; half of what a trial with new processes takes at the very worst, a tenth of a collective's limit


def searching(workers: int = 1, *, diverges: bool = False, **model: Any) -> TrainingJob:
    job = make_job({
        "metadata.uid": "u",
        "spec.training.data.batchSize": 64,
        "spec.training.model": model or {"name": "mlp", "args": {"hidden": [32], "dropout": 0.2}},
        **({"spec.training.task": {"name": "regression"}, "spec.training.data.source": "sklearn:diabetes",
            "spec.training.optimizer": {"name": "sgd"}} if diverges else {}),
        "spec.training.loop": {"duration": f"{EPOCHS}ep", "seed": 3},
        "spec.checkpoint": {"every": "1ep"},
        "spec.cluster.workers.count": workers,
        "spec.tuning": {
            "space": {
                "optimizer.lr": {"min": 1e-5, "max": 100.0},
                **({"model.args.mode": {"values": MODES}} if "class" in model else {}),
            },
            "trial": {"workers": workers},
        },
    }, name="t")  # fmt: skip
    found, problems = validate(job)
    assert found is not None, problems
    return found


class Threads:
    """Agents in threads of this process, as often as they end."""

    pod = ""

    def __init__(self, job: TrainingJob, root: Path, count: int, port: int, token: str) -> None:
        self._job, self._root, self._count, self._port, self._token = job, root, count, port, token
        self._is_closed = False

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self._is_closed = True

    def _run(self) -> None:
        while not self._is_closed:
            group = uuid.uuid4().hex
            threads = [threading.Thread(target=self._one, args=[rank, group]) for rank in range(self._count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _one(self, rank: int, group: str) -> None:
        placement = Placement(
            rank=rank, world_size=self._count, local_rank=rank, local_world_size=self._count, attempt=1,
            storage_uri=f"file://{self._root}", base_dir=str(self._root), in_cluster=False, cpus=1,
            pod=self.pod.format(rank=rank),
            **({"code_dir": str(self._root / "code"), "work_dir": str(self._root / "work")}
               if (self._root / "code").exists() else {}),
        )  # fmt: skip
        with contextlib.suppress(OSError):
            run_one(self._job, placement, ("127.0.0.1", self._port), self._token, group)


@dataclass
class Driver:
    """The job's driver: hears of progress, and can say stop."""

    peers: list[Peer] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)

    def on_join(self, peer: Peer) -> None:
        self.peers.append(peer)

    def on_leave(self, peer: Peer) -> None:
        pass

    def on_message(self, peer: Peer, message: Message) -> None:
        self.messages.append(message)


@dataclass
class World:
    """A host, and where its trials are stored."""

    host: TrialHost
    driver: Driver
    root: Path
    others: frozenset[int] = frozenset()
    """Ranks of former worlds, which may still be ending."""

    def trial(self, number: int, lr: float, mode: str = "") -> list[dict[str, Any]]:
        """Run a trial to its end; return what it said."""
        values = {"optimizer.lr": lr, **({"model.args.mode": mode} if mode else {})}
        assert self.host.begin({NUMBER: number, VALUES: values})
        said = [self.host.step()]
        while not said[-1]["done"]:
            said.append(self.host.step())
        return said

    def soon(self, number: int, lr: float) -> list[dict[str, Any]]:
        """Run a trial that may hang where the host is wrong."""
        said: list[list[dict[str, Any]]] = []
        thread = threading.Thread(target=lambda: said.append(self.trial(number, lr)), daemon=True)
        thread.start()
        thread.join(_SOON)
        assert said, f"the trial hasn't ended in {_SOON} s"
        return said[0]

    def weights(self, number: int) -> bytes:
        run = open_store(f"file://{self.root}", None, None, {}).under(f"default/t/u/trials/{number:04d}")
        newest = max(name for name, _ in run.list("checkpoints") if name.endswith("model.safetensors"))
        return run.get(newest) or b""

    def ranks(self) -> list[int]:
        return sorted(running() - self.others)


def running() -> frozenset[int]:
    """Return the ranks below this process."""
    found = set()
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if b"trainmaster_trainer.rank" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return frozenset(found)


@pytest.fixture
def open_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []
    token = secrets.token_hex(16)
    (tmp_path / "token").write_text(token)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")

    def begin(job: TrainingJob, name: str = "a") -> World:
        root, driver, others = tmp_path / name, Driver(), running()
        root.mkdir(exist_ok=True)
        channel = Channel("127.0.0.1", 0, token, driver)
        tuning = job.spec.tuning
        assert tuning is not None
        agents = functools.partial(Threads, job, root, tuning.trial.workers)
        control = ("127.0.0.1", channel.port)
        host = TrialHost(HostSettings(job.wire(), control, lambda _: ("127.0.0.1", agents), f"file://{root}"))
        worlds.append(World(host, driver, root, others))
        return worlds[-1]

    yield begin
    for world in worlds:
        world.host.close()


def measured(said: list[dict[str, Any]]) -> list[tuple[int, Any]]:
    return [(each[TIME], json.loads(each[METRICS])) for each in said if not each["done"]]


# What a user's model may do to its process. It writes down what it found there.
OWN = """
import math, multiprocessing, os, sys
import numpy as np
import torch
from torch import nn

made = 0
if os.path.exists("only_once"):
    multiprocessing.set_start_method("spawn")  # raises the second time


class Net(nn.Module):
    def __init__(self, input_shape, outputs, mode):
        super().__init__()
        global made
        made += 1
        found = [made, os.environ.get("LEFT"), os.getcwd(), sys.getrecursionlimit(), np.geterr()["divide"],
                 torch.are_deterministic_algorithms_enabled(), torch.is_anomaly_enabled(), torch.get_num_threads()]
        with open(os.path.join(os.path.dirname(__file__), "found"), "a") as file:
            print(*found, file=file)
        self.mode = mode
        width = math.prod(input_shape)
        self.layers = nn.Sequential(nn.Linear(width, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, outputs))
        if mode == "leave":
            os.environ["LEFT"] = "1"
            os.chdir("/")
            sys.setrecursionlimit(5000)
            np.seterr(divide="ignore")
            torch.use_deterministic_algorithms(True)
            torch.autograd.set_detect_anomaly(True)

    def forward(self, x):
        if self.mode == "memory" and self.training:
            raise MemoryError
        return self.layers(x.flatten(1))
"""
MODES = ["calm", "leave", "memory"]
MINE = {"class": "left_own:Net"}


def lay_out(root: Path, *, only_once: bool = False) -> None:
    """Put the user's model into the job's folder."""
    root.mkdir()
    (root / "left_own.py").write_text(OWN)
    if only_once:
        (root / "only_once").touch()


CNN = {"name": "cnn", "args": {"widths": [4, 8], "dropout": 0.2}}


@pytest.mark.skipif(not Path("/proc").exists(), reason="which processes run is read from /proc")
@pytest.mark.parametrize("model", [{}, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize("workers", [1, 2])
def test_trial_in_a_kept_process_is_the_trial_alone(open_world, workers, model):
    world = open_world(searching(workers, **model))
    world.trial(0, 0.01)
    kept = world.ranks()
    for number, lr in ((1, 0.003), (2, 0.1), (3, 0.0001)):
        world.trial(number, lr)
    last = world.trial(4, 0.02)
    assert world.ranks() == kept
    assert len(kept) == workers
    alone = open_world(searching(workers, **model), "b")
    expected = alone.trial(4, 0.02)
    assert measured(last) == measured(expected)
    assert [time for time, _ in measured(last)] == [1, 2, 3]
    assert world.weights(4) == alone.weights(4)
    assert last[-1][STATE] == "Complete"


@pytest.mark.skipif(not Path("/proc").exists(), reason="which processes run is read from /proc")
def test_trial_finds_nothing_of_the_one_before(open_world, tmp_path):
    for name in "ab":
        lay_out(tmp_path / name)
    world = open_world(searching(**MINE))
    world.trial(0, 0.01, "leave")
    kept = world.ranks()
    (world.root / "found").unlink()
    last = world.trial(1, 0.02, "calm")
    assert world.ranks() == kept
    alone = open_world(searching(**MINE), "b")
    expected = alone.trial(1, 0.02, "calm")
    assert measured(last) == measured(expected)
    assert world.weights(1) == alone.weights(1)
    found, found_alone = ((each.root / "found").read_text() for each in (world, alone))
    assert found.replace(str(world.root), "") == found_alone.replace(str(alone.root), "")
    assert found.startswith(f"1 None {world.root} ")


@pytest.mark.skipif(not Path("/proc").exists(), reason="which processes run is read from /proc")
def test_process_without_memory_is_replaced(open_world, tmp_path):
    lay_out(tmp_path / "a")
    world = open_world(searching(**MINE))
    world.trial(0, 0.01, "calm")
    first = world.ranks()
    said = world.trial(1, 0.01, "memory")
    assert said[-1][STATE] == "OutOfMemory"
    assert world.trial(2, 0.01, "calm")[-1][STATE] == "Complete"
    assert len(world.ranks()) == 1
    assert world.ranks() != first


@pytest.mark.skipif(not Path("/proc").exists(), reason="which processes run is read from /proc")
def test_what_fails_in_a_kept_process_is_tried_in_a_new_one(open_world, tmp_path, capsys):
    """A process can do some things once only; and memory may be short because of the trial before."""
    lay_out(tmp_path / "a", only_once=True)
    world = open_world(searching(**MINE))
    assert world.trial(0, 0.01, "calm")[-1][STATE] == "Complete"
    first = world.ranks()
    assert world.trial(1, 0.01, "calm")[-1][STATE] == "Complete"
    assert world.ranks() != first
    out = capsys.readouterr().out
    assert out.count("context has already been set") == out.count("it is tried again in new processes") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_pruned_trial_has_made_no_further_step(open_world, workers):
    world = open_world(searching(workers))
    world.host.begin({NUMBER: 0, VALUES: {"optimizer.lr": 0.01}})
    first = world.host.step()
    assert first[TIME] == 1
    said = world.trial(1, 0.003)  # what begins the next one ends this
    assert len(measured(said)) == EPOCHS
    run = open_store(f"file://{world.root}", None, None, {}).under("default/t/u/trials/0000")
    assert not run.list("checkpoints")
    told = [each for each in world.driver.messages if isinstance(each, Progress | Returned)]
    over = told.index(Returned(trial=0))  # from here on its checkpoints may be removed
    assert not [each for each in told[over:] if isinstance(each, Progress) and each.generation == 0]
    reports = [each.report for each in world.driver.messages if isinstance(each, Progress) and each.generation == 0]
    assert max(report.step for report in reports) == reports[0].total_steps // EPOCHS


@pytest.mark.skipif(not Path("/proc").exists(), reason="which processes run is read from /proc")
def test_killed_rank_continues_from_the_trial_s_checkpoint(open_world):
    calm = open_world(searching(), "calm").trial(0, 0.01)
    world = open_world(searching())
    world.host.begin({NUMBER: 0, VALUES: {"optimizer.lr": 0.01}})
    said = [world.host.step(), world.host.step()]
    for pid in world.ranks():
        os.kill(pid, signal.SIGKILL)
    while not said[-1]["done"]:
        said.append(world.host.step())
    found = dict(measured(said))
    assert found == dict(measured(calm))
    again = world.trial(1, 0.003)  # the host is as good as before
    assert len(measured(again)) == EPOCHS


def test_divergence_is_a_result(open_world):
    world = open_world(searching(diverges=True))
    said = world.trial(0, 100.0)
    assert said[-1][STATE] == "Diverged"
    assert "NonFiniteLoss" in said[-1][REASON]
    assert world.trial(1, 0.01)[-1][STATE] == "Complete"


def test_values_that_make_no_job_are_a_failed_trial(open_world):
    world = open_world(searching())
    world.host.begin({NUMBER: 0, VALUES: {"optimizer.lr": -1.0}})
    said = world.host.step()
    assert said["done"]
    assert said[STATE] == "Failed"
    assert "spec.training.optimizer.lr" in said[REASON]


def test_stop_saves_and_the_trial_continues_later(open_world):
    calm = open_world(searching(), "calm").trial(0, 0.01)
    world = open_world(searching())
    world.host.begin({NUMBER: 0, VALUES: {"optimizer.lr": 0.01}})
    said = [world.host.step()]
    world.driver.peers[0].send(Stop())
    while not said[-1]["done"]:
        said.append(world.host.step())
    assert said[-1][STATE] in ("Stopped", "Complete")
    later = open_world(searching())
    said += later.trial(0, 0.01)
    assert dict(measured(said)) == dict(measured(calm))


@pytest.mark.skipif(not Path("/proc").exists(), reason="which processes run is read from /proc")
def test_pruned_trial_whose_rank_is_lost_is_over(open_world):
    world = open_world(searching())
    world.host.begin({NUMBER: 0, VALUES: {"optimizer.lr": 0.01}})
    assert world.host.step()[TIME] == 1
    for pid in world.ranks():
        os.kill(pid, signal.SIGKILL)
    assert len(measured(world.soon(1, 0.003))) == EPOCHS


@pytest.mark.skipif(not Path("/proc").exists(), reason="which processes run is read from /proc")
def test_rank_lost_between_trials_is_replaced_with_its_peers(open_world):
    world = open_world(searching(2))
    world.trial(0, 0.01)
    first, second = world.ranks()
    os.kill(second, signal.SIGKILL)
    while Path(f"/proc/{second}").exists():  # the agent has seen it
        time.sleep(0.01)
    assert len(measured(world.soon(1, 0.003))) == EPOCHS
    assert not {first, second} & set(world.ranks())


def test_stop_that_comes_before_the_agents(open_world):
    """The trial was on its way: it saves and ends, instead of training until it is killed."""
    world = open_world(searching())
    world.host._carry_out(world.host._stop())  # the agents aren't there yet
    world.host.begin({NUMBER: 0, VALUES: {"optimizer.lr": 0.003}})
    said = [world.host.step()]
    while not said[-1]["done"]:
        said.append(world.host.step())
    assert said[-1][STATE] == "Stopped"
