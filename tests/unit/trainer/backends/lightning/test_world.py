"""Which of a Trainer's devices and strategies follow the pods, which stay the program's, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from trainmaster_api.messages import Resume
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.backends.lightning.world import follow, unkept
from trainmaster_trainer.errors import ConfigurationError

from tests.unit.trainer.backends.lightning.launch import LightningRun, held, said


def context_of(world: int = 2, gpus: int = 0) -> Any:
    workers = SimpleNamespace(gpus=gpus)
    job = SimpleNamespace(spec=SimpleNamespace(cluster=SimpleNamespace(workers=workers)))
    return SimpleNamespace(world_size=world, nodes=world, job=job)


# what the program gives, number of workers -> the strategy that it gets, what is said
STRATEGIES: dict[str, tuple[dict[str, Any], int, str | None, list[str]]] = {
    "none": ({}, 2, "ddp", []),
    "none, alone": ({}, 1, None, []),
    "auto": ({"strategy": "auto", "devices": "auto"}, 2, "ddp", []),
    "ddp": ({"strategy": "ddp"}, 2, None, []),
    "options in the name": ({"strategy": "ddp_find_unused_parameters_true"}, 2, None, []),
    "spawn": ({"strategy": "ddp_spawn"}, 2, "ddp", ["strategy='ddp_spawn' became 'ddp'"]),
    "spawn, alone": ({"strategy": "ddp_spawn"}, 1, "ddp", ["strategy='ddp_spawn' became 'ddp'"]),
    "notebook": ({"strategy": "DDP_notebook"}, 2, "ddp", ["strategy='DDP_notebook' became 'ddp'"]),
    "fork with options": (
        {"strategy": "ddp_fork_find_unused_parameters_true"}, 2, "ddp_find_unused_parameters_true",
        ["strategy='ddp_fork_find_unused_parameters_true' became 'ddp_find_unused_parameters_true'"],
    ),
    "one device": ({"strategy": "single_device"}, 2, "ddp", ["strategy='single_device' became 'ddp'"]),
    "one device, alone": ({"strategy": "single_device"}, 1, None, []),
    "one device, an object": (
        {"strategy": SingleDeviceStrategy()}, 2, "ddp", ["strategy=SingleDeviceStrategy became 'ddp'"],
    ),
    "sharded": ({"strategy": "fsdp"}, 2, None, []),
    "DeepSpeed": ({"strategy": "deepspeed_stage_3_offload"}, 2, None, []),
    "divided": ({"strategy": ModelParallelStrategy()}, 2, None, []),
    "devices": (
        {"devices": 8, "num_nodes": 4, "strategy": "ddp"}, 2, None, ["devices=8 became 1", "num_nodes=4 became 2"],
    ),
    "a list of devices": ({"devices": [0, 1]}, 2, "ddp", ["devices=[0, 1] became 1"]),
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_worker_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")


@pytest.mark.parametrize("case", STRATEGIES)
def test_strategy(case: str) -> None:
    given, world, strategy, words = STRATEGIES[case]
    wanted, found = follow(context_of(world), given)
    assert found == words
    assert (wanted["devices"], wanted["num_nodes"], wanted.get("strategy")) == (1, world, strategy)


def test_strategy_keeps_its_options() -> None:
    given = DDPStrategy(
        start_method="fork", find_unused_parameters=True, static_graph=True,
        cluster_environment=LightningEnvironment(), parallel_devices=[torch.device("cpu")] * 4,
    )  # fmt: skip
    wanted, words = follow(context_of(), {"strategy": given})
    assert "strategy" not in wanted, "the program's own object stays"
    assert given._ddp_kwargs == {"find_unused_parameters": True, "static_graph": True}
    assert (given._start_method, given.cluster_environment, given.parallel_devices) == ("popen", None, None)
    assert words == [
        "start_method='fork' of the strategy became 'popen'",
        "LightningEnvironment of the strategy isn't used",
        "4 parallel_devices of the strategy became 1",
    ]


def test_other_cluster_is_left_out() -> None:
    writes = TorchCheckpointIO()
    wanted, words = follow(context_of(), {"plugins": [SLURMEnvironment(), writes]})
    assert wanted["plugins"] == [writes]
    assert words == ["plugins: SLURMEnvironment isn't used"]
    assert "plugins" not in follow(context_of(), {"plugins": writes})[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
@pytest.mark.parametrize(("gpus", "says"), [(0, "set cluster.workers.gpus, or"), (1, "this worker sees none")])
def test_gpu_that_is_not_there(gpus: int, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        follow(context_of(gpus=gpus), {"accelerator": "cuda"})


def test_state_of_a_hook_is_not_kept() -> None:
    assert unkept(DDPStrategy(ddp_comm_hook=print)) == ""
    assert "(object) that no checkpoint holds" in unkept(DDPStrategy(ddp_comm_state=object(), ddp_comm_hook=print))
    assert "model_averaging_period" in unkept(DDPStrategy(model_averaging_period=4))


def trained(run: LightningRun, monkeypatch: pytest.MonkeyPatch, hold: int = 0) -> Any:
    """Train, perhaps killed in a step; return the state of each rank's model."""
    if hold:
        held(run, monkeypatch, hold)
        run.kill()
        monkeypatch.delenv("HOLD")
    run.start(new_disks=True)
    run.finish()
    return [torch.load(run.disk(rank) / "final.pt") for rank in range(run.world)]


