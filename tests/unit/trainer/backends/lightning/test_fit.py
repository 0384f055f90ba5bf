"""`training.lightning`: module, datamodule and Trainer from the job, without a program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trainmaster_api.messages import Resume
from trainmaster_api.reasons import FailureClass

from tests.unit.trainer.backends.lightning.launch import HAS_OLD_NAME, NO_OLD_NAME, LightningRun, killed, said

SECTION: dict[str, Any] = {
    "module": {"class": "nets:Net", "args": {"schedule": "steps", "lr": 0.02}},
    "datamodule": {"class": "nets:Data", "args": {"batch": 8}},
    "trainer": {
        "max_epochs": 2,
        "devices": 4,
        "num_nodes": 3,
        "strategy": "ddp_spawn",
        "enable_model_summary": False,
        "callbacks": [{"class": "lightning.pytorch.callbacks:ModelCheckpoint", "args": {"save_last": True}}],
    },
}


def weights_of(run: LightningRun) -> list[tuple[str, list[float]]]:
    state = torch.load(run.disk(0) / "trainmaster-lightning" / "fit-1.ckpt", weights_only=False)["state_dict"]
    return [(name, value.flatten().tolist()) for name, value in state.items()]


def test_fit_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calm = LightningRun(tmp_path / "calm", lightning=SECTION)
    calm.start()
    run = LightningRun(tmp_path / "killed", lightning=SECTION)
    killed(run, monkeypatch, [(6, 16)])
    calm.finish()
    assert weights_of(run) == weights_of(calm)
    assert run.results[0]["step"] == 2 * 12
    assert run.results[0]["testMetrics"] == calm.results[0]["testMetrics"]
    assert list(run.results[0]["testMetrics"]) == ["test/loss"]
    assert said(run, "Resumed", "resume")[-1] == Resume.EXACT
    assert "lightning_logs/version_0/checkpoints/last.ckpt" in run.model()
    assert (
        said(run, "Warning", "message")
        == [
            "Lightning's Trainer follows the workers of the job: devices=4 became 1, num_nodes=3 became 1, "
            "strategy='ddp_spawn' became 'ddp'"
        ]
        * 2
    ), "once in each life"


def section(module: str = "nets:Net", **more: Any) -> dict[str, Any]:
    return {"module": {"class": module}, "datamodule": {"class": "nets:Data"}, "trainer": {}, **more}


# section -> class of the failure, and what is said
REFUSED: dict[str, tuple[dict[str, Any], FailureClass, list[str]]] = {
    "all at once": (
        section(
            module="wrong:NoModule",
            datamodule={"class": "nets:Data", "args": {"bacth": 8}},
            trainer={
                "max_epoch": 3,
                "max_steps": "many",
                "precision": 8,
                "callbacks": [{"class": "nets:Net"}, {"clas": "nets:Net"}, {"class": "os:system", "args": {"a": "ls"}}],
                "logger": {"class": "lightning.pytorch.loggers:CSVLogger", "args": {"save": "x"}},
            },
        ),
        FailureClass.INVALID_CONFIGURATION,
        [
            "lightning.module wrong:NoModule: is no LightningModule; make it a subclass of lightning.pytorch.Lightning",
            "lightning.datamodule.args.bacth: Data has no such argument; its arguments are batch; did you mean `batch`",
            "lightning.trainer.max_epoch: Lightning's Trainer has no such argument; did you mean `max_epochs`?",
            "lightning.trainer.max_steps = 'many': must be an integer",
            "lightning.trainer.precision = 8: must be 64, 32, 16, 'transformer-engine', ",
            "lightning.trainer.callbacks[0] nets:Net: is no Callback of lightning.pytorch",
        ],
    ),
    "no class": (
        section(
            module="wrong:make_net", datamodule={"class": "nets:Dato"}, trainer={"callbacks": {"class": "os:system"}}
        ),
        FailureClass.INVALID_CONFIGURATION,
        [
            "lightning.module wrong:make_net: is a function; give the class itself",
            "lightning.datamodule nets:Dato: nets has no 'Dato'; did you mean `Data`?",
            "lightning.trainer.callbacks os:system: is a builtin_function_or_method; give the class itself",
        ],
    ),
    "by the Trainer": (
        section(trainer={"gradient_clip_algorithm": "nrom"}),
        FailureClass.INVALID_CONFIGURATION,
        ["lightning.trainer: `gradient_clip_algorithm` nrom is invalid"],
    ),
    "by fit": (
        {"module": {"class": "wrong:NoData"}},
        FailureClass.INVALID_CONFIGURATION,
        ["lightning: ", "train_dataloader"],
    ),
    "two packages": (
        section("old_name:Net"),
        FailureClass.INVALID_CONFIGURATION,
        ["lightning.datamodule nets:Data: is of lightning.pytorch and the module is of pytorch_lightning, which don't"],
    ),
    "in a step": (
        section("wrong:NoGradient"),
        FailureClass.USER_CODE_ERROR,
        ["element 0 of tensors does not require grad"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_fit_refuses(tmp_path: Path, case: str) -> None:
    if case == "two packages" and not HAS_OLD_NAME:
        pytest.skip(NO_OLD_NAME)
    own, failure, words = REFUSED[case]
    run = LightningRun(tmp_path, lightning=own)
    run.start()
    run.until(lambda: bool(run.failures or run.results))
    assert run.failures[0]["class"] == failure
    assert [each for each in words if each not in run.failures[0]["message"]] == [], run.failures[0]["message"]


@pytest.mark.skipif(not HAS_OLD_NAME, reason=NO_OLD_NAME)
def test_fit_by_its_older_name(tmp_path: Path) -> None:
    trainer = {"max_epochs": 2, "enable_model_summary": False}
    run = LightningRun(tmp_path, lightning={"module": {"class": "old_name:Net"}, "trainer": trainer})
    run.start()
    run.finish()
    assert run.results[0]["step"] == 2 * 12
    assert said(run, "Resumed", "resume")[-1] == Resume.EXACT
