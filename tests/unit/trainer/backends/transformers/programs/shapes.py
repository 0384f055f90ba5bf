"""An unchanged program with transformers' Trainer: several trainings, a tiny BERT, dropout and all, drawn numbers."""

import os
import sys
import time
from pathlib import Path

import torch
from accelerate import ParallelismConfig
from torch.utils.data import DataLoader, RandomSampler
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class Rows(torch.utils.data.Dataset):
    """Rows of different lengths, padded; what the model is to learn is little, so that it soon gets worse."""

    def __init__(self, rows, seed):
        draws = torch.Generator().manual_seed(seed)
        self.tokens = torch.randint(5, 60, (rows, 12), generator=draws)
        self.labels = torch.randint(0, 2, (rows,), generator=draws)
        self.lengths = torch.randint(3, 12, (rows,), generator=draws)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"input_ids": self.tokens[index, : self.lengths[index]], "labels": self.labels[index]}


def collate(rows):
    tokens = torch.nn.utils.rnn.pad_sequence([row["input_ids"] for row in rows], batch_first=True)
    return {
        "input_ids": tokens,
        "attention_mask": (tokens > 0).long(),
        "labels": torch.stack([row["labels"] for row in rows]),
    }


class Moment(TrainerCallback):
    """Holds at the moment that the test names, until it is killed or may go."""

    def __init__(self, name):
        self.name = name

    def hold(self, moment, state):
        place = os.environ.get("HOLD")
        if place and f"{self.name} {moment} {state.global_step}" == place:
            Path("held").touch()
            while not Path("go").exists():
                time.sleep(0.05)

    def on_step_end(self, args, state, control, **_):
        self.hold("step", state)

    def on_evaluate(self, args, state, control, **_):
        self.hold("evaluate", state)

    def on_train_end(self, args, state, control, **_):
        self.hold("end", state)


class Average(TrainerCallback):
    """Averages the weights, and counts: no checkpoint of Transformers has that."""

    def __init__(self):
        self.steps, self.weights = 0, {}

    def on_step_end(self, args, state, control, model=None, **_):
        self.steps += 1
        for name, value in model.state_dict().items():
            old = self.weights.get(name, value)
            self.weights[name] = old + (value - old) / (10 + self.steps) if value.is_floating_point() else value


class OwnLoader(Trainer):
    """A loader of torch, without a generator of its own: the order is drawn when it begins."""

    def get_train_dataloader(self):
        return DataLoader(self.train_dataset, 4, sampler=RandomSampler(self.train_dataset), collate_fn=collate)


class OwnGenerator(Trainer):
    def get_train_dataloader(self):
        if not hasattr(self, "draws"):
            self.draws = torch.Generator().manual_seed(5)
        return DataLoader(self.train_dataset, 8, shuffle=True, collate_fn=collate, generator=self.draws)


BY_STEPS = {"eval_strategy": "steps", "save_strategy": "steps", "metric_for_best_model": "eval_loss"}
SHAPES = {
    "patience": {**BY_STEPS, "eval_steps": 2, "save_steps": 2, "load_best_model_at_end": True, "num_train_epochs": 9},
    "best": {**BY_STEPS, "eval_steps": 5, "save_steps": 10, "load_best_model_at_end": True, "save_total_limit": 1},
    "epochs": {
        "eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True,
        "num_train_epochs": 3, "dataloader_num_workers": 1, "lr_scheduler_type": "reduce_lr_on_plateau",
    },
    "lengths": {"train_sampling_strategy": "group_by_length"},
    "own loader": {
        "save_strategy": "no", "gradient_accumulation_steps": 2, "lr_scheduler_type": "cosine", "warmup_steps": 5,
    },
    "own generator": {"save_only_model": True},
    "divided": {
        "fsdp": True, "fsdp_config": {"version": 2}, "ddp_find_unused_parameters": True, "ddp_bucket_cap_mb": 1,
        "ddp_backend": "gloo", "use_cpu": True,
    },
    "mesh": {"parallelism_config": ParallelismConfig(dp_replicate_size=2)},
    "deepspeed": {"deepspeed": {"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": 8}},
    "half": {"bf16": True},
    "nccl": {"ddp_backend": "nccl"},
    "no_cuda": {"no_cuda": True},
    "within": {"max_steps": 14, "eval_strategy": "epoch", "eval_on_start": True},
}  # fmt: skip
KINDS = {"own loader": OwnLoader, "own generator": OwnGenerator}


def train(name, final):
    """Train once, and what it has ended with once more."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=2,
        attn_implementation="eager",
    )  # fmt: skip
    values = {"num_train_epochs": 2, "learning_rate": 0.003, "logging_steps": 5, "seed": 1, **SHAPES[name]}
    average = Average()
    trainer = KINDS.get(name, Trainer)(
        model=BertForSequenceClassification(config),
        args=TrainingArguments(
            output_dir=f"out/{name}", per_device_train_batch_size=8, report_to=[], disable_tqdm=True,
            **values,
        ),
        data_collator=collate,
        train_dataset=Rows(76, 1),
        eval_dataset=Rows(40, 2),
        callbacks=[average, Moment(name), *([EarlyStoppingCallback(9)] if name == "patience" else [])],
    )  # fmt: skip
    for call in range(2 if name == "within" else 1):
        output = trainer.train()
        final[f"{name} {call}"] = {
            "weights": {key: value.clone() for key, value in trainer.model.state_dict().items()},
            "average": dict(average.weights),
            "steps": [output.global_step, trainer.state.global_step, average.steps],
            "best": [trainer.state.best_metric or 0.0, trainer.state.best_global_step or 0],
            "evaluations": [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row],
            "next": torch.rand(3),
        }
        if trainer.args.ddp_bucket_cap_mb is not None:
            wrapped = trainer.model_wrapped
            found = [type(wrapped).__name__, wrapped.find_unused_parameters, wrapped.bucket_bytes_cap >> 20]
            final[f"{name} {call}"]["wrapped"] = found


final = {}
for shape in sys.argv[1:]:
    train(shape, final)
if int(os.environ.get("RANK", "0")) == 0:
    torch.save(final, "final.pt")
