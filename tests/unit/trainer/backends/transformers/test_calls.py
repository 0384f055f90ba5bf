"""A call of `train`: which it begins from, when it is the program's own affair, and what is said of its losses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from trainmaster_api.messages import Resume
from trainmaster_trainer.backends.script.session import Session
from trainmaster_trainer.backends.transformers import checkpoint, shim
from trainmaster_trainer.errors import ConfigurationError, NonFiniteLoss


class Words(Session):
    """A session in a folder, with a set of what is in it; takes note of what is said."""

    def __init__(self, folder: Path, kept: set[str] | None = None) -> None:
        self.context: Any = SimpleNamespace(world_size=1)
        self.folders: Any = SimpleNamespace(watched=[folder])
        self.progress: Any = SimpleNamespace(tell=lambda *values: self.told.append(values))
        self.told: list[Any] = []
        self.said: list[Any] = []
        self.kept = kept
        self.gate: Any = SimpleNamespace(is_framework=False, is_open=False)

    def promise(self, level: Resume, words: str = "") -> None:
        self.said.append((level, words))

    def was_kept(self, file: Path) -> bool:
        return self.kept is None or file.parent.name in self.kept


def trainer_of(**arguments: Any) -> Any:
    values = {"auto_find_batch_size": False, "world_size": 1, **arguments}
    return SimpleNamespace(
        args=SimpleNamespace(**values), is_fsdp_enabled=False, is_deepspeed_enabled=False,
        state=SimpleNamespace(global_step=0), model=torch.nn.Linear(1, 1),
    )  # fmt: skip


def train(trainer: Any, resume_from_checkpoint: Any = None, trial: Any = None) -> str:
    """Stand for Transformers' own."""
    return "trained"


def write(folder: Path, step: int, *, output: Any = None) -> Path:
    """Write what counts of a checkpoint."""
    place = folder / (f"end-{step}" if output else f"checkpoint-{step}")
    place.mkdir(parents=True)
    torch.save({"ranks": [], "callbacks": [], "output": output}, place / "trainmaster.pt")
    (place / "optimizer.pt").write_bytes(b"12345")
    files = {each.name: each.stat().st_size for each in place.iterdir()}
    (place / "complete.json").write_text(json.dumps({"step": step, "files": files}))
    return place


def test_newest_checkpoint_is_a_complete_one(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        write(tmp_path, step)
    (tmp_path / "checkpoint-15" / "optimizer.pt").write_bytes(b"1")  # torn
    (tmp_path / "checkpoint-20").mkdir()  # without a mark
    found = checkpoint.newest(Words(tmp_path), tmp_path)
    assert found is not None
    assert (found.folder.name, found.is_done) == ("checkpoint-10", False)


def test_newest_checkpoint_is_one_that_every_rank_has(tmp_path: Path) -> None:
    for step in (5, 10):
        write(tmp_path, step)
    found = checkpoint.newest(Words(tmp_path, {"checkpoint-5"}), tmp_path)
    assert found is not None
    assert found.folder.name == "checkpoint-5"
    assert checkpoint.newest(Words(tmp_path, set()), tmp_path) is None


def test_newest_checkpoint_is_the_end_of_a_call(tmp_path: Path) -> None:
    write(tmp_path, 10)
    write(tmp_path, 10, output={"training_loss": 0.5})
    found = checkpoint.newest(Words(tmp_path), tmp_path)
    assert found is not None
    assert found.is_done


@pytest.mark.parametrize(
    ("given", "change", "words"),
    [
        ({"trial": {"lr": 1}}, {}, "hyperparameter_search"),
        ({}, {"auto_find_batch_size": True}, "auto_find_batch_size"),
    ],
)
def test_call_that_is_the_programs_own_affair_is_said(
    tmp_path: Path, given: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    session = Words(tmp_path)
    trainings = shim.Trainings(session)
    assert trainings.run(trainer_of(**change), train, (), given) == "trained"
    assert [(level, said.partition(":")[0]) for level, said in session.said] == [(Resume.SCRIPT, words)]
    assert not trainings.is_running


def test_call_that_does_not_see_the_other_ranks_is_refused(tmp_path: Path) -> None:
    session = Words(tmp_path)
    session.context.world_size = 2
    with pytest.raises(ConfigurationError, match="the job has 2 workers and TrainingArguments sees 1"):
        shim.Trainings(session).run(trainer_of(), train, (), {})


def test_best_model_outside_of_the_folders_is_said(tmp_path: Path) -> None:
    session = Words(tmp_path)
    for output, best in ((tmp_path / "out", True), (tmp_path.parent, False)):
        shim._judge_best(session, SimpleNamespace(load_best_model_at_end=best, output_dir=str(output)))
    assert session.said == []
    shim._judge_best(session, SimpleNamespace(load_best_model_at_end=True, output_dir=str(tmp_path.parent)))
    assert [level for level, _ in session.said] == [Resume.SCRIPT]


def test_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    session = Words(tmp_path)
    trainings = shim.Trainings(session)
    trainings.is_running, trainings.before = True, 20
    reporter = shim._reporter(session, trainings)()
    state = SimpleNamespace(global_step=7, max_steps=30, epoch=1.5)
    reporter.on_log(None, state, None, logs={"loss": 0.5, "learning_rate": 0.1, "epoch": 1.5, "note": "text"})
    assert session.told == [(27, 50, 1, {"loss": 0.5, "lr": 0.1})]
    with pytest.raises(NonFiniteLoss, match="the training loss is nan at step 7"):
        reporter.on_log(None, state, None, logs={"loss": float("nan")})