def are_equal(models: list[dict[str, torch.Tensor]]) -> bool:
    return all(torch.equal(models[0][name], each[name]) for each in models for name in each)


def test_options_stay_the_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DDP with every option that the program gives, on the workers of the job; killed once, to the bit."""
    program: dict[str, Any] = {"world": 2, "path": "shapes.py", "args": ["options"]}
    calm = trained(LightningRun(tmp_path / "calm", **program), monkeypatch)
    run = LightningRun(tmp_path / "killed", **program)
    found = trained(run, monkeypatch, hold=13)
    assert found[0]["options"].tolist() == [1, 1, 1]
    assert are_equal([*calm, *found])
    assert run.results[0]["step"] == 36, "96 rows on 2 ranks, batches of 4"
    assert said(run, "Resumed", "resume")[-1] == Resume.EXACT
    assert said(run, "Warning", "message")[0] == (
        "Lightning's Trainer follows the workers of the job: devices=8 became 1, num_nodes=4 became 2, "
        "start_method='spawn' of the strategy became 'popen', plugins: SLURMEnvironment isn't used"
    )


def test_hook_with_a_state_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = LightningRun(tmp_path, 2, path="shapes.py", args=["hooked"])
    trained(run, monkeypatch)
    assert said(run, "Resumed", "resume")[-1] == Resume.SCRIPT
    assert any("(PowerSGDState)" in each for each in said(run, "Warning", "message"))


def test_divided_model_is_the_programs_affair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shards of every worker are kept as one set and put back on other disks; how it resumes is said."""
    run = LightningRun(tmp_path, 2, path="shapes.py", args=["divided"])
    found = trained(run, monkeypatch, hold=14)
    assert are_equal(found)
    assert run.results[0]["step"] == 36
    assert said(run, "Resumed", "step")[-1] == 12
    assert said(run, "Resumed", "resume")[-1] == Resume.SCRIPT
    # Lightning has every rank write below rank 0's path, which in pods is the same on each disk; here disks are folders
    last = "node-0/saved/last.ckpt/"
    names = [".metadata", "__0_0.distcp", "__1_0.distcp", "meta.pt"]
    assert [each for each in run.model() if "/last.ckpt/" in each] == [f"{last}{each}" for each in names]
    assert any("ModelParallelStrategy saves in its own way" in each for each in said(run, "Warning", "message"))


# program -> class, the beginning of the sentence, its words
REFUSED: dict[str, tuple[FailureClass, str]] = {
    "gpu": (
        FailureClass.INVALID_CONFIGURATION,
        "Lightning's Trainer is to train on a GPU (accelerator='gpu'), and the workers of the job have none: set "
        "cluster.workers.gpus, or pass accelerator='auto'",
    ),
    "fsdp": (FailureClass.USER_CODE_ERROR, "ValueError: The strategy `fsdp` requires a GPU accelerator"),
    "fsdp_object": (FailureClass.USER_CODE_ERROR, "ValueError: The strategy `fsdp` requires a GPU accelerator"),
    "deepspeed": (FailureClass.USER_CODE_ERROR, "you must have DeepSpeed installed"),
    "unknown": (FailureClass.USER_CODE_ERROR, "You selected an invalid strategy name: `strategy='ddp_spwan'`"),
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
@pytest.mark.parametrize("program", REFUSED)
def test_refused(tmp_path: Path, program: str) -> None:
    run = LightningRun(tmp_path, path="shapes.py", args=[program])
    run.start()
    run.until(lambda: bool(run.failures or run.results))
    failure, words = REFUSED[program]
    assert (run.failures[0]["class"], run.failures[0]["peer"]) == (failure, False), "so it isn't tried again"
    assert words in run.failures[0]["message"]
