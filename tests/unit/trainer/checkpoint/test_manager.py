"""Saves while storage hangs: training continues, memory stays bounded, nothing that matters is dropped."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from trainmaster_api.layout import MANIFEST
from trainmaster_trainer.backends.torch.recorder import Recorder
from trainmaster_trainer.checkpoint import manager, protocol
from trainmaster_trainer.checkpoint.manager import CheckpointManager, Policy, Snapshot
from trainmaster_trainer.checkpoint.state import State
from trainmaster_trainer.context import Report, ReportKind
from trainmaster_trainer.errors import ConfigurationError, StorageUnavailable
from trainmaster_trainer.storage.store import Store
from trainmaster_trainer.tasks import Objective

from tests.unit.trainer.harness import Recording, run_store, small_job, train

LOSS = Objective("val/loss", higher_is_better=False)


def state(step: int, **optimizer: Any) -> State:
    return State({"w": torch.full((3,), float(step))}, {"state": optimizer, "param_groups": []}, [], {"step": step})


class Gate:
    """A store that takes no object of a checkpoint until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened, self.reached = threading.Event(), threading.Event()
        self.error: Exception | None = None
        real = Store.put

        def put(store: Store, path: str, data: bytes) -> None:
            if path.startswith("checkpoints/"):
                self.reached.set()
                assert self.opened.wait(60), "storage was never needed again"
                if self.error is not None:
                    raise self.error
            real(store, path, data)

        monkeypatch.setattr(Store, "put", put)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    found = Gate(monkeypatch)
    yield found
    found.opened.set()


@pytest.fixture
def checkpoints(tmp_path: Path) -> CheckpointManager:
    store = Store(str(tmp_path))
    found = CheckpointManager(store, store.uri, 1, 1, Policy(9, 1, LOSS), lambda: None, lambda ref: None)
    found.resume(lambda text: None)
    return found


def committed(checkpoints: CheckpointManager) -> list[int]:
    checkpoints.wait()
    return sorted(step for _, step in protocol.positions(checkpoints.store))


def test_of_the_copies_that_wait_the_newest_is_written(checkpoints: CheckpointManager, gate: Gate) -> None:
    checkpoints.save(Snapshot(10, state(10), {}))
    assert gate.reached.wait(10)
    for step in (20, 30, 40):
        checkpoints.save(Snapshot(step, state(step), {}))
    assert not checkpoints.is_idle
    gate.opened.set()
    assert committed(checkpoints) == [10, 40]
    assert checkpoints.is_idle


def test_save_writes_the_best_before_a_newer_one(checkpoints: CheckpointManager, gate: Gate) -> None:
    checkpoints.save(Snapshot(10, state(10), {}))
    assert gate.reached.wait(10)
    for step, loss in ((20, 0.5), (30, 0.1)):  # each was the best so far, and due as well
        best = Snapshot(step, state(step), {"val/loss": loss})
        checkpoints.keep(best)
        checkpoints.save(best)
    checkpoints.save(Snapshot(40, state(40), {"val/loss": 0.9}))
    gate.opened.set()
    assert committed(checkpoints) == [10, 30, 40]
    assert checkpoints.best() == (1, 30)


def test_a_best_that_is_newer_than_what_waits_is_not_lost(checkpoints: CheckpointManager, gate: Gate) -> None:
    checkpoints.save(Snapshot(10, state(10), {}))
    assert gate.reached.wait(10)
    checkpoints.save(Snapshot(20, state(20), {}))
    checkpoints.keep(Snapshot(25, state(25), {"val/loss": 0.1}))
    gate.opened.set()
    assert committed(checkpoints) == [10, 20]
    checkpoints.save(Snapshot(30, state(30), {}))
    assert committed(checkpoints) == [10, 20, 25, 30]


def test_memory_holds_two_copies_besides_those_in_flight(checkpoints: CheckpointManager, gate: Gate) -> None:
    alive: list[weakref.ref[State]] = []

    def copied(step: int) -> State:
        found = state(step)
        alive.append(weakref.ref(found))
        return found

    checkpoints.save(Snapshot(1, copied(1), {}))
    assert gate.reached.wait(10)
    for step in range(2, 40):
        if step % 5 == 0:
            checkpoints.keep(Snapshot(step, copied(step), {"val/loss": 1 / step}))
        checkpoints.save(Snapshot(step, copied(step), {}))
    gc.collect()
    assert sum(each() is not None for each in alive) <= 3
    gate.opened.set()


