"""For each rule of the contract a change to a small job that breaks it and one that doesn't."""

from __future__ import annotations

from typing import Any

from tests.factories import REMOVE, Changes, Json, make_job
from tests.unit.api.image_samples import IMAGE_EXAMPLES, IMAGE_PART_EXAMPLES

TABLE: Changes = {"spec.training.data.source": "rows.csv", "spec.training.data.target": "label"}
TEXT: Changes = {
    **TABLE,
    "spec.training.data.columns": {"words": {"role": "text"}},
    "spec.training.model": {"name": "transformer"},
}
VIT: Changes = {"spec.training.model": {"name": "vit", "args": {"patch": 2}}}
REGRESSION: Changes = {
    "spec.training.data.source": "sklearn:diabetes",
    "spec.training.task": {"name": "regression"},
}
THREE: Changes = {"spec.training.task.numClasses": 3}
SGD: Changes = {"spec.training.optimizer": {"name": "sgd"}}


_NO_PARTS: Changes = {f"spec.training.{part}": REMOVE for part in ("task", "data", "model")}
_ENV: dict[str, Any] = {"path": "train.py", "parametersAs": "env"}
SCRIPT: Changes = {**_NO_PARTS, "spec.training.script": {"path": "train.py"}}
RECIPE: Changes = {**_NO_PARTS, "spec.training.recipe": {"function": "my_pkg.train:recipe"}}
TRANSFORMERS: Changes = {
    "spec.training.model": REMOVE,
    "spec.training.data": {"source": "reviews.csv", "target": "stars", "columns": {"text": {"role": "text"}}},
    "spec.training.transformers": {"model": {"config": {"model_type": "bert"}}},
}
LIGHTNING: Changes = {**_NO_PARTS, "spec.training.lightning": {"module": {"class": "my_pkg.train:Net"}}}


def job(*changes: Changes) -> Json:
    """A small job with changes."""
    return make_job({"metadata.namespace": "default"}, *changes, name="sample")


_RATE: dict[str, Any] = {"optimizer.lr": {"min": 0.001, "max": 0.1}}

# what the API server refuses too -> (path, a job that breaks this rule and no other, a job near to it that breaks none)
CEL_EXAMPLES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "name": ("metadata.name", job({"metadata.name": "a" * 52}), job({"metadata.name": "a" * 51})),
    "name-dot": ("metadata.name", job({"metadata.name": "my.digits"}), job({"metadata.name": "my-digits"})),
    "split-sum": (
        "spec.training.data.split",
        job({"spec.training.data.split": {"train": 0.9}}),
        job({"spec.training.data.split": {"train": 0.7, "validation": 0.2}}),
    ),
    "batch-multiple": (
        "spec.training.data.batchSize",
        job({"spec.cluster.workers.count": 3}),
        job({"spec.cluster.workers.count": 2, "spec.training.loop.gradientAccumulation": 4}),
    ),
    **{
        f"{path.rpartition('.')[2]}-{kind}": (f"spec.training.{path}", bad, good)
        for path, name, more in (
            ("model", "mlp", {}),
            ("optimizer", "sgd", {"lr": 0.1}),
            ("schedule", "linear", {}),
            ("task.loss", "cross_entropy", {}),
        )
        for kind, bad, good in (
            (
                "both",
                job({f"spec.training.{path}": {"name": name, "class": "my_pkg.parts:Part", **more}}),
                job({f"spec.training.{path}": {"class": "my_pkg.parts:Part", **more}}),
            ),
            (
                "neither",
                job({f"spec.training.{path}": {"args": {}, **more}}),
                job({f"spec.training.{path}": {"name": name, "args": {}, **more}}),
            ),
        )
    },
    "metric-neither": (
        "spec.training.task.metrics[1]",
        job({"spec.training.task.metrics": [{"name": "f1"}, {}]}),
        job({"spec.training.task.metrics": [{"name": "f1"}, {"class": "my_pkg:Kappa", "args": {"weights": None}}]}),
    ),
    "data-both": (
        "spec.training.data",
        job({"spec.training.data": {"source": "sklearn:digits", "class": "my_pkg.data:Churn"}}),
        job({"spec.training.data": {"class": "my_pkg.data:Churn", "args": {"year": 2020, "deep": {"a": [1]}}}}),
    ),
    "tracking-neither": (
        "spec.tracking[1]",
        job({"spec.tracking": [{"mlflow": {}}, {}]}),
        job({"spec.tracking": [{"mlflow": {}}, {"class": "my_pkg.trackers:Csv", "args": {"path": "x"}}]}),
    ),
    "tracking-both": (
        "spec.tracking[0]",
        job({"spec.tracking": [{"mlflow": {}, "class": "my_pkg.trackers:Csv"}]}),
        job({"spec.tracking": [{"class": "my_pkg.trackers:Csv"}]}),
    ),
    "search-both": (
        "spec.hyperparameterSearch",
        job({"spec.tuning": {"space": _RATE}, "spec.hyperparameterSearch": {"method": "grid", "budget": 9}}),
        job({"spec.hyperparameterSearch": {"method": "grid", "budget": "2h", "space": _RATE}}),
    ),
    "search-budget": (
        "spec.hyperparameterSearch.budget",
        job({"spec.hyperparameterSearch": {"method": "random", "budget": "2d"}}),
        job({"spec.hyperparameterSearch": {"method": "random", "budget": 50, "metric": "val/accuracy"}}),
    ),
    "data-neither": ("spec.training.data", job({"spec.training.data": {"batchSize": 8}}), job()),
    "training-both": ("spec.training", job({"spec.training.script": {"path": "train.py"}}), job(SCRIPT)),
    "training-neither": ("spec.training", job(SCRIPT, {"spec.training.script": REMOVE}), job(RECIPE)),
    "recipe-batch-multiple": (
        "spec.training.recipe.batchSize",
        job(RECIPE, {"spec.cluster.workers.count": 3}),
        job(RECIPE, {"spec.cluster.workers.count": 2}),
    ),
    "script-both": (
        "spec.training.script",
        job(SCRIPT, {"spec.training.script.module": "net.train"}),
        job(SCRIPT, {"spec.training.script": {"module": "net.train", "args": ["--epochs", "3"]}}),
    ),
    "code-both": (
        "spec.training.code",
        job(SCRIPT, {"spec.training.code": {"path": "src", "image": "/app"}}),
        job(SCRIPT, {"spec.training.code": {"path": "src"}}),
    ),
}

