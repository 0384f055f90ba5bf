"""A job with `training.transformers`: the texts of `data`, a model, Transformers' Trainer; train, test, keep."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from trainmaster_api.spec.own import Script, Transformers

from trainmaster_trainer.backends.script.fit import run_beside
from trainmaster_trainer.backends.script.session import Session
from trainmaster_trainer.context import Context, Report, ReportKind, Result
from trainmaster_trainer.data import Prepared, identity, load_data
from trainmaster_trainer.tasks import build_task

from .arguments import arguments_of
from .texts import Texts, collator, encoded, rows_of

MODEL = "transformers-model"
"""Folder of the trained model, as `save_pretrained` writes it."""


def fit(context: Context) -> Result:
    """Train on this rank.

    Raises:
        ConfigurationError: The section doesn't fit Transformers or the data.
    """
    spec = context.job.spec.training.transformers
    assert spec is not None
    return run_beside(context, Script.model_construct(), lambda session: _main(session, spec))


def _main(session: Session, spec: Transformers) -> None:
    import transformers
    from transformers import Trainer  # first: arguments that are made before it don't know of the other ranks

    from . import model as models

    context, training = session.context, session.context.job.spec.training
    args = arguments_of(transformers.TrainingArguments, spec.arguments, training.data.batch_size, context.world_size)
    data = _read(session)
    rows = rows_of(data)
    transformers.set_seed(args.seed)
    if spec.model.path is None:
        tokens, padding, tokenizer = rows.tokens, 0, None
        model = models.drawn(spec.model, rows.labels, rows.vocabulary, padding)
    else:
        model, tokenizer = models.read(spec.model, context.code_dir / spec.model.path, rows.labels)
        tokens, padding = encoded(rows, tokenizer), tokenizer.pad_token_id
    models.require_room(model, rows.asked.max_length)
    splits = [Texts(tokens, rows.y, part) for part in (data.train, data.validation, data.test)]
    trainer = Trainer(
        model=model,
        args=args,
        data_collator=collator(padding),
        train_dataset=splits[0],
        eval_dataset=splits[1],
        processing_class=tokenizer,
        compute_loss_func=functools.partial(loss_of, args.label_smoothing_factor),
        compute_metrics=_metrics(context, len(rows.labels)),
    )
    trainer.train()
    if context.is_trial:
        return  # the winner is tested and kept
    found = trainer.predict(splits[2], metric_key_prefix="test").metrics or {}
    names = {"loss", *build_task(training.task, len(rows.labels)).metrics()[1]}
    session.test_metrics |= {f"test/{name}": float(found[f"test_{name}"]) for name in names if f"test_{name}" in found}
    _keep(trainer, data)


def loss_of(smoothing: float, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """Return this part's share of the mean loss of a whole batch, of all workers and accumulated parts.

    Many models of Transformers return the mean of a part although their Trainer asks for the share, which multiplies
    the gradient by the number of workers and parts (5.24).
    """
    total = cross_entropy(outputs["logits"].float(), labels, reduction="sum", label_smoothing=smoothing)
    return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def _read(session: Session) -> Prepared:
    """Return the data, once it is known to be what the run began with."""
    context = session.context
    if context.rank == 0:
        found = identity.check(context.run, context.job, context.base_dir, os.environ)
        if words := identity.settle(context.run, found, is_resumed=session.has_set):
            session.warn(words)
    data = load_data(context.job, context.base_dir, os.environ)
    if context.rank == 0 and (about := data.about()):
        context.report(Report(kind=ReportKind.DATA, step=0, total_steps=0, epoch=0, message=about))
    for sentence in data.warnings:
        session.warn(sentence)
    return data


def _metrics(context: Context, classes: int) -> Any:
    """Return what measures the task's metrics, besides the loss."""
    task = build_task(context.job.spec.training.task, classes)

    def measure(found: Any) -> dict[str, float]:
        _, metrics = task.metrics()
        predicted, true = task.kind.decode(torch.as_tensor(found.predictions), torch.as_tensor(found.label_ids))
        for each in metrics.values():
            each.update(predicted, true)
        return {name: each.compute() for name, each in metrics.items()}

    return measure


def _keep(trainer: Any, data: Prepared) -> None:
    """Write the trained model, with what new texts need to become its tokens."""
    trainer.save_model(MODEL)
    if trainer.is_world_process_zero() and trainer.processing_class is None:
        for name, content in data.files().items():
            (Path(MODEL) / name).write_bytes(content)
        (Path(MODEL) / "data.json").write_text(json.dumps(data.description()))
