"""From what ranks raise to a class of the published list."""

from __future__ import annotations

import pytest
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.errors import DataError, NonFiniteLoss, StorageDenied
from trainmaster_trainer.failures import RankError, rank_error


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
        (MemoryError("can't allocate 12 GB"), FailureClass.HOST_OUT_OF_MEMORY, False),
        (RuntimeError(GLOO), FailureClass.WORKER_LOST, True),
        (ConnectionResetError("Connection reset by peer"), FailureClass.WORKER_LOST, True),
        (RuntimeError("CUDA error: unspecified launch failure"), FailureClass.GPU_FAULT, False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), FailureClass.INTERNAL_ERROR, False),
        (KeyError("gloo"), FailureClass.INTERNAL_ERROR, False),
    ],
)
def test_class_of_a_rank(error: BaseException, expected: FailureClass, peer: bool) -> None:
    found = rank_error(raised(error), 3, "job-1-w-3")
    assert (found.failure_class, found.peer) == (expected, peer)
    assert (found.rank, found.pod) == (3, "job-1-w-3")


def test_gpu_out_of_memory_by_name() -> None:
    import torch

    found = rank_error(raised(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")), 0, "")
    assert found.failure_class is FailureClass.GPU_OUT_OF_MEMORY


def test_a_known_error_brings_no_stack_and_an_unknown_one_its_end() -> None:
    assert rank_error(raised(DataError("row 118")), 0, "").last_lines == []
    lines = rank_error(raised(ValueError("boom")), 0, "").last_lines
    assert lines[-1] == "ValueError: boom"
    assert any("test_failures.py" in line for line in lines)


def test_rank_error_says_it_in_one_line() -> None:
    assert isinstance(rank_error(raised(ValueError("a\nb")), 0, ""), RankError)
    assert str(rank_error(raised(ValueError("a\nb")), 2, "")) == "rank 2: ValueError: a"
