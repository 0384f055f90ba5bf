"""What is promised of a training's data, and what of its callbacks a checkpoint has."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from trainmaster_api.messages import Resume
from trainmaster_trainer.backends.script.session import Session
from trainmaster_trainer.backends.transformers import data
from trainmaster_trainer.backends.transformers.callbacks import Callbacks
from trainmaster_trainer.backends.transformers.saver import Saver


class Rows(Dataset[float]):
    """Draws as told when a row is read."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> float:
        self.draw()
        return float(index)


class Stream(IterableDataset[float]):
    def __iter__(self) -> Any:
        return iter([1.0, 2.0])


def nothing() -> None:
    """Draw nothing."""


class Words(Session):
    """A session that only takes note of what is promised."""

    def __init__(self) -> None:
        self.said: list[tuple[Resume, str]] = []
        self._resume = Resume.EXACT

    def promise(self, level: Resume, words: str = "") -> None:
        self.said.append((level, words))
        self._resume = level


def trainer_of(callbacks: Any = (), **arguments: Any) -> Any:
    values = {"ignore_data_skip": False, "world_size": 1, "dataloader_persistent_workers": False, **arguments}
    return SimpleNamespace(
        args=SimpleNamespace(**values), callback_handler=SimpleNamespace(callbacks=list(callbacks)), state=None
    )


def judged(loader: Any, **arguments: Any) -> list[Resume]:
    session = Words()
    data.judge(session, trainer_of(**arguments), loader)
    return [level for level, _ in session.said]


DRAW_NAMES = ["torch", "numpy", "python"]


@pytest.mark.parametrize("draw", [lambda: torch.rand(1), np.random.rand, random.random], ids=DRAW_NAMES)
def test_draws_in_a_worker_are_said(draw: Any) -> None:
    torch.manual_seed(1)
    before = data.seen()
    assert judged(DataLoader(Rows(draw), 2, num_workers=1)) == [Resume.LOADER]
    assert not data.has_drawn(before), "the question itself has drawn"


def test_data_that_is_the_same_again_is_exact() -> None:
    assert judged(DataLoader(Rows(nothing), 2, num_workers=1)) == []
    assert judged(DataLoader(Rows(nothing), 2)) == []


def test_data_that_cannot_be_exact_is_said() -> None:
    assert judged(DataLoader(Stream(), 2)) == [Resume.LOADER]
    assert judged([1, 2]) == [Resume.SCRIPT]
    assert judged(DataLoader(Rows(nothing), 2), ignore_data_skip=True) == [Resume.SCRIPT]


@pytest.mark.parametrize("draw", [lambda: torch.rand(1), np.random.rand, random.random], ids=DRAW_NAMES)
def test_draws_of_a_step_are_said_once(draw: Any, tmp_path: Any) -> None:
    session = Words()
    saver = Saver(session, trainer_of(), tmp_path, None, 0)
    state = SimpleNamespace(global_step=0, epoch=0)
    saver.epoch_begin(state, DataLoader(Rows(nothing), 2))
    saver.fetch(lambda: torch.rand(1))  # the order of an epoch is put back
    assert session.said == []
    saver.fetch(nothing)
    assert session.said == []
    saver.fetch(draw)
    saver.fetch(draw)
    assert [words for _, words in session.said] == [data.DRAWS, ""]


def test_epoch_that_ended_early_is_said(tmp_path: Any) -> None:
    session = Words()
    saver = Saver(session, trainer_of(), tmp_path, None, 0)
    loader = DataLoader(Rows(nothing), 2)
    saver.epoch_begin(SimpleNamespace(global_step=4, epoch=1.0), loader)
    assert session.said == []
    saver.epoch_begin(SimpleNamespace(global_step=6, epoch=1.5), loader)
    assert [level for level, _ in session.said] == [Resume.SCRIPT]


class Counts:
    """A callback with a name, a counter and what refers to weights elsewhere."""

    def __init__(self, name: str, weight: torch.Tensor) -> None:
        self.name, self.count, self.seen = name, 0, {"weight": weight}
        self.lock = object()


def test_callbacks_get_back_what_they_changed() -> None:
    old = [Counts("one", torch.zeros(2)), Counts("other", torch.zeros(2))]
    kept = Callbacks(trainer_of(old), None)
    old[0].count, old[1].count = 3, 4
    old[1].seen["weight"] += 1
    saved = kept.state()
    weight = torch.ones(2)
    new = [Counts("changed in the program", torch.zeros(2)), Counts("other", weight)]
    Callbacks(trainer_of(new), None).put_back(saved)
    assert [each.count for each in new] == [3, 4]
    assert new[0].name == "changed in the program", "what training doesn't change is the program's"
    assert new[0].seen["weight"].tolist() == [0.0, 0.0]
    assert new[1].seen["weight"] is weight, "a tensor with the right values stays: it may be the model's"
