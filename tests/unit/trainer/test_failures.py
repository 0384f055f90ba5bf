"""From what ranks and Ray raise to a class of the published list."""

from __future__ import annotations

import pickle

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError, OutOfMemoryError, WorkerCrashedError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerHealthCheckFailedError
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.errors import DataError, NonFiniteLoss, NotMet, StorageDenied
from trainmaster_trainer.failures import Interrupted, RankError, group_failure, rank_error


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as found:
        return found


GLOO = "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.7]:3141"


@pytest.mark.parametrize(
    ("error", "expected", "peer"),
    [
        (DataError("row 118 is broken"), FailureClass.DATA_ERROR, False),
        (NonFiniteLoss("loss is nan at step 7"), FailureClass.NON_FINITE_LOSS, False),
        (StorageDenied("no such bucket"), FailureClass.STORAGE_DENIED, False),
        (Interrupted("leaves"), FailureClass.PREEMPTED, False),
        (MemoryError("can't allocate 12 GB"), FailureClass.HOST_OUT_OF_MEMORY, False),
        (RuntimeError(GLOO), FailureClass.WORKER_LOST, True),
        (ConnectionResetError("Connection reset by peer"), FailureClass.WORKER_LOST, True),
        (NotMet("rank 0 did not say within 600 s where it listens"), FailureClass.WORKER_LOST, True),
        (RuntimeError("CUDA error: unspecified launch failure"), FailureClass.GPU_FAULT, False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), FailureClass.INTERNAL_ERROR, False),
        (KeyError("gloo"), FailureClass.INTERNAL_ERROR, False),
    ],
)
def test_class_of_a_rank(error: BaseException, expected: FailureClass, peer: bool) -> None:
    found = rank_error(raised(error), 3, "job-1-w-3")
    assert (found.failure_class, found.peer) == (expected, peer)
    copy = pickle.loads(pickle.dumps(found))
    assert (copy.message, copy.failure_class, copy.rank, copy.pod, copy.last_lines, copy.peer) == (
        found.message, expected, 3, "job-1-w-3", found.last_lines, peer,
    )  # fmt: skip


def test_gpu_out_of_memory_by_name() -> None:
    import torch

    found = rank_error(raised(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")), 0, "")
    assert found.failure_class is FailureClass.GPU_OUT_OF_MEMORY


def test_a_known_error_brings_no_stack_and_an_unknown_one_its_end() -> None:
    assert rank_error(raised(DataError("row 118")), 0, "").last_lines == []
    lines = rank_error(raised(ValueError("boom")), 0, "").last_lines
    assert lines[-1] == "ValueError: boom"
    assert any("test_failures.py" in line for line in lines)


def wrapped(error: BaseException) -> Exception:
    """As Ray Train hands it to its callbacks."""
    return WorkerHealthCheckFailedError("rank failed", UserExceptionWithTraceback(error, "Traceback ..."))


def test_own_error_goes_before_lost_peers() -> None:
    own = rank_error(raised(DataError("dog/017.png is broken")), 1, "job-1-w-1")
    peer = rank_error(raised(RuntimeError(GLOO)), 0, "job-1-w-0")
    found = group_failure({0: UserExceptionWithTraceback(peer, ""), 1: wrapped(own)})
    assert (found.failure_class, found.rank, found.pod) == (FailureClass.DATA_ERROR, 1, "job-1-w-1")
    assert not found.recoverable


def test_dead_process_goes_before_lost_peers() -> None:
    peer = rank_error(raised(RuntimeError(GLOO)), 0, "")
    found = group_failure({0: wrapped(peer), 1: ActorDiedError()})
    assert (found.failure_class, found.rank, found.recoverable) == (FailureClass.WORKER_LOST, 1, True)
    assert "rank 1" in found.message


@pytest.mark.parametrize("error", [ActorDiedError(), WorkerCrashedError()])
def test_dead_processes_are_recoverable(error: Exception) -> None:
    assert group_failure({0: error}).recoverable
    assert group_failure({0: WorkerHealthCheckFailedError("poll failed", error)}).recoverable


def test_killed_for_memory_by_ray() -> None:
    found = group_failure({2: OutOfMemoryError("Task was killed due to the node running low on memory.")})
    assert (found.failure_class, found.rank, found.recoverable) == (FailureClass.HOST_OUT_OF_MEMORY, 2, False)


def test_ray_s_guess_at_a_kill_is_no_finding() -> None:
    """What Ray 2.60 said of a process that was killed by SIGKILL."""
    text = (
        "The actor died unexpectedly before finishing this task.\n\tclass_name: RayTrainWorker\n"
        "The actor is dead because its worker process has died. Worker exit detail: Worker unexpectedly exits with "
        "a connection error code 2. End of file. There are some potential root causes. (1) The process is killed by "
        "SIGKILL by OOM killer due to high memory usage. (2) ray stop --force is called."
    )
    assert (
        group_failure({1: ActorDiedError(ActorDiedErrorContext(error_message=text, actor_id=b"1" * 16))}).failure_class
        is FailureClass.WORKER_LOST
    )


def test_only_lost_peers_are_recoverable() -> None:
    errors: dict[int, BaseException] = {r: rank_error(raised(RuntimeError(GLOO)), r, "") for r in (0, 1)}
    assert group_failure(errors).recoverable


def test_a_leaving_pod_is_no_failure() -> None:
    left = rank_error(raised(Interrupted("leaves")), 0, "")
    peer = rank_error(raised(RuntimeError(GLOO)), 1, "")
    found = group_failure({0: left, 1: peer})
    assert (found.failure_class, found.recoverable) == (FailureClass.PREEMPTED, True)


def test_rank_error_says_it_in_one_line() -> None:
    assert isinstance(rank_error(raised(ValueError("a\nb")), 0, ""), RankError)
    assert str(rank_error(raised(ValueError("a\nb")), 2, "")) == "rank 2: ValueError: a"
