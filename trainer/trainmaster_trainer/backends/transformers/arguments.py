"""`transformers.arguments`: fields of TrainingArguments by name, without those that something else says."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from trainmaster_api.references import did_you_mean

from trainmaster_trainer.errors import ConfigurationError

PATH = "transformers.arguments"
_PODS = "devices and processes follow the pods"
_TRACKING = "`spec.tracking` says where metrics go"
_HUB = "the model is kept in the job's storage"
_OWNED = {
    "output_dir": "checkpoints are kept in the job's storage",
    "resume_from_checkpoint": "the job resumes by itself",
    "enable_jit_checkpoint": "the job saves on a stop by itself",
    "restore_callback_states_from_checkpoint": "the job resumes by itself",
    "auto_find_batch_size": "the batch is `data.batchSize`",
    "per_device_train_batch_size": "the batch is `data.batchSize`, over all workers",
    "report_to": _TRACKING,
    "run_name": _TRACKING,
    "remove_unused_columns": "there is no column that the model doesn't read",
    "label_names": "the labels are those of `data.target`",
    "fsdp": "a model is trained as a whole by every worker",
    "fsdp_config": "a model is trained as a whole by every worker",
    "deepspeed": "a model is trained as a whole by every worker",
    "parallelism_config": "a model is trained as a whole by every worker",
    **dict.fromkeys(("use_cpu", "local_rank", "ddp_backend", "place_model_on_device"), _PODS),
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), "the job trains, validates and tests"),
}
_DEFAULTS = {"eval_strategy": "epoch", "save_strategy": "no", "disable_tqdm": True}


def arguments_of(kind: type, given: dict[str, Any], batch_size: int, world_size: int) -> Any:
    """Return TrainingArguments.

    Args:
        kind: The class.
        given: What the job says.
        batch_size: Rows per optimizer step, over all workers.
        world_size: Number of workers.

    Raises:
        ConfigurationError: There is no such argument, the job says it elsewhere, or a value isn't accepted.
    """
    known = [each.name for each in dataclasses.fields(kind) if each.init]
    problems = []
    for name in given:
        if name not in known:
            problems.append(f"{PATH}.{name}: TrainingArguments has no such field{did_you_mean(name, known)}")
        elif name in _OWNED or name.startswith(("hub_", "push_to_hub")):
            problems.append(f"{PATH}.{name}: {_OWNED.get(name, _HUB)}; remove it")
    steps = given.get("gradient_accumulation_steps", 1)
    parts = world_size * steps if isinstance(steps, int) and steps > 0 else world_size
    if batch_size % parts:
        problems.append(
            f"data.batchSize {batch_size} isn't a multiple of {parts}, workers x gradient_accumulation_steps"
        )
    if problems:
        raise ConfigurationError("; ".join(problems[:10]))
    numbers = {each.name for each in dataclasses.fields(kind) if isinstance(each.default, float)}
    try:
        # YAML reads 5e-5, without a point, as text
        values = {name: float(value) if name in numbers else value for name, value in given.items()}
        return kind(
            **{
                **_DEFAULTS,
                "dataloader_pin_memory": torch.cuda.is_available(),
                **values,
                "output_dir": "checkpoints",
                "report_to": [],
            },
            per_device_train_batch_size=batch_size // parts,
        )
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{PATH}: {error}") from None
