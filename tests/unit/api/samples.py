"""A small valid TrainingJob, ways to change it, and for each rule one change that breaks it and one that doesn't."""

from __future__ import annotations

import copy
from typing import Any

Changes = dict[str, Any]
REMOVE = object()

_JOB: dict[str, Any] = {
    "apiVersion": "trainmaster.dev/v1alpha1",
    "kind": "TrainingJob",
    "metadata": {"name": "sample", "namespace": "default"},
    "spec": {
        "training": {
            "task": {"type": "classification", "numClasses": 10},
            "data": {"source": "sklearn:digits"},
            "model": {"name": "mlp"},
        }
    },
}

TABLE: Changes = {"spec.training.data.source": "rows.csv", "spec.training.data.target": "label"}
VIT: Changes = {"spec.training.model": {"name": "vit", "args": {"patch": 2}}}
REGRESSION: Changes = {
    "spec.training.data.source": "sklearn:diabetes",
    "spec.training.task": {"type": "regression"},
}
THREE: Changes = {"spec.training.task.numClasses": 3}
SGD: Changes = {"spec.training.optimizer": {"name": "sgd"}}


def job(*changes: Changes) -> dict[str, Any]:
    """The sample with values put in (or taken out) at dotted paths."""
    document = copy.deepcopy(_JOB)
    for change in changes:
        for path, value in change.items():
            _put(document, path, value)
    return document


def _put(document: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for step in parents:
        document = document.setdefault(step, {})
    if value is REMOVE:
        document.pop(last, None)
    else:
        document[last] = copy.deepcopy(value)


# rule id -> (a job that breaks this rule and no other, a job as near to it as possible that breaks none)
RULE_EXAMPLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "name": (job({"metadata.name": "a" * 52}), job({"metadata.name": "a" * 51})),
    "source-kind": (job({"spec.training.data.source": "rows.xlsx"}), job(TABLE)),
    "source-scheme": (
        job(TABLE, {"spec.training.data.source": "https://example.org/rows.csv"}),
        job(TABLE, {"spec.training.data.source": "s3://bucket/rows.CSV"}),
    ),
    "source-sklearn": (
        job({"spec.training.data.source": "sklearn:digit"}),
        job({"spec.training.data.source": "sklearn:wine", "spec.training.task.numClasses": 3}),
    ),
    "target-required": (job(TABLE, {"spec.training.data.target": REMOVE}), job(TABLE)),
    "target-forbidden": (job({"spec.training.data.target": "label"}), job(TABLE)),
    "features-forbidden": (
        job({"spec.training.data.features": ["a"]}),
        job(TABLE, {"spec.training.data.features": ["a"]}),
    ),
    "features-target": (
        job(TABLE, {"spec.training.data.features": ["a", "label"]}),
        job(TABLE, {"spec.training.data.features": ["a", "b"]}),
    ),
    "split-sum": (
        job({"spec.training.data.split": {"train": 0.9}}),
        job({"spec.training.data.split": {"train": 0.7, "validation": 0.2}}),
    ),
    "source-task": (job(REGRESSION, {"spec.training.data.source": "sklearn:digits"}), job(REGRESSION)),
    "source-classes": (
        job({"spec.training.task.numClasses": 9}),
        job({"spec.training.task.numClasses": 9, "spec.training.data.source": "images:pictures"}),
    ),
    "model-images": (
        job({"spec.training.model.name": "cnn", "spec.training.data.source": "sklearn:iris"}, THREE),
        job({"spec.training.model.name": "cnn", "spec.training.data.source": "images:pictures"}, THREE),
    ),
    "vit-patch": (job(VIT, {"spec.training.model.args.patch": 3}), job(VIT, {"spec.training.model.args.patch": 8})),
    "cnn-blocks": (
        job({"spec.training.model": {"name": "cnn", "args": {"widths": [8, 8, 8, 8]}}}),
        job({"spec.training.model": {"name": "cnn", "args": {"widths": [8, 8, 8]}}}),
    ),
    "batch-rows": (
        job({"spec.training.data.source": "sklearn:iris", "spec.training.data.batchSize": 128}, THREE),
        job({"spec.training.data.source": "sklearn:iris", "spec.training.data.batchSize": 120}, THREE),
    ),
    "vit-heads": (job(VIT, {"spec.training.model.args.dim": 66}), job(VIT, {"spec.training.model.args.dim": 68})),
    "nesterov-momentum": (
        job(SGD, {"spec.training.optimizer.nesterov": True, "spec.training.optimizer.momentum": 0}),
        job(SGD, {"spec.training.optimizer.nesterov": True}),
    ),
    "warmup-duration": (
        job({"spec.training.schedule": {"name": "cosine", "warmup": "11ep"}}),
        job({"spec.training.schedule": {"name": "cosine", "warmup": "9ep"}}),
    ),
    "schedule-metric": (
        job({"spec.training.schedule": {"name": "plateau", "metric": "val/r2"}}),
        job({"spec.training.schedule": {"name": "plateau", "metric": "val/accuracy"}}),
    ),
    "stopping-metric": (
        job({"spec.training.loop.earlyStopping": {"metric": "val/rmse"}}),
        job({"spec.training.loop.earlyStopping": {"metric": "val/loss"}}),
    ),
    "checkpoint-metric": (
        job({"spec.checkpoint.metric": "val/rmse"}),
        job(REGRESSION, {"spec.checkpoint.metric": "val/rmse"}),
    ),
    "batch-multiple": (
        job({"spec.cluster.workers.count": 3}),
        job({"spec.cluster.workers.count": 2, "spec.training.loop.gradientAccumulation": 4}),
    ),
    "storage-endpoint": (
        job({"spec.storage": {"endpoint": "http://minio:9000", "uri": "/mnt/runs"}}),
        job({"spec.storage": {"endpoint": "http://minio:9000", "uri": "s3://bucket"}}),
    ),
    "storage-credentialsSecret": (
        job({"spec.storage": {"credentialsSecret": "minio", "uri": "file:///mnt/runs"}}),
        # without a uri it goes with the operator's default storage
        job({"spec.storage.credentialsSecret": "minio"}),
    ),
    "task-classification-required": (job({"spec.training.task.numClasses": REMOVE}), job()),
    "task.numClasses": (job(REGRESSION, {"spec.training.task.numClasses": 10}), job()),
    "task.labelSmoothing": (
        job(REGRESSION, {"spec.training.task.labelSmoothing": 0.1}),
        job({"spec.training.task.labelSmoothing": 0.1}),
    ),
    "task.loss": (job({"spec.training.task.loss": "mse"}), job(REGRESSION, {"spec.training.task.loss": "mse"})),
    "model.hidden": (
        job(VIT, {"spec.training.model.args.hidden": [8]}),
        job({"spec.training.model.args": {"hidden": []}}),
    ),
    "model.widths": (
        job({"spec.training.model.args": {"widths": [8]}}),
        job({"spec.training.model": {"name": "cnn", "args": {"widths": [8]}}}),
    ),
    "model.activation": (
        job(VIT, {"spec.training.model.args.activation": "gelu"}),
        job({"spec.training.model.args": {"activation": "gelu"}}),
    ),
    **{
        f"model.{name}": (
            job({"spec.training.model.args": {name: value}}),
            job(VIT, {f"spec.training.model.args.{name}": value}),
        )
        for name, value in {"dim": 32, "depth": 3, "heads": 2, "patch": 4, "mlpRatio": 2}.items()
    },
    **{
        f"optimizer.{name}": (
            job({"spec.training.optimizer": {"name": other, name: value}}),
            job({"spec.training.optimizer": {"name": owner, name: value}}),
        )
        for name, value, owner, other in (
            ("betas", [0.8, 0.9], "adamw", "sgd"),
            ("eps", 0.1, "adamw", "sgd"),
            ("momentum", 0.5, "sgd", "adamw"),
            ("nesterov", True, "sgd", "adamw"),
        )
    },
    **{
        f"schedule.{name}": (
            job({"spec.training.schedule": {"name": other, name: value}}),
            job({"spec.training.schedule": {"name": owner, name: value}}),
        )
        for name, value, owner, other in (
            ("minLrRatio", 0.1, "linear", "constant"),
            ("factor", 0.5, "plateau", "cosine"),
            ("patience", 3, "plateau", "linear"),
        )
    },
    "schedule.metric": (
        job({"spec.training.schedule": {"name": "cosine", "metric": "val/loss"}}),
        job({"spec.training.schedule": {"name": "plateau", "metric": "val/loss"}}),
    ),
}