_DATA, _TASK = "spec.training.data", "spec.training.task"
_SPLIT = f"{_DATA}.split"
IRIS: Changes = {f"{_DATA}.source": "sklearn:iris"}
IMAGES: Changes = {f"{_DATA}.source": "images:pictures"}
OWN_DATA: Changes = {"spec.training.data": {"class": "my_pkg.data:Churn"}}
BOTH: Changes = {f"{_DATA}.validationSource": "validation.csv", f"{_DATA}.testSource": "test.csv"}
CNN: Changes = {"spec.training.model": {"name": "cnn"}}
KAPPA = {"class": "my_pkg.metrics:CohenKappa"}
SYNC: Changes = {"spec.training.distributed.syncBatchNorm": True}
PLATEAU = {"name": "plateau", "args": {"metric": "val/accuracy"}}

# id of a check -> (path, a job that breaks it and no other, a job near to it that breaks none)
CODE = {"sha256": "5694d08a2e53ffcae0c3103e5ad6f6076abd960eb1f8a56577040bc1028f702b", "data": "Y29kZQ=="}
CHECK_EXAMPLES: dict[str, list[tuple[str, dict[str, Any], dict[str, Any]]]] = {
    "source-kind": [
        (f"{_DATA}.source", job({f"{_DATA}.source": "rows.xlsx"}), job(TABLE)),
        (f"{_DATA}.source", job({f"{_DATA}.source": "days"}), job(TABLE, {f"{_DATA}.source": "days/*.tsv.gz"})),
        (
            f"{_DATA}.source",
            job({f"{_DATA}.source": "rows.parquet.gz"}),
            job(TABLE, {f"{_DATA}.source": "s3://bucket/days", f"{_DATA}.format": "parquet"}),
        ),
    ],
    "source-scheme": [
        (
            f"{_DATA}.source",
            job(TABLE, {f"{_DATA}.source": "https://example.org/rows.csv"}),
            job(TABLE, {f"{_DATA}.source": "s3://bucket/rows.CSV"}),
        ),
        (
            f"{_DATA}.source",
            job({f"{_DATA}.source": "images:gs://bucket/pictures"}),
            job({f"{_DATA}.source": "images:s3://bucket/pictures"}),
        ),
    ],
    "source-sklearn": [
        (f"{_DATA}.source", job({f"{_DATA}.source": "sklearn:digit"}), job({f"{_DATA}.source": "sklearn:wine"}, THREE))
    ],
    "target": [
        (f"{_DATA}.target", job(TABLE, {f"{_DATA}.target": REMOVE}), job(TABLE)),
        (f"{_DATA}.target", job({f"{_DATA}.target": "label"}), job(TABLE)),
        (
            f"{_DATA}.target",
            job({_DATA: {"class": "my_pkg.data:Churn", "target": "label"}}),
            job({_DATA: {"class": "my_pkg.data:Churn", "args": {"target": "label"}}}),
        ),
    ],
    "format": [
        (f"{_DATA}.format", job({f"{_DATA}.format": "csv"}), job(TABLE, {f"{_DATA}.format": "csv"})),
        (f"{_DATA}.format", job(IMAGES, CNN, {f"{_DATA}.format": "csv"}), job(IMAGES, CNN)),
        (
            f"{_DATA}.format",
            job(TABLE, {f"{_DATA}.format": "parquet"}),
            job(TABLE, {f"{_DATA}.format": "tsv"}),
        ),
    ],
    "features": [
        (f"{_DATA}.features", job({f"{_DATA}.features": ["a"]}), job(TABLE, {f"{_DATA}.features": ["a"]})),
    ],
    "categories": [
        (f"{_DATA}.categories", job({f"{_DATA}.categories": "index"}), job(TABLE, {f"{_DATA}.categories": "index"})),
    ],
    "features-target": [
        (
            f"{_DATA}.features",
            job(TABLE, {f"{_DATA}.features": ["a", "label"]}),
            job(TABLE, {f"{_DATA}.features": ["a", "b"]}),
        )
    ],
    "data-args": [
        (
            f"{_DATA}.args",
            job({f"{_DATA}.args": {"year": 2020}}),
            job({_DATA: {"class": "my_pkg.data:Churn", "args": {"year": 2020}}}),
        )
    ],
    "batch-rows": [
        (
            f"{_DATA}.batchSize",
            job(IRIS, THREE, {f"{_DATA}.batchSize": 128}),
            job(IRIS, THREE, {f"{_DATA}.batchSize": 120}),
        )
    ],
    "split-by": [
        (f"{_SPLIT}.by", job({f"{_SPLIT}.by": "time", f"{_SPLIT}.column": "day"}), job({f"{_SPLIT}.by": "stratified"})),
        (
            f"{_SPLIT}.by",
            job(IMAGES, {f"{_SPLIT}.by": "group"}),
            job(TABLE, {_SPLIT: {"by": "group", "column": "customer"}}),
        ),
    ],
    "split-stratified": [
        (f"{_SPLIT}.by", job(REGRESSION, {f"{_SPLIT}.by": "stratified"}), job(REGRESSION, {f"{_SPLIT}.by": "random"})),
    ],
    "split-column": [
        (
            f"{_SPLIT}.column",
            job(TABLE, {f"{_SPLIT}.column": "day"}),
            job(TABLE, {_SPLIT: {"by": "time", "column": "day"}}),
        ),
        (
            f"{_SPLIT}.column",
            job(TABLE, {f"{_SPLIT}.by": "group"}),
            job(TABLE, {f"{_SPLIT}.by": "group", f"{_DATA}.columns": {"customer": {"role": "group"}}}),
        ),
        (
            f"{_SPLIT}.column",
            job(TABLE, {f"{_SPLIT}.by": "column"}),
            job(TABLE, {_SPLIT: {"by": "column", "column": "part"}}),
        ),
    ],
    "split-not-trained": [
        (
            f"{_SPLIT}.column",
            job(TABLE, {_SPLIT: {"by": "group", "column": "label"}}),
            job(TABLE, {_SPLIT: {"by": "group", "column": "a"}, f"{_DATA}.features": ["a"]}),
        ),
        (
            f"{_DATA}.features",
            job(TABLE, {_SPLIT: {"by": "column", "column": "part"}, f"{_DATA}.features": ["a", "part"]}),
            job(TABLE, {_SPLIT: {"by": "column", "column": "part"}, f"{_DATA}.features": ["a"]}),
        ),
    ],
    "own-sources": [
        (f"{_DATA}.{key}", job(*changes, {f"{_DATA}.{key}": bad}), job(near, {f"{_DATA}.{key}": good}))
        for key, bad, changes, near, good in (
            ("testSource", "test.csv", (), TABLE, "s3://bucket/test.parquet"),
            ("validationSource", "v.csv", (OWN_DATA,), TABLE, "v.csv"),
            ("validationSource", "v.csv", (TABLE, {_SPLIT: {"by": "column", "column": "part"}}), TABLE, "v.csv"),
            ("validationSource", "images:val", (TABLE,), {**IMAGES, **CNN}, "images:val"),
            ("validationSource", "val", (TABLE,), {**TABLE, f"{_DATA}.format": "csv"}, "val"),
            ("testSource", "test.csv", (IMAGES, CNN), {**IMAGES, **CNN}, "images:s3://bucket/test"),
            ("testSource", "gs://bucket/test.csv", (TABLE,), TABLE, "test.csv"),
            ("testSource", "rows.csv", (TABLE,), TABLE, "other.csv"),
            ("testSource", "a.csv", (TABLE, {f"{_DATA}.validationSource": "a.csv"}), TABLE, "a.csv"),
        )
    ],
    "split-undivided": [
        (
            f"{_SPLIT}.by",
            job(TABLE, BOTH, {f"{_SPLIT}.by": "random"}),
            job(TABLE, {f"{_DATA}.testSource": "test.csv", f"{_SPLIT}.by": "random"}),
        )
    ],
    "dedupe": [
        (
            f"{_DATA}.dedupe",
            job({f"{_DATA}.dedupe": True}),
            job({f"{_DATA}.source": "images:pictures", f"{_DATA}.dedupe": True}),
        ),
        (f"{_DATA}.dedupe", job({f"{_DATA}.dedupe": True}), job(TABLE, {f"{_DATA}.dedupe": True})),
    ],
    "text": [
        (f"{_DATA}.text", job(TABLE, {f"{_DATA}.text.maxLength": 64}), job(TEXT, {f"{_DATA}.text.maxLength": 64}))
    ],
    "text-alone": [
        (
            f"{_DATA}.columns",
            job(TEXT, {f"{_DATA}.columns.age": {"role": role}}),
            job(TEXT, {f"{_DATA}.columns.age": good}),
        )
        for role, good in (("numeric", {"role": "ignore"}), ("categorical", {"role": "text"}))
    ]
    + [(f"{_DATA}.columns", job(TEXT, {f"{_DATA}.columns.words.indicator": True}), job(TEXT))],
    "cache": [
        (
            f"{_DATA}.cache",
            job({f"{_DATA}.cache": {"mode": "always"}}),
            job(TABLE, {f"{_DATA}.cache": {"mode": "always"}}),
        )
    ],
    "sampling": [
        (
            f"{_DATA}.sampling",
            job(REGRESSION, {f"{_DATA}.sampling": "balanced"}),
            job({f"{_DATA}.sampling": "balanced"}),
        )
    ],
    "source-task": [
        (f"{_TASK}.name", job(REGRESSION, {f"{_DATA}.source": "sklearn:digits"}), job(REGRESSION)),
        (f"{_TASK}.name", job({f"{_DATA}.source": "sklearn:diabetes", f"{_TASK}.numClasses": REMOVE}), job()),
        (f"{_TASK}.name", job(REGRESSION, IMAGES), job(IMAGES)),
    ],
    "num-classes": [
        (f"{_TASK}.numClasses", job({f"{_TASK}.numClasses": 9}), job(IMAGES, {f"{_TASK}.numClasses": 9})),
        (f"{_TASK}.numClasses", job(REGRESSION, {f"{_TASK}.numClasses": 10}), job({f"{_TASK}.numClasses": REMOVE})),
    ],
    "loss": [
        (f"{_TASK}.loss.name", job({f"{_TASK}.loss": {"name": "mse"}}), job(REGRESSION, {f"{_TASK}.loss.name": "mse"})),
        (
            f"{_TASK}.loss.name",
            job(REGRESSION, {f"{_TASK}.loss": {"name": "cross_entropy"}}),
            job({f"{_TASK}.loss": {"name": "cross_entropy", "args": {"labelSmoothing": 0.1}}}),
        ),
    ],
    "metrics": [
        (f"{_TASK}.metrics[0].name", job({f"{_TASK}.metrics": [{"name": "r2"}]}), job({f"{_TASK}.metrics": [KAPPA]})),
        (
            f"{_TASK}.metrics[1]",
            job({f"{_TASK}.metrics": [KAPPA, {"class": "other:CohenKappa"}]}),
            job({f"{_TASK}.metrics": [KAPPA, {"class": "other:Kappa"}]}),
        ),
        (
            f"{_TASK}.metrics[0]",
            job({f"{_TASK}.metrics": [{"class": "my_pkg:Accuracy"}]}),
            job({f"{_TASK}.metrics": [{"class": "my_pkg:TopTwoAccuracy"}, {"name": "torchmetrics/auroc"}]}),
        ),
    ],
    "model-shape": [
        ("spec.training.model.name", job(CNN, IRIS, THREE), job(CNN, IMAGES)),
        ("spec.training.model.name", job(TABLE, VIT), job(TABLE)),
        ("spec.training.model.name", job(TEXT, {"spec.training.model.name": "mlp"}), job(TEXT)),
        ("spec.training.model.name", job(TEXT, {f"{_DATA}.columns": {}}), job(TEXT)),
        (
            "spec.training.model.args.patch",
            job(VIT, {"spec.training.model.args.patch": 3}),
            job(VIT, {"spec.training.model.args.patch": 8}),
        ),
        (
            "spec.training.model.args.patch",
            job(VIT, IMAGES, {"spec.training.model.args": {"patch": 5}}),
            job(VIT, IMAGES, {"spec.training.model.args": {"patch": 5}, f"{_DATA}.imageSize": 35}),
        ),
        (
            "spec.training.model.args.widths",
            job(CNN, {"spec.training.model.args": {"widths": [8, 8, 8, 8]}}),
            job(CNN, {"spec.training.model.args": {"widths": [8, 8, 8]}}),
        ),
    ],
    "warmup": [
        (
            "spec.training.schedule.warmup",
            job({"spec.training.schedule": {"name": "cosine", "warmup": "11ep"}}),
            job({"spec.training.schedule": {"name": "cosine", "warmup": "9ep"}}),
        )
    ],
    "min-lr-ratio": [
        (
            "spec.training.schedule.minLrRatio",
            job({"spec.training.schedule": {"name": "constant", "minLrRatio": 0.1}}),
            job({"spec.training.schedule": {"name": "linear", "minLrRatio": 0.1}}),
        )
    ],
    "sync-batch-norm": [
        (
            "spec.training.distributed.syncBatchNorm",
            job(SYNC, {"spec.cluster.workers": {"count": 2}}),
            job(SYNC, {"spec.cluster.workers": {"count": 2, "gpus": 1}}),
        ),
        (
            "spec.training.distributed.syncBatchNorm",
            job(SYNC, {"spec.cluster.workers": {"count": 2, "gpus": 0}}),
            job(SYNC, {"spec.cluster.workers": {"count": 1}}),
        ),
    ],
    "schedule-metric": [
        (
            "spec.training.schedule.args.metric",
            job({"spec.training.schedule": {"name": "plateau", "args": {"metric": "val/r2"}}}),
            job({"spec.training.schedule": PLATEAU}),
        )
    ],
    "stopping-metric": [
        (
            "spec.training.loop.earlyStopping.metric",
            job({"spec.training.loop.earlyStopping": {"metric": "val/rmse"}}),
            job({"spec.training.loop.earlyStopping": {"metric": "val/loss"}}),
        )
    ],
    "checkpoint-metric": [
        (
            "spec.checkpoint.metric",
            job({"spec.checkpoint.metric": "val/rmse"}),
            job(REGRESSION, {"spec.checkpoint.metric": "val/rmse"}),
        ),
        (
            "spec.checkpoint.metric",
            job({"spec.checkpoint.metric": "val/cohen_kappa"}),
            job({"spec.checkpoint.metric": "val/cohen_kappa", f"{_TASK}.metrics": [KAPPA]}),
        ),
    ],
    "s3-only": [
        (
            "spec.storage.endpoint",
            job({"spec.storage": {"endpoint": "http://minio:9000", "uri": "/mnt/runs"}}),
            job({"spec.storage": {"endpoint": "http://minio:9000", "uri": "s3://bucket"}}),
        ),
        (
            "spec.storage.credentialsSecret",
            job({"spec.storage": {"credentialsSecret": "minio", "uri": "file:///mnt/runs"}}),
            # without a uri it goes with the operator's default storage
            job({"spec.storage.credentialsSecret": "minio"}),
        ),
    ],
    **IMAGE_EXAMPLES,
    "required-parts": [
        ("spec.training.task", job({"spec.training.task": REMOVE}), job()),
        ("spec.training.data", job({"spec.training.data": REMOVE}), job()),
        ("spec.training.data", job(TRANSFORMERS, {"spec.training.data": REMOVE}), job(TRANSFORMERS)),
    ],
    "not-with": [
        ("spec.training.task", job(SCRIPT, {"spec.training.task": {"name": "regression"}}), job(SCRIPT)),
        ("spec.training.data", job(RECIPE, {"spec.training.data": {"source": "sklearn:iris"}}), job(RECIPE)),
        (
            "spec.training.loop",
            job(TRANSFORMERS, {"spec.training.loop": {"duration": "3ep"}}),
            job(RECIPE, {"spec.training.loop": {"duration": "3ep"}}),
        ),
        (
            "spec.training.optimizer",
            job(LIGHTNING, {"spec.training.optimizer": {"name": "sgd"}}),
            # what the API server fills in
            job(LIGHTNING, {"spec.training.optimizer": {"name": "adamw"}}),
        ),
    ],
    "texts": [
        (
            "spec.training.task.name",
            job(TRANSFORMERS, {"spec.training.task": {"name": "regression"}}),
            job(TRANSFORMERS),
        ),
        (
            "spec.training.task.loss",
            job(TRANSFORMERS, {"spec.training.task.loss": {"name": "cross_entropy"}}),
            job(TRANSFORMERS),
        ),
        ("spec.training.data.columns", job(TRANSFORMERS, {"spec.training.data.columns": {}}), job(TRANSFORMERS)),
        (
            "spec.training.data.sampling",
            job(TRANSFORMERS, {"spec.training.data.sampling": "balanced"}),
            job(TRANSFORMERS, {"spec.training.data.sampling": "uniform"}),
        ),
    ],
    "framework": [
        (
            "spec.training.framework",
            job({"spec.training.framework": "lightning"}),
            job(LIGHTNING, {"spec.training.framework": "lightning"}),
        ),
        (
            "spec.training.framework",
            job(SCRIPT, {"spec.training.framework": "lightning"}),
            job(LIGHTNING, {"spec.training.framework": "torch"}),
        ),
    ],
    "script-parameters": [
        (
            "spec.training.script.parameters.a-b",
            job(SCRIPT, {"spec.training.script.parameters": {"a-b": 1}}),
            job(SCRIPT, {"spec.training.script.parameters": {"a_b": 1}}),
        ),
        (
            "spec.training.script.parameters.a_b",
            job(SCRIPT, {"spec.training.script": {**_ENV, "parameters": {"a": {"b": 1}, "a_b": 2}}}),
            job(SCRIPT, {"spec.training.script": {**_ENV, "parameters": {"a": {"b": 1}, "ab": 2}}}),
        ),
    ],
    "inline-code": [
        (
            f"spec.training.code.inline.{field}",
            job({"spec.training.code": {"inline": {**CODE, field: value}}}),
            job({"spec.training.code": {"inline": CODE}}),
        )
        for field, value in (("data", "Y29kZQ="), ("sha256", "0" * 64))
    ],
    "wheels": [
        (
            "spec.training.code.wheels",
            job(SCRIPT, {"spec.training.code": {"path": "src", "wheels": "wheels"}}),
            job(SCRIPT, {"spec.training.code": {"path": "src", "wheels": "wheels", "requirements": "lock.txt"}}),
        )
    ],
}

