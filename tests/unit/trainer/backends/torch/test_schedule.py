"""Learning rates as functions of the step."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainmaster_api.spec import schedule as specs
from trainmaster_api.spec.task import Task as TaskSpec
from trainmaster_trainer.backends.torch.schedule import Schedule, steps_of
from trainmaster_trainer.tasks import build_task

TASK = build_task(TaskSpec(name="classification", num_classes=3), 3)
LOSS, ACCURACY = (TASK.objective(name, "here") for name in ("val/loss", "val/accuracy"))


def factor(part: specs.Schedule, step: int, total_steps: int, steps_per_epoch: int) -> float:
    return Schedule(part, TASK, total_steps, steps_per_epoch).share(step)


@pytest.mark.parametrize(
    ("duration", "expected"), [("3ep", 66), ("1000step", 1000), ("5%", 50), ("0", 0), ("0%", 0), ("100%", 1000)]
)
def test_steps_of_durations(duration: str, expected: int) -> None:
    assert steps_of(duration, steps_per_epoch=22, total_steps=1000) == expected


@given(st.sampled_from(["cosine", "linear"]), st.integers(1, 500), st.integers(0, 100))
def test_up_to_the_peak_and_down_to_the_floor(name: str, total: int, share: int) -> None:
    warmup = total * share // 100
    schedule = specs.Schedule(name=name, warmup=f"{warmup}step" if warmup else "0", min_lr_ratio=0.1)
    values = [factor(schedule, step, total, 10) for step in range(total + 1)]
    peak = warmup if warmup == total else values.index(max(values))
    assert all(a < b for a, b in pairwise(values[:warmup])), "rises while warming up"
    assert values[max(warmup - 1, 0)] == pytest.approx(1.0)
    assert all(a >= b for a, b in pairwise(values[peak:])), "and falls from there"
    assert min(values[peak:]) >= 0.1 - 1e-9
    if warmup < total:
        assert values[total] == pytest.approx(0.1)


def test_schedule_rates_halfway() -> None:
    assert factor(specs.Schedule(name="cosine", warmup="0"), 50, 100, 10) == pytest.approx(0.5)
    assert factor(specs.Schedule(name="cosine", warmup="0"), 25, 100, 10) == pytest.approx(0.8535534)
    assert factor(specs.Schedule(name="linear", warmup="0"), 25, 100, 10) == pytest.approx(0.75)
    assert factor(specs.Schedule(name="constant", warmup="2ep"), 9, 100, 10) == pytest.approx(0.5)
    assert all(factor(specs.Schedule(name=name), 99, 100, 10) == 1.0 for name in ("constant", "plateau"))
