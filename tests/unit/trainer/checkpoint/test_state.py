"""What a checkpoint carries besides tensors comes back."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from trainmaster_api.layout import METRICS
from trainmaster_trainer.backends.torch.builder import Setup, build, gather_ranks
from trainmaster_trainer.backends.torch.control_point import ControlPoint
from trainmaster_trainer.checkpoint.state import State

from tests.unit.trainer.harness import Recording, make_context, run_store, small_job, train

WATCHED = {
    "spec.training.loop": {"duration": "60ep", "seed": 3, "earlyStopping": {"patience": 9}},
    "spec.training.schedule": {"name": "plateau", "args": {"patience": 7}},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of several threads are added up in another order than those of one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fresh(root: Path) -> Setup:
    return build(make_context(small_job(WATCHED), root))


def through_bytes(setup: Setup) -> State:
    return State.from_files(
        State.capture(
            setup.model, setup.optimizer, gather_ranks(setup), setup.loop_state(), setup.parts_state()
        ).files()
    )


def test_every_number_of_the_loop_comes_back(tmp_path: Path) -> None:
    before = fresh(tmp_path)
    before.step, before.loss_steps, before.best, before.stopped_early = 30, 4, 0.5, True
    before.loss_sum.fill_(2.25)
    assert before.early is not None
    before.early.update({"val/loss": 0.5})
    for _ in range(9):
        before.schedule.validated({"val/loss": 0.25})
    assert before.schedule.share(0) == 0.1, "plateau has lowered the rate"
    after = fresh(tmp_path)
    after.restore(through_bytes(before))
    assert after.loop_state() == before.loop_state()
    assert after.schedule.state_dict() == before.schedule.state_dict() == {"share": 0.1, "best": 0.25, "waited": 1}
    assert float(after.loss_sum) == 2.25


def test_every_random_state_comes_back(tmp_path: Path) -> None:
    before = fresh(tmp_path)
    state = through_bytes(before)
    expected = (torch.rand(3).tolist(), np.random.random(), random.random())
    fresh(tmp_path).restore(state)
    assert (torch.rand(3).tolist(), np.random.random(), random.random()) == expected


def test_other_world_size_draws_again_and_shares_the_loss(tmp_path: Path) -> None:
    before = fresh(tmp_path)
    state = through_bytes(before)
    state.loop["step"] = 30
    state.ranks = [{**state.ranks[0], "lossSum": 1.0}, {**state.ranks[0], "lossSum": 2.0}]
    after = fresh(tmp_path)
    after.restore(state)
    assert float(after.loss_sum) == 1.5
    assert not torch.equal(torch.get_rng_state(), state.ranks[0]["rng"]["torch"])


def test_a_stop_between_two_logged_lines_changes_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,320 steps are logged every third."""
    monkeypatch.setattr(ControlPoint, "_next_gap", lambda self, step: 50)
    job = small_job({"spec.training.loop": {"duration": "60ep", "seed": 3}})
    train(job, tmp_path / "whole")
    stopped = train(job, tmp_path / "parts", recording=Recording(stop_at=1))
    assert stopped.step == 50
    train(job, tmp_path / "parts", attempt=2)
    whole, parts = (run_store(job, tmp_path / name).get(METRICS) or b"" for name in ("whole", "parts"))
    assert [json.loads(line) for line in parts.splitlines()] == [json.loads(line) for line in whole.splitlines()]
