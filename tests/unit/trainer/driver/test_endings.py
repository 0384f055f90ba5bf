"""What is said of a training that hangs: which rank the others wait for, and where it is."""

from __future__ import annotations

import pytest
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.driver.endings import stalled
from trainmaster_trainer.ipc.messages import Stacks
from trainmaster_trainer.reporting.state import RunState

from tests.factories import make_job

WAITS = Stacks(lines=["in backward"], place="main.py:9 in train", waits=True)
HANGS = Stacks(lines=["in the lock", "thread b:"], place="main.py:7 in at")
AWAY = Stacks(lines=["in ours"])


@pytest.mark.parametrize(
    ("stacks", "rank", "where"),
    [
        ({}, None, ""),
        ({0: WAITS, 1: HANGS}, 1, ": rank 1 is at main.py:7 in at while rank 0 waits for it"),
        ({0: HANGS, 1: WAITS}, 0, ": rank 0 is at main.py:7 in at while rank 1 waits for it"),
        ({0: WAITS, 1: WAITS}, 0, ": rank 0 is at main.py:9 in train"),
        ({0: HANGS, 1: HANGS}, 0, ": rank 0 is at main.py:7 in at"),
        ({0: AWAY, 1: AWAY}, 0, ""),
        ({0: WAITS}, 1, ": rank 1 doesn't respond"),
    ],
)
def test_stall_names_the_rank_that_hangs(stacks: dict[int, Stacks], rank: int | None, where: str) -> None:
    state = RunState(TrainingJob.model_validate(make_job()), 1)
    found = stalled(state, 30, stacks, 2)
    assert found.failure_class is FailureClass.STALLED
    assert found.message == f"no new step for 30 s after step 0{where}; look for a deadlock, or raise run.stallSeconds"
    assert (found.rank, found.last_lines) == (rank, stacks[rank].lines if rank in stacks else [])