# field that can't change -> (spec before, spec after)
FIXED_EXAMPLES: dict[str, tuple[Changes, Changes]] = {
    "training": ({}, {"spec.training.loop.seed": 5}),
    "storage": ({"spec.storage.uri": "s3://one"}, {"spec.storage.uri": "s3://two"}),
    "checkpoint.metric": ({}, {"spec.checkpoint.metric": "val/accuracy"}),
    "cluster.image": ({}, {"spec.cluster.image": "other:1"}),
    "cluster.workers.count": ({}, {"spec.cluster.workers.count": 2}),
    "cluster.workers.gpus": ({}, {"spec.cluster.workers.gpus": 1}),
    "run.resumeFrom": ({"spec.run.resumeFrom": "s3://one/run"}, {"spec.run.resumeFrom": REMOVE}),
}

# what may change while the job exists
FREE: Changes = {
    "metadata.labels": {"team": "vision"},
    "spec.tracking.mlflow": {},
    "spec.checkpoint.keep": 9,
    "spec.checkpoint.every": "10m",
    "spec.cluster.workers.memory": "4Gi",
    "spec.cluster.workers.template": {"spec": {"priorityClassName": "low"}},
    "spec.run": {
        "suspend": True,
        "retries": {"max": 9},
        "activeDeadlineSeconds": 10,
        "pendingDeadlineSeconds": 10,
        "ttlSecondsAfterFinished": 10,
        "stallSeconds": 100,
        "stopGraceSeconds": 30,
    },
}
