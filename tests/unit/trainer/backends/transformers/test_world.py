"""What follows the pods of a program with transformers' Trainer, what stays the program's, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import distribute_module
from trainmaster_api.messages import Resume
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.backends.transformers import shim

from tests.unit.trainer.backends.script.launching import Run
from tests.unit.trainer.backends.transformers.test_calls import Words, train, trainer_of
from tests.unit.trainer.backends.transformers.test_shim import finished, hold, run_of

LEFT_OUT = "fsdp isn't used: Transformers divides a model over GPUs only, so each worker trains all of it"


def words_of(run: Run) -> list[str]:
    return [each["message"] for each in run.reports if each["kind"] == "Warning"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_options_stay_the_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FSDP without a GPU: accelerate leaves it out, which is said; the options of DDP hold. Killed, to the bit."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    calm = finished(run_of(tmp_path / "calm", 2, "divided"), monkeypatch)
    run = run_of(tmp_path / "killed", 2, "divided", every="3step")
    assert hold(run, "divided step 8", monkeypatch)[-1] == "train-1/checkpoint-6"
    run.kill()
    found = finished(run, monkeypatch)
    assert found == calm
    assert found["divided 0: wrapped"] == ["DistributedDataParallel", True, 1]
    assert [each["resume"] for each in run.reports if each["resume"]][-1] == Resume.EXACT
    assert words_of(run).count(LEFT_OUT) == 2 * 2, "in each life, by each node"
    assert run.step == 2 * 5, "the ranks train together"


# program -> class, words of the sentence
REFUSED = {
    "deepspeed": (FailureClass.USER_CODE_ERROR, "deepspeed"),
    "no_cuda": (FailureClass.USER_CODE_ERROR, "unexpected keyword argument 'no_cuda'"),
    "nccl": (FailureClass.USER_CODE_ERROR, "ProcessGroupNCCL is only supported with GPUs"),
    "mesh": (FailureClass.USER_CODE_ERROR, "ParallelismConfig is only compatible"),
    "half": (FailureClass.USER_CODE_ERROR, "bf16/gpu"),
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
@pytest.mark.parametrize("shape", REFUSED)
def test_refused(tmp_path: Path, shape: str) -> None:
    run = run_of(tmp_path, 2 if shape == "mesh" else 1, shape)
    run.start()
    run.until(lambda: bool(run.failures or run.results))
    failure, words = REFUSED[shape]
    assert run.failures, run.results
    assert (run.failures[0]["class"], run.failures[0]["peer"]) == (failure, False), "so it isn't tried again"
    assert words in run.failures[0]["message"]


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", ["is_fsdp_enabled", "is_deepspeed_enabled", "parts"])
def test_model_in_parts_is_the_programs_affair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mesh: DeviceMesh, kind: str
) -> None:
    session, trainer = Words(tmp_path), trainer_of()
    if kind == "parts":
        distribute_module(trainer.model, mesh)
    else:
        monkeypatch.setattr(trainer, kind, True)
    assert shim.Trainings(session).run(trainer, train, (), {}) == "trained"
    assert [level for level, _ in session.said] == [Resume.SCRIPT]
    assert session.said[0][1].endswith("saving and resuming are the program's")


def test_settings_that_are_left_out_are_said(tmp_path: Path) -> None:
    session, said = Words(tmp_path), []
    session.warn = said.append
    for fsdp, is_used in ((True, True), (None, False), (True, False)):
        trainer = SimpleNamespace(args=SimpleNamespace(fsdp=fsdp), is_fsdp_enabled=is_used)
        shim._say_what_is_left_out(session, trainer)
    assert said == [LEFT_OUT]
