"""What the driver decides by itself; everything that it does with a Ray is in the integration tests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from trainmaster_api.messages import TrainerState
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.driver.attempt import Driver


@pytest.mark.parametrize(
    ("state", "asked", "seconds"),
    [
        (TrainerState.TRAINING, 30, 30),
        (TrainerState.STARTING, 30, 600),
        (TrainerState.RECOVERING, 30, 600),
        (TrainerState.FINISHING, 30, 600),
        (TrainerState.STARTING, 3600, 3600),
    ],
)
def test_loading_and_packaging_may_take_longer_than_a_step(
    job: TrainingJob, state: TrainerState, asked: int, seconds: int
) -> None:
    run = job.spec.run.model_copy(update={"stall_seconds": asked})
    job = job.model_copy(update={"spec": job.spec.model_copy(update={"run": run})})
    driver: Any = SimpleNamespace(job=job, hub=SimpleNamespace(state=state))
    assert Driver._patience(driver) == seconds
