"""From what ranks raise to a class of the published list."""

from __future__ import annotations

import socket
import sys
import sysconfig
from collections.abc import Callable
from types import TracebackType
from typing import Any

import pytest
import trainmaster
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer import references
from trainmaster_trainer.errors import DataError, NonFiniteLoss, StorageDenied
from trainmaster_trainer.failures import RankError, Standing, rank_error, standing

LOOP = "trainmaster_trainer.backends.torch.loop"
TORCH = "torch.nn.modules.module"
USER = "my_pkg.models"
OF_THE_USER = {USER, "helpers", "__main__", "somebodys_script"}


def raised(error: BaseException, *modules: str) -> BaseException:
    """Raise it below functions of these modules, the outermost first; by default in a step."""

    def call(names: list[str]) -> None:
        if not names:
            raise error
        folder = "/job" if names[0] in OF_THE_USER else sysconfig.get_paths()["purelib"]
        code = compile("def step(): call(rest)", f"{folder}/{names[0]}.py", "exec")
        space: dict[str, Any] = {"__name__": names[0], "call": call, "rest": names[1:]}
        exec(code, space)
        space["step"]()

    try:
        call(list(modules or (LOOP, TORCH)))
    except BaseException as found:
        # only the frames in question: those of this file would pass for the user's
        trace, kept = found.__traceback__, []
        while trace is not None:
            if trace.tb_frame.f_code.co_filename != __file__:
                kept.append(trace)
            trace = trace.tb_next
        rebuilt = None
        for each in reversed(kept):
            rebuilt = TracebackType(rebuilt, each.tb_frame, each.tb_lasti, each.tb_lineno)
        return found.with_traceback(rebuilt)
    raise AssertionError


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


def test_last_lines_of_unknown_errors_only() -> None:
    assert rank_error(raised(DataError("row 118")), 0, "").last_lines == []
    lines = rank_error(raised(ValueError("boom")), 0, "").last_lines
    assert lines[-1] == "ValueError: boom"
    assert any("trainmaster_trainer.backends.torch.loop" in line for line in lines)


def test_rank_error_says_it_in_one_line() -> None:
    assert isinstance(rank_error(raised(ValueError("a\nb")), 0, ""), RankError)
    assert str(rank_error(raised(ValueError("a\nb")), 2, "")) == "rank 2: ValueError: a"


def test_rank_error_of_a_wrong_report_is_at_the_program_s_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainmaster, "_listeners", [lambda *told: None])
    with pytest.raises(
        TypeError, match=r"report: metrics is no number but of type dict; .* report\(val_loss=0.5\)"
    ) as found:
        trainmaster.report(metrics={"val_loss": 1.0})  # type: ignore[arg-type]
    assert "test_failures.py:" in rank_error(found.value, 0, "").message


# -- whose fault it is ------------------------------------------------------------------------------------------------
SHAPES = RuntimeError("mat1 and mat2 shapes cannot be multiplied (64x30 and 64x10)")
UNUSED = RuntimeError("Expected to have finished reduction in the prior iteration before starting a new one.")


@pytest.mark.parametrize(
    ("why", "modules", "error", "references_to", "expected"),
    [
        ("raised in the user's own line", (LOOP, TORCH, USER), KeyError("x"), {"my_pkg"}, "UserCodeError"),
        ("in torch, called from the user's forward", (LOOP, TORCH, USER, TORCH), SHAPES, {"my_pkg"}, "UserCodeError"),
        ("in a library, called from the user's data", ("trainmaster_trainer.data.own", USER, "numpy.core"),
         ValueError(), {"my_pkg"}, "UserCodeError"),
        ("in our code, called by the user's", (LOOP, USER, "trainmaster_trainer.models.mlp"), TypeError(), {"my_pkg"},
         "UserCodeError"),
        ("a file of the job that no reference names", (LOOP, TORCH, "helpers"), ValueError(), {"my_pkg"},
         "UserCodeError"),
        ("an installed package that a reference names", (LOOP, TORCH, "torchvision.models.resnet", TORCH), SHAPES,
         {"torchvision"}, "UserCodeError"),
        ("backward of the user's model: no frame of theirs", (LOOP, "torch.autograd"), RuntimeError("in place"),
         {"my_pkg"}, "UserCodeError"),
        ("DDP waits for a parameter that the user's model doesn't use", (LOOP, "torch.nn.parallel.distributed"), UNUSED,
         {"my_pkg"}, "UserCodeError"),
        ("a constructor written in C", ("trainmaster_trainer.references",), TypeError("an integer is required"),
         {"torch"}, "UserCodeError"),
        ("a program that ends itself", ("trainmaster_trainer.backends.script.run", "runpy", "__main__"), SystemExit(3),
         set(), "UserCodeError"),
        # ---- and what isn't
        ("a shipped model that doesn't fit: we should have said so",
         (LOOP, TORCH, "trainmaster_trainer.models.cnn", TORCH),
         SHAPES, set(), "InternalError"),
        ("a fault in the loop, in a job with user code", (LOOP,), AttributeError("'Setup' has no 'x'"), {"my_pkg"},
         "InternalError"),
        ("a fault elsewhere, in a job with user code", ("trainmaster_trainer.checkpoint.manager", "concurrent.futures"),
         RuntimeError("x"), {"my_pkg"}, "InternalError"),
        ("a fault of Ray's", ("ray.train.worker",), RuntimeError("x"), {"my_pkg"}, "InternalError"),
        ("what called us is nobody's", ("somebodys_script", LOOP), AttributeError("x"), set(), "InternalError"),
        # ---- and a lost peer
        ("a peer that is lost in backward", (LOOP, "torch.autograd"), RuntimeError(GLOO), {"my_pkg"}, "WorkerLost"),
        ("a collective in the user's forward", (LOOP, USER, "torch.distributed.distributed_c10d"), RuntimeError(GLOO),
         {"my_pkg"}, "WorkerLost"),
        ("the same without a frame of torch's", (LOOP, TORCH, USER), RuntimeError(GLOO), {"my_pkg"}, "WorkerLost"),
        ("the user's database refuses", ("trainmaster_trainer.data.own", USER, "urllib3.connection"),
         ConnectionRefusedError("Connection refused"), {"my_pkg"}, "UserCodeError"),
        ("the user's own socket", ("trainmaster_trainer.data.own", USER),
         ConnectionResetError("Connection reset by peer"), {"my_pkg"}, "UserCodeError"),
    ],
)  # fmt: skip
def test_failure_class_of_ours_and_of_user_code(
    monkeypatch: pytest.MonkeyPatch,
    why: str,
    modules: tuple[str, ...],
    error: BaseException,
    references_to: set[str],
    expected: str,
) -> None:
    monkeypatch.setattr(references, "USER_PACKAGES", references_to)
    monkeypatch.setattr("trainmaster_trainer.failures.USER_PACKAGES", references_to)
    error.__traceback__ = None  # that of another case
    found = rank_error(raised(error, *modules), 0, "")
    assert found.failure_class == expected, why
    assert found.peer is (expected == "WorkerLost")