# rules of a name that we ship -> (path, bad, good)
PART_EXAMPLES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    **IMAGE_PART_EXAMPLES,
    "unknown-name": (
        "spec.training.model.name",
        job({"spec.training.model.name": "mpl"}),
        job({"spec.training.model.name": "timm/resnet50"}),
    ),
    "vit-heads": (
        "spec.training.model.args",
        job(VIT, {"spec.training.model.args.dim": 66}),
        job(VIT, {"spec.training.model.args.dim": 68}),
    ),
    "nesterov-momentum": (
        "spec.training.optimizer.args",
        job(SGD, {"spec.training.optimizer.args": {"nesterov": True, "momentum": 0}}),
        job(SGD, {"spec.training.optimizer.args": {"nesterov": True}}),
    ),
    "class-lr": (
        "spec.training.optimizer.lr",
        job({"spec.training.optimizer": {"class": "my_pkg.optim:Lion"}}),
        job({"spec.training.optimizer": {"class": "my_pkg.optim:Lion", "lr": 0.1, "args": {"any": ["thing"]}}}),
    ),
    # an argument of one name is unknown to another
    **{
        f"{path}.{name}.{key}": (
            f"spec.training.{path}.args.{key}",
            job({f"spec.training.{path}": {"name": other, "args": {key: value}}}),
            job({f"spec.training.{path}": {"name": name, "args": {key: value}}}, *more),
        )
        for path, name, other, key, value, *more in (
            ("model", "mlp", "vit", "hidden", []),
            ("model", "cnn", "mlp", "widths", [8]),
            ("model", "mlp", "vit", "activation", "gelu"),
            ("model", "vit", "mlp", "dim", 32),
            ("model", "vit", "cnn", "depth", 3),
            ("model", "vit", "mlp", "heads", 2),
            ("model", "vit", "mlp", "patch", 4),
            ("model", "vit", "mlp", "mlpRatio", 2),
            ("optimizer", "adamw", "sgd", "betas", [0.8, 0.9]),
            ("optimizer", "adamw", "sgd", "eps", 0.1),
            ("optimizer", "sgd", "adamw", "momentum", 0.5),
            ("optimizer", "sgd", "adamw", "nesterov", True),
            ("schedule", "plateau", "cosine", "factor", 0.5),
            ("schedule", "plateau", "linear", "patience", 3),
            ("schedule", "plateau", "constant", "metric", "val/loss"),
        )
    },
}