def test_failed_save_is_raised_by_the_next_look(checkpoints: CheckpointManager, gate: Gate) -> None:
    gate.error = StorageUnavailable("gone")
    checkpoints.save(Snapshot(10, state(10), {}))
    checkpoints.poll()
    gate.opened.set()
    with pytest.raises(StorageUnavailable, match="gone"):
        checkpoints.wait()
    gate.error = None
    checkpoints.save(Snapshot(20, state(20), {}))
    checkpoints.wait()
    assert protocol.has_manifest(checkpoints.store, (1, 20)), "a caller that continues can save again"


def test_a_save_is_slow_by_the_measure_of_the_one_before(
    checkpoints: CheckpointManager, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "SLOW_SECONDS", 0.05)
    assert checkpoints.slow is None
    checkpoints.save(Snapshot(10, state(10), {}))
    assert gate.reached.wait(10)
    deadline = time.monotonic() + 10
    while checkpoints.slow is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert checkpoints.slow is not None
    assert checkpoints.slow.step == 10
    checkpoints.last_save_seconds = 1000.0
    assert checkpoints.slow is None, "the one before took as long"
    gate.opened.set()
    checkpoints.wait()
    assert checkpoints.slow is None


class Odd:
    """What torch doesn't load without trusting the file."""


def test_save_refuses_a_state_that_could_not_be_loaded(checkpoints: CheckpointManager) -> None:
    checkpoints.save(Snapshot(10, state(10, moment=Odd()), {}))
    with pytest.raises(
        ConfigurationError, match=r"can't be loaded from a checkpoint .*; it must consist of tensors, numbers"
    ):
        checkpoints.wait()
    assert not protocol.has_manifest(checkpoints.store, (1, 10))


class OpensLater(Recording):
    """Opens storage when the run has made many steps since the save that hangs."""

    def __init__(self, gate: Gate, at: int) -> None:
        super().__init__()
        self.gate, self.at = gate, at

    def report(self, report: Report) -> None:
        super().report(report)
        if report.kind in (ReportKind.STEP, ReportKind.VALIDATION) and report.step >= self.at:
            self.gate.opened.set()


def test_training_goes_on_while_storage_hangs_and_says_so(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first checkpoint is due at step 10; storage takes it when the run has come to step 300."""
    monkeypatch.setattr(manager, "SLOW_SECONDS", 0.0)
    recording = OpensLater(gate, 300)
    looks: list[int] = []
    real = Recorder.look
    monkeypatch.setattr(Recorder, "look", lambda self: (looks.append(self.setup.step), real(self)))
    job = small_job(
        {
            "spec.training.loop": {"duration": "20ep", "seed": 3},
            "spec.checkpoint": {"every": "10step", "keep": 100, "keepBest": 0},
        }
    )
    train(job, tmp_path, recording=recording)
    steps = sorted(
        int(path.split("/")[1][-7:]) for path, _ in run_store(job, tmp_path).list("checkpoints")
        if path.endswith(MANIFEST)
    )  # fmt: skip
    assert steps[0] == 10
    assert not [step for step in steps if 30 < step < 290], "what became due meanwhile was merged into the newest"
    assert max(steps) == 440
    told = [r for r in recording.reports if r.kind in (ReportKind.WAITING, ReportKind.WARNING)]
    assert any("storage has not accepted the checkpoint of step 10 since 20" in r.message for r in told), looks
    assert [r.message for r in told if r.kind is ReportKind.WAITING][-1] == "", "and that it is over"


def test_a_run_with_slow_storage_is_the_same_run(tmp_path: Path, gate: Gate) -> None:
    job = small_job({"spec.training.loop": {"duration": "20ep", "seed": 3}, "spec.checkpoint.every": "10step"})
    gate.opened.set()
    train(job, tmp_path / "a")
    gate.opened.clear()
    train(job, tmp_path / "b", recording=OpensLater(gate, 300))
    a, b = (run_store(job, tmp_path / name) for name in "ab")
    assert a.get("metrics.jsonl") == b.get("metrics.jsonl")
    assert a.get("model/model.safetensors") == b.get("model/model.safetensors")