def test_last_lines_of_a_deep_traceback_begin_with_user_code() -> None:
    found = rank_error(raised(ValueError("boom"), LOOP, USER, *(f"library.part{i}" for i in range(20))), 1, "")
    assert found.last_lines == ['  File "/job/my_pkg.models.py", line 1, in step', "ValueError: boom"]


def test_last_lines_deep_user_stack() -> None:
    def deeper(left: int) -> None:
        if left == 0:
            raise ValueError("\n".join(["boom"] * 30))
        deeper(left - 1) if left % 2 else other(left)

    def other(left: int) -> None:
        deeper(left - 1)

    with pytest.raises(ValueError) as caught:
        deeper(40)
    found = rank_error(caught.value, 1, "")
    assert "raise ValueError" in found.last_lines[1]
    assert len(found.last_lines) == 12
    assert found.last_lines[-1] == "boom"


def test_last_lines_show_the_way_through_user_code() -> None:
    found = rank_error(raised(ValueError("boom"), LOOP, "helpers", TORCH, USER, TORCH), 1, "")
    assert [line.split('"')[1] for line in found.last_lines[:-1]] == ["/job/my_pkg.models.py", "/job/helpers.py"]


def test_last_lines_begin_with_user_code() -> None:
    found = rank_error(raised(ValueError("boom"), LOOP, TORCH, USER, TORCH), 1, "")
    assert found.message == "rank 1: ValueError: boom (/job/my_pkg.models.py:1 in step)"
    assert found.last_lines[0] == '  File "/job/my_pkg.models.py", line 1, in step'
    assert found.last_lines[-1] == "ValueError: boom"


def test_failure_class_of_a_refused_connection_in_user_code() -> None:
    """This file is the user's: it is in no package that is installed, and not ours."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    try:
        socket.create_connection(address)
    except ConnectionRefusedError as error:
        found = rank_error(error, 0, "")
    assert (found.failure_class, found.peer) == (FailureClass.USER_CODE_ERROR, False)
    assert "test_failures.py" in found.last_lines[0]


@pytest.mark.parametrize(
    ("modules", "place", "waits"),
    [
        ((LOOP, USER, TORCH, "helpers"), "/job/helpers.py:1 in step", False),
        ((LOOP, "helpers", "lightning.loops", USER, "torch.autograd.graph"), "/job/my_pkg.models.py:1 in step", True),
        ((LOOP, USER, "torch.distributed.distributed_c10d", LOOP), "/job/my_pkg.models.py:1 in step", False),
        ((LOOP, USER, "threading"), "/job/my_pkg.models.py:1 in step", False),
    ],
)
def test_standing_begins_with_user_code(modules: tuple[str, ...], place: str, waits: bool) -> None:
    def inner() -> Standing:
        return standing(sys._getframe(1))

    call: Callable[[], Standing] = inner
    for name in reversed(modules):
        folder = "/job" if name in OF_THE_USER else sysconfig.get_paths()["purelib"]
        space: dict[str, Any] = {"__name__": name, "call": call}
        exec(compile("def step(): return call()", f"{folder}/{name}.py", "exec"), space)
        call = space["step"]
    found = call()
    assert (found.place, found.waits) == (place, waits)
    assert f'"{place.partition(":")[0]}"' in found.lines[0]
    assert not any("trainmaster_trainer" in line for line in found.lines)
