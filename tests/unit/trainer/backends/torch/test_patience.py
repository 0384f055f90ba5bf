"""Patience, which early stopping and plateau share."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainmaster_api.spec.task import Task as TaskSpec
from trainmaster_trainer.backends.torch.patience import Patience
from trainmaster_trainer.tasks import build_task

TASK = build_task(TaskSpec(name="classification", num_classes=3), 3)
LOSS, ACCURACY = (TASK.objective(name, "here") for name in ("val/loss", "val/accuracy"))


def feed(patience: Patience, values: list[float]) -> list[bool]:
    return [patience.update({patience.objective.metric: value}) for value in values]


def test_patience_counts_validations() -> None:
    assert feed(Patience(LOSS, 2), [3, 2, 2, 2.5, 1, 1, 1]) == [False, False, False, True, False, False, True]
    assert feed(Patience(ACCURACY, 1), [0.5, 0.6, 0.6]) == [False, False, True]


def test_patience_min_delta() -> None:
    assert feed(Patience(LOSS, 1, min_delta=0.5), [3.0, 2.6]) == [False, True]
    assert feed(Patience(LOSS, 1, min_delta=0.5), [3.0, 2.4]) == [False, False]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30), st.data())
def test_patience_resumed_decides_alike(values: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(values)))
    whole = Patience(LOSS, 3)
    expected = feed(whole, values)
    before, after = Patience(LOSS, 3), Patience(LOSS, 3)
    start = feed(before, values[:cut])
    after.restore(json.loads(json.dumps(before.state())))
    assert start + feed(after, values[cut:]) == expected


def test_patience_restarts_after_it_ran_out() -> None:
    patience = Patience(LOSS, 2)
    assert feed(patience, [1, 1, 1, 1, 1]) == [False, False, True, False, True]
    assert patience.state() == {"best": 1, "waited": 0}


def test_patience_nan_is_no_gain() -> None:
    assert feed(Patience(LOSS, 1), [1.0, math.nan]) == [False, True]


def test_patience_restore_without_a_validation() -> None:
    patience = Patience(LOSS, 1)
    patience.restore({"best": None, "waited": None})
    assert feed(patience, [1.0, 1.0]) == [False, True]


def test_patience_needs_its_metric() -> None:
    with pytest.raises(KeyError, match="val/loss"):
        Patience(LOSS, 1).update({"val/accuracy": 0.5})
