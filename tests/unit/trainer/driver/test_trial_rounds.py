"""Rounds of a population with real ranks: each is a run of its own, which begins with the checkpoint of another."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from trainmaster_api.validation.validate import validate
from trainmaster_trainer.ipc.messages import Stop, Wake
from trainmaster_trainer.storage.store import Store, open_store
from trainmaster_trainer.tuning.trials import NUMBER, RUN, SEGMENT, STATE, TIME, VALUES, WAITS, run_of

from tests.unit.trainer.driver.test_trial import EPOCHS, World, measured, open_world, searching

__all__ = ["open_world"]


def play(world: World, number: int, round_number: int, lr: float, source: int | None = None) -> list[dict[str, Any]]:
    """Run a round of one epoch."""
    begin(world, number, round_number, lr, source)
    said = [world.host.step()]
    while not said[-1]["done"]:
        said.append(world.host.step())
    return said


def begin(world: World, number: int, round_number: int, lr: float, source: int | None = None) -> None:
    origin = "" if source is None else run_of(source, round_number - 1)
    segment = {"until": round_number, "origin": origin, "is_other": source not in (None, number)}
    config = {NUMBER: number, VALUES: {"optimizer.lr": lr}, RUN: run_of(number, round_number), SEGMENT: segment}
    assert world.host.begin(config)


def store(world: World, run: str) -> Store:
    return open_store(f"file://{world.root}", None, None, {}).under(f"default/t/u/{run}")


def newest(world: World, run: str, file: str = "model.safetensors") -> bytes:
    found = store(world, run)
    return found.get(max(name for name, _ in found.list("checkpoints") if name.endswith(file))) or b""


def rates(world: World, run: str) -> list[float]:
    lines = (store(world, run).get("metrics.jsonl") or b"").splitlines()
    return [each["train/lr"] for each in map(json.loads, lines) if "train/lr" in each]


@pytest.mark.parametrize("workers", [1, 2])
def test_rounds_are_the_whole_trial(open_world, workers):
    whole = open_world(searching(workers), "whole")
    expected = whole.trial(0, 0.01)
    world = open_world(searching(workers))
    said = []
    for number in range(1, EPOCHS + 1):
        said += play(world, 0, number, 0.01, 0 if number > 1 else None)
        play(world, 1, number, 0.003, 1 if number > 1 else None)  # on the same ranks, in between
    assert measured(said) == measured(expected)
    assert [each[STATE] for each in said if each["done"]] == ["Paused", "Paused", "Complete"]
    assert newest(world, run_of(0, EPOCHS)) == whole.weights(0)


def test_exploit_has_the_other_trial_s_weights_and_its_own_values(open_world):
    world = open_world(searching())
    play(world, 0, 1, 0.01)
    play(world, 1, 1, 1e-5)
    own = play(world, 0, 2, 0.01, 0)
    same = play(world, 1, 2, 0.01, 0)  # loaded from trial 0, with its very values: it is trial 0
    assert measured(same) == measured(own)
    assert newest(world, run_of(1, 2)) == newest(world, run_of(0, 2))
    other = play(world, 2, 2, 0.005, 0)
    assert measured(other) != measured(own)
    assert rates(world, run_of(2, 2)) == [pytest.approx(each / 2) for each in rates(world, run_of(0, 2))]
    # of the optimizer's state, its moments are the other trial's; without them the weights would be others
    assert newest(world, run_of(0, 1), "optimizer.pt") != newest(world, run_of(1, 1), "optimizer.pt")


def test_exploit_changes_what_the_optimizer_s_state_has(open_world):
    """A checkpoint has the other trial's weight decay, beside its moments."""
    document = searching().wire()
    document["spec"]["tuning"]["space"]["optimizer.weightDecay"] = {"min": 0.0, "max": 1.0}
    job, problems = validate(document)
    assert job is not None, problems
    world = open_world(job)
    for number, decay, round_number, origin in ((0, 0.5, 1, ""), (1, 0.25, 2, run_of(0, 1))):
        values = {"optimizer.lr": 0.01, "optimizer.weightDecay": decay}
        segment = {"until": round_number, "origin": origin, "is_other": bool(origin)}
        world.host.begin({NUMBER: number, VALUES: values, RUN: run_of(number, round_number), SEGMENT: segment})
        while not world.host.step()["done"]:
            continue
        groups = torch.load(io.BytesIO(newest(world, run_of(number, round_number), "optimizer.pt")))["param_groups"]
        assert groups[0]["weight_decay"] == decay


def test_round_that_has_saved_its_end_trains_no_further(open_world):
    """The search was killed after the checkpoint, and before its journal had the end of the round."""
    world = open_world(searching())
    first = play(world, 0, 1, 0.01)
    weights = newest(world, run_of(0, 1))
    again = play(world, 0, 1, 0.01)
    assert len(measured(first)) == 1
    assert measured(again) == []
    assert again[-1][STATE] == "Paused"
    assert newest(world, run_of(0, 1)) == weights


@pytest.mark.skipif(not Path("/proc").exists(), reason="which processes run is read from /proc")
def test_killed_in_a_round_it_loads_its_own_checkpoint(open_world):
    """An exploit isn't loaded twice: what the trial has trained since is in a checkpoint of its own."""
    run = run_of(1, 3)
    segment = {"until": 3, "origin": run_of(0, 1), "is_other": True}  # two epochs in one round
    calm, world = open_world(searching(), "calm"), open_world(searching())
    told: dict[str, list[dict[str, Any]]] = {"calm": [], "killed": []}
    for name, each in (("calm", calm), ("killed", world)):
        play(each, 0, 1, 0.01)
        assert each.host.begin({NUMBER: 1, VALUES: {"optimizer.lr": 0.003}, RUN: run, SEGMENT: segment})
        said = told[name]
        while not said or not said[-1]["done"]:
            said.append(each.host.step())
            if name == "killed" and len(said) == 2:  # its first epoch was told to continue, and is saved meanwhile
                until_saved(world, run)
                for pid in world.ranks():  # those of both worlds, of which one is over
                    os.kill(pid, signal.SIGKILL)
    assert [each[TIME] for each in told["calm"] if TIME in each] == [2, 3]
    times = [each[TIME] for each in told["killed"] if TIME in each]
    assert times == [2, 3, 3], "with the exploit loaded again: 2, 3, 2, 3"
    assert dict(measured(told["killed"])) == dict(measured(told["calm"]))
    assert newest(world, run) == newest(calm, run)


def until_saved(world: World, run: str) -> None:
    """Wait until a checkpoint of a run is committed, while its trial waits for the verdict."""
    deadline = time.monotonic() + 60
    while store(world, run).get("LATEST") is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("message", [Wake(count=1), Stop()])
def test_actor_that_waits_is_woken_and_keeps_its_ranks(open_world, message):
    world = open_world(searching())
    play(world, 0, 1, 0.01)
    kept = world.ranks()
    world.host.begin({NUMBER: -1, WAITS: 1})
    ended = threading.Event()
    threading.Thread(target=lambda: (world.host.step(), ended.set()), daemon=True).start()
    assert not ended.wait(0.3)
    world.driver.peers[0].send(message)
    assert ended.wait(10)
    if isinstance(message, Wake):
        assert play(world, 1, 1, 0.01)[-1][STATE] == "Paused"
        assert world.ranks() == kept