def search(**tuning: Any) -> Changes:
    """A search for a learning rate."""
    return {"spec.tuning": {"space": _RATE, **tuning}}


def population(**tuning: Any) -> Changes:
    """A search by population-based training."""
    pbt: dict[str, Any] = {
        "objectives": [{"metric": "val/loss", "reduce": "last"}],
        "search": {"algorithm": "random"},
        "pruning": {"algorithm": "pbt"},
        "budget": {"maxTrials": 4},
    }
    return search(**(pbt | tuning))


_SCORE = search(objectives=[{"metric": "val/score", "goal": "maximize"}], space={"lr": {"min": 0.001, "max": 0.1}})
_ONE_WORKER: Changes = {"spec.cluster.workers.count": 1}
CHECK_EXAMPLES |= {
    "tuning-place": [
        (
            "spec.tuning.space.optimizer.rate",
            job(search(space={**_RATE, "optimizer.rate": {"value": 1}})),
            job(search(space={**_RATE, "optimizer.weightDecay": {"value": 1}})),
        )
    ],
    "tuning-code": [
        (
            "spec.training.code",
            job(SCRIPT, _SCORE),
            job(SCRIPT, _SCORE, {"spec.training.code": {"path": "."}}),
        )
    ],
    "tuning-conditions": [
        (
            "spec.tuning.space.data.batchSize.when.optimizer.lr",
            job(search(space={**_RATE, "data.batchSize": {"value": 32, "when": {"optimizer.lr": [5]}}})),
            job(search(space={**_RATE, "data.batchSize": {"value": 32, "when": {"optimizer.lr": [0.1]}}})),
        )
    ],
    "tuning-constraints": [
        (
            "spec.tuning.constraints[0]",
            job(search(constraints=["lr < 1"])),
            job(search(constraints=["optimizer.lr < 1"])),
        )
    ],
    "tuning-algorithm": [
        (
            "spec.tuning.search.algorithm",
            job(search(search={"algorithm": "cmaes"})),
            job(search(search={"algorithm": "tpe"})),
        )
    ],
    "tuning-objectives": [
        (
            "spec.tuning.objectives[0].goal",
            job(search(objectives=[{"goal": "maximize"}])),
            job(search(objectives=[{"goal": "minimize"}])),
        )
    ],
    "tuning-pruning": [
        (
            "spec.tuning.pruning.minTime",
            job(search(pruning={"minTime": 4, "maxTime": 4})),
            job(search(pruning={"minTime": 3, "maxTime": 4})),
        )
    ],
    "tuning-population": [
        ("spec.tuning.budget.maxTrials", job(population(budget={})), job(population())),
        (
            "spec.tuning.space.data.batchSize",
            job(population(space={**_RATE, "data.batchSize": {"values": [32, 64]}})),
            job(population(space={**_RATE, "data.batchSize": {"value": 64}})),
        ),
    ],
    "tuning-budget": [
        (
            "spec.tuning.trial.workers",
            job(_ONE_WORKER, search(trial={"workers": 2})),
            job(_ONE_WORKER, search(trial={"workers": 1})),
        )
    ],
    "tuning-points": [
        (
            "spec.tuning.warmStart.points[0].optimizer.lr",
            job(search(warmStart={"points": [{"optimizer.lr": 1}]})),
            job(search(warmStart={"points": [{"optimizer.lr": 0.01}]})),
        )
    ],
    "tuning-earlier": [
        (
            "spec.tuning.warmStart.from",
            job(search(warmStart={"from": [{"run": "/runs/a"}]}, search={"algorithm": "random"})),
            job(search(warmStart={"from": [{"run": "/runs/a"}]})),
        ),
        (
            "spec.tuning.warmStart.from[0].mlflowExperiment",
            job({"spec.tracking": []}, search(warmStart={"from": [{"mlflowExperiment": "a"}]})),
            job({"spec.tracking": [{"mlflow": {}}]}, search(warmStart={"from": [{"mlflowExperiment": "a"}]})),
        ),
    ],
    "search-space": [
        (
            "spec.hyperparameterSearch.space",
            job(RECIPE, {"spec.hyperparameterSearch": {"method": "random", "budget": 9}}),
            job(RECIPE, {"spec.hyperparameterSearch": {"method": "random", "budget": 9, "space": _RATE}}),
        )
    ],
}

