"""Every error of Ray Train's becomes a question to the driver, and its answer the decision."""

from __future__ import annotations

import pickle

import pytest
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.cluster.train import _Policy, cause
from trainmaster_trainer.errors import DataError
from trainmaster_trainer.failures import Failure, rank_error

RANK = WorkerGroupError(
    "ranks failed", {1: pickle.loads(pickle.dumps(rank_error(DataError("row 7 is broken"), 1, "p")))}
)
START = ControllerError(WorkerGroupStartupFailedError("One of the worker actors failed\nTraceback ..."))
OWN = ControllerError(ValueError("no such placement\nmore"))


@pytest.mark.parametrize(
    ("error", "failure_class", "says", "recoverable"),
    [
        (RANK, FailureClass.DATA_ERROR, "row 7 is broken", False),
        (START, FailureClass.WORKER_LOST, "a worker was lost while the ranks started", True),
        (OWN, FailureClass.INTERNAL_ERROR, "Ray Train failed: ValueError: no such placement", False),
    ],
)
def test_what_is_behind_an_error(
    error: TrainingFailedError, failure_class: FailureClass, says: str, recoverable: bool
) -> None:
    found = cause(error)
    assert (found.failure_class, found.message, found.recoverable) == (failure_class, says, recoverable)


@pytest.mark.parametrize(("may", "decision"), [(True, FailureDecision.RETRY), (False, FailureDecision.RAISE)])
def test_the_driver_decides(may: bool, decision: FailureDecision) -> None:
    asked: list[Failure] = []

    def may_recover(failure: Failure) -> bool:
        asked.append(failure)
        return may

    assert _Policy(may_recover).make_decision(START) is decision
    assert [failure.failure_class for failure in asked] == [FailureClass.WORKER_LOST]
