"""A checkpoint of one call of `train`: a folder in Transformers' own format, and beside it what that leaves out.

Transformers' own checkpoints stay the program's: when they are written decides which of them can be the best one, so
an additional one among them would change the result. These are written by rank 0 alone, for all ranks.
"""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainmaster_trainer.backends.script.session import Session

# the names that Trainer.train(resume_from_checkpoint=) reads
_WEIGHTS, _OPTIMIZER, _SCHEDULER, _SCALER = "pytorch_model.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"
_STATE = "trainer_state.json"
_OURS, _COMPLETE = "trainmaster.pt", "complete.json"


@dataclass(frozen=True)
class Found:
    """A complete checkpoint.

    Attributes:
        folder: Where it is.
        ours: What Transformers' format leaves out: `ranks`, `callbacks`, `validations`, and after the end of the call
            `output`.
    """

    folder: Path
    ours: dict[str, Any]

    @property
    def is_done(self) -> bool:
        """Whether the call had ended."""
        return self.ours.get("output") is not None


def newest(session: Session, folder: Path) -> Found | None:
    """Return the newest complete checkpoint of a call that the set has which this generation of ranks began with."""
    steps = {}
    for mark in folder.glob(f"*/{_COMPLETE}"):
        if session.was_kept(mark):  # on every rank alike: the disk of one may have more
            content = json.loads(mark.read_text())
            sizes = {name: (mark.parent / name).stat().st_size for name in content["files"] if _is_there(mark, name)}
            if sizes == content["files"]:
                steps[(content["step"], mark.parent.name)] = mark.parent
    if not steps:
        return None
    found = steps[max(steps)]
    return Found(found, torch.load(found / _OURS, map_location="cpu", weights_only=True))


def _is_there(mark: Path, name: str) -> bool:
    return (mark.parent / name).is_file()


def write(trainer: Any, folder: Path, ours: dict[str, Any]) -> None:
    """Write a checkpoint of what a Trainer holds, and remove older ones; on rank 0, in the format it reads."""
    step = trainer.state.global_step
    name = f"checkpoint-{step}" if ours.get("output") is None else f"end-{step}"  # sorts after it
    place = folder / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    torch.save(weights(trainer.model), place / _WEIGHTS)
    torch.save(trainer.optimizer.state_dict(), place / _OPTIMIZER)
    torch.save(trainer.lr_scheduler.state_dict(), place / _SCHEDULER)
    scaler = getattr(trainer.accelerator, "scaler", None)
    if scaler is not None:
        torch.save(scaler.state_dict(), place / _SCALER)
    trainer.state.save_to_json(str(place / _STATE))
    torch.save(ours, place / _OURS)
    files = {each.name: each.stat().st_size for each in place.iterdir()}
    # last, so that what was killed while it wrote has none
    (place / _COMPLETE).write_text(json.dumps({"step": step, "files": files}))
    for other in folder.iterdir():
        if other != place:
            (other / _COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(other, ignore_errors=True)


def weights(model: Any) -> dict[str, Any]:
    """Return what is saved of a model: everything; of one with adapters what is trained, for the rest is loaded."""
    state = model.state_dict()
    if not hasattr(model, "peft_config"):
        return dict(state)
    frozen = {name for name, each in model.named_parameters(remove_duplicate=False) if not each.requires_grad}
    return {name: value for name, value in state.items() if name not in frozen}


def put_back(trainer: Any, found: Found) -> None:
    """Make a Trainer what it was at the end of the call, without calling `train`."""
    from transformers.trainer_callback import TrainerState

    load = functools.partial(torch.load, map_location="cpu", weights_only=True)
    trainer.model.load_state_dict(load(found.folder / _WEIGHTS), strict=False)
    trainer.model.train(found.ours["output"]["training"])
    trainer.state = TrainerState.load_from_json(str(found.folder / _STATE))
    trainer.state.is_local_process_zero = trainer.is_local_process_zero()
    trainer.state.is_world_process_zero = trainer.is_world_process_zero()
    if trainer.optimizer is None:
        trainer.create_optimizer()
    trainer.optimizer.load_state_dict(load(found.folder / _OPTIMIZER))
    if trainer.lr_scheduler is None:
        trainer.create_scheduler(num_training_steps=trainer.state.max_steps)
    trainer.lr_scheduler.load_state_dict(load(found.folder / _SCHEDULER))