ALL_EXAMPLES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    **CEL_EXAMPLES,
    **PART_EXAMPLES,
    **{f"{id}-{index}": example for id, found in CHECK_EXAMPLES.items() for index, example in enumerate(found)},
}

# field that can't change -> (spec before, spec after)
FIXED_EXAMPLES: dict[str, tuple[Changes, Changes]] = {
    "training": ({}, {"spec.training.loop.seed": 5}),
    "training.loop.duration": ({"spec.training.loop.duration": "30ep"}, {"spec.training.loop.duration": "20ep"}),
    "tuning": (
        search(space={"data.batchSize": {"values": [32, 64]}}),
        search(space={"data.batchSize": {"values": [32, 128]}}),
    ),
    "hyperparameterSearch": (
        {"spec.hyperparameterSearch": {"method": "random", "budget": 9}},
        {"spec.hyperparameterSearch.method": "grid"},
    ),
    "storage": ({"spec.storage.uri": "s3://one"}, {"spec.storage.uri": "s3://two"}),
    "checkpoint.metric": ({}, {"spec.checkpoint.metric": "val/accuracy"}),
    "cluster.image": ({}, {"spec.cluster.image": "other:1"}),
    "cluster.workers.count": ({}, {"spec.cluster.workers.count": 2}),
    "cluster.workers.gpus": ({}, {"spec.cluster.workers.gpus": 1}),
    "run.resumeFrom": ({"spec.run.resumeFrom": "s3://one/run"}, {"spec.run.resumeFrom": REMOVE}),
}

# parts of the training, none of which can change: before, after
TRAINING_EXAMPLES: list[tuple[Changes, Changes]] = [
    ({}, {"spec.training.model.args": {"hidden": [8]}}),
    ({}, {"spec.training.model": {"name": "cnn"}}),
    ({}, {"spec.training.model": {"class": "my_pkg:Net"}}),
    (
        {"spec.training.model": {"class": "my_pkg:Net", "args": {"deep": {"a": [1]}}}},
        {"spec.training.model.args": {"deep": {"a": [2]}}},
    ),
    ({"spec.training.model": {"class": "my_pkg:Net", "args": {"deep": 1}}}, {"spec.training.model.args": REMOVE}),
    ({}, {"spec.training.task.metrics": [{"class": "my_pkg:Kappa"}]}),
    ({}, {"spec.training.task.loss": {"name": "cross_entropy", "args": {"labelSmoothing": 0.1}}}),
    ({}, {"spec.training.data.batchSize": 64}),
    ({}, {"spec.training.optimizer.lr": 0.5}),
    ({}, {"spec.training.schedule.name": "linear"}),
    ({}, {"spec.training.loop.precision": "bf16"}),
    ({}, {"spec.training.loop.gradientAccumulation": 2}),
    ({}, {"spec.training.loop.clipNorm": 1.0}),
    ({"spec.training.loop.clipNorm": 1.0}, {"spec.training.loop.clipNorm": REMOVE}),
    ({}, {"spec.training.loop.validateEvery": "2ep"}),
    ({"spec.cluster.workers.gpus": 1}, {"spec.training.distributed.syncBatchNorm": True}),
    ({}, {"spec.training.loop.earlyStopping": {}}),
    ({"spec.training.loop.earlyStopping": {}}, {"spec.training.loop.earlyStopping.patience": 9}),
]

# duration before, after, whether the change is allowed
DURATIONS = [
    ("20ep", "30ep", True),
    ("20ep", "20ep", True),
    ("9ep", "10ep", True),
    ("999step", "1000step", True),
    ("30ep", "20ep", False),
    ("10ep", "9ep", False),
    ("1000step", "999step", False),
    ("20ep", "1000step", False),
    ("20step", "1000ep", False),
]

# what may change while the job exists
FREE: Changes = {
    "metadata.labels": {"team": "vision"},
    "spec.tracking": [{"mlflow": {}}],
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
