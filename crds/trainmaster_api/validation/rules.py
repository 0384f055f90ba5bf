"""Rules between fields, each written once as CEL (for the CRD) and once as Python (for the admission hook and the CLI).

A rule is evaluated on `self`, the object at its `scope`, after defaults. Both sides say the same sentence; a test runs
every rule's examples against Python and against a real API server and compares what they say.
"""

from __future__ import annotations

import re

from trainmaster_api.spec.data import SKLEARN_ROWS
from trainmaster_api.spec.task import METRICS
from trainmaster_api.types import MAX_NAME_LENGTH, NAME_PATTERN, parse_count

from .dataset_rules import DATA_RULES, SKLEARN_CLASSES, SKLEARN_REGRESSIONS
from .rule import Fixed, Object, Rule, cel_list, value_of
from .tracking_rules import TRACKING_RULES

# A run is what its checkpoints belong to: the data and the model that they continue, the place where they lie, the
# metric that chose BEST, and the ranks and devices that exact resume needs. The image is the code that computes it.
# Resources, placement, retries, deadlines and how often to save only say how the run is carried out: they may change.
FIXED: tuple[Fixed, ...] = (
    Fixed("training", "the checkpoints of this run belong to it"),
    Fixed("storage", "the checkpoints of this run are there"),
    Fixed("checkpoint.metric", "it chose the best checkpoint so far"),
    Fixed("cluster.image", "the run is what this code computes", always=False),
    Fixed("cluster.workers.count", "a checkpoint is resumed by as many workers as wrote it"),
    Fixed("cluster.workers.gpus", "a run stays on the kind of device that it began on"),
    Fixed("run.resumeFrom", "the run began there", always=False),
)


_CEL_CLASSES = "{" + ", ".join(f"'{source}': {classes}" for source, classes in SKLEARN_CLASSES.items()) + "}"

_NAME = Rule(
    id="name",
    scope="",
    field="metadata.name",
    reads=("metadata.name",),
    cel=f"self.metadata.name.size() <= {MAX_NAME_LENGTH} && self.metadata.name.matches('{NAME_PATTERN}')",
    check=lambda job: (
        len(job["metadata"]["name"]) <= MAX_NAME_LENGTH
        and re.fullmatch(NAME_PATTERN, job["metadata"]["name"]) is not None
    ),
    message=(
        "must begin with a letter, have only lower-case letters, digits and '-', end with a letter or "
        f"digit, and be at most {MAX_NAME_LENGTH} characters long, because the names of the job's pods begin with it"
    ),
)


def _classes_fit(training: Object) -> bool:
    known = SKLEARN_CLASSES.get(training["data"]["source"])
    task = training["task"]
    return known is None or task["type"] != "classification" or task.get("numClasses", known) == known


def _task_fits(training: Object) -> bool:
    source, kind = training["data"]["source"], training["task"]["type"]
    return not (source in SKLEARN_REGRESSIONS and kind != "regression") and not (
        source in SKLEARN_CLASSES and kind == "regression"
    )


def _side(source: str, image_size: int) -> int | None:
    """Pixels on each side of the source's images; None: it has no images."""
    if source == "sklearn:digits":
        return 8
    return image_size if source.startswith("images:") else None


def _patch_fits(training: Object) -> bool:
    side = _side(training["data"]["source"], training["data"]["imageSize"])
    is_vit = training["model"]["name"] == "vit"
    return not is_vit or side is None or side % training["model"]["args"].get("patch", 4) == 0


def _blocks_fit(training: Object) -> bool:
    side = _side(training["data"]["source"], training["data"]["imageSize"])
    if training["model"]["name"] != "cnn" or side is None:
        return True
    return bool(side >= 2 ** len(training["model"]["args"].get("widths", ())))


def _metric_sentence(names: list[str]) -> str:
    return f"must be a metric of the task: {', '.join(names)}"


def _metric_rule(id: str, scope: str, field: str, training: str, has: str) -> Rule:
    """`field` must name a validation metric of the task. `has`: CEL that is true while the field is there."""
    known = {task: [f"val/{metric}" for metric in metrics] for task, metrics in METRICS.items()}
    task = f"{training}task.type"
    options = "{" + ", ".join(f"'{kind}': {cel_list(names)}" for kind, names in known.items()) + "}"

    def check(value: Object) -> bool:
        metric = value_of(value, field)
        return metric is None or metric in known[value_of(value, task)]

    return Rule(
        id=id,
        scope=scope,
        field=field,
        reads=(field, task),
        cel=f"!({has}) || self.{field} in {options}[self.{task}]",
        check=check,
        message="must be a metric of the task",
        expression=" : ".join(
            [f"self.{task} == '{kind}' ? '{_metric_sentence(names)}'" for kind, names in known.items()]
            + ["'must be a metric of the task'"]
        ),
        sentence=lambda value: _metric_sentence(known[value_of(value, task)]),
    )


def _fits_in(part: str, whole: str) -> bool:
    """Whether `5ep` fits in `20ep`; only counts of the same unit are compared."""
    (part_count, part_unit), (count, unit) = parse_count(part), parse_count(whole)
    return part_unit != unit or part_count <= count


# Numbers without leading zeros compare by length, then as text: CEL's cost estimate has no bound for int() of a part.
_WARMUP_CEL = " && ".join(
    f"(!self.schedule.warmup.endsWith('{unit}') || !self.loop.duration.endsWith('{unit}') || "
    "self.schedule.warmup.size() < self.loop.duration.size() || "
    "(self.schedule.warmup.size() == self.loop.duration.size() && self.schedule.warmup <= self.loop.duration))"
    for unit in ("ep", "step")
)
_SIDE_CEL = "(self.data.source == 'sklearn:digits' ? 8 : self.data.imageSize)"
_HALVINGS = [2**blocks for blocks in range(17)]
_ROWS = {f"sklearn:{name}": rows for name, rows in SKLEARN_ROWS.items()}
_CEL_ROWS = "{" + ", ".join(f"'{source}': {rows}" for source, rows in _ROWS.items()) + "}"
_IMAGES_CEL = "(self.data.source == 'sklearn:digits' || self.data.source.startsWith('images:'))"

_TRAINING = (
    Rule(
        id="source-task",
        scope="spec.training",
        field="task.type",
        reads=("task.type", "data.source"),
        cel=(
            f"!(self.data.source in {cel_list(SKLEARN_REGRESSIONS)} && self.task.type != 'regression') && "
            f"!(self.data.source in {cel_list(list(SKLEARN_CLASSES))} && self.task.type == 'regression')"
        ),
        check=_task_fits,
        message="sklearn:diabetes is a regression; scikit-learn's other sets are classifications",
    ),
    Rule(
        id="source-classes",
        scope="spec.training",
        field="task.numClasses",
        reads=("task.type", "task.numClasses", "data.source"),
        cel=(
            f"!(self.data.source in {_CEL_CLASSES}) || self.task.type != 'classification' || "
            f"!has(self.task.numClasses) || self.task.numClasses == {_CEL_CLASSES}[self.data.source]"
        ),
        check=_classes_fit,
        message="must be the number of classes that the data set has",
        expression=f"'%s has %d classes'.format([self.data.source, {_CEL_CLASSES}[self.data.source]])",
        sentence=lambda training: (
            f"{training['data']['source']} has {SKLEARN_CLASSES[training['data']['source']]} classes"
        ),
    ),
    Rule(
        id="model-images",
        scope="spec.training",
        field="model.name",
        reads=("model.name", "data.source"),
        cel=f"!(self.model.name in ['cnn', 'vit']) || {_IMAGES_CEL}",
        check=lambda training: (
            training["model"]["name"] not in ("cnn", "vit") or _side(training["data"]["source"], 1) is not None
        ),
        message="cnn and vit need images (sklearn:digits or images:<folder>); for rows of numbers take mlp",
    ),
    Rule(
        id="vit-patch",
        scope="spec.training",
        field="model.args",
        reads=("model.name", "model.args.patch", "data.source", "data.imageSize"),
        cel=(
            f"self.model.name != 'vit' || !{_IMAGES_CEL} || "
            f"{_SIDE_CEL} % "
            "(has(self.model.args.patch) ? self.model.args.patch : 4) == 0"
        ),
        check=_patch_fits,
        message="patch must divide the side of the images",
        expression=(
            "'patch %d must divide the side of the images, %d pixels'.format(["
            "has(self.model.args.patch) ? self.model.args.patch : 4, "
            "self.data.source == 'sklearn:digits' ? 8 : self.data.imageSize])"
        ),
        sentence=lambda training: (
            f"patch {training['model']['args'].get('patch', 4)} must divide the side of the images, "
            f"{_side(training['data']['source'], training['data']['imageSize'])} pixels"
        ),
    ),
    Rule(
        id="cnn-blocks",
        scope="spec.training",
        field="model.args.widths",
        reads=("model.name", "model.args.widths", "data.source", "data.imageSize"),
        cel=(
            f"self.model.name != 'cnn' || !{_IMAGES_CEL} || !has(self.model.args.widths) || "
            f"{_SIDE_CEL} >= {_HALVINGS}[self.model.args.widths.size()]"
        ),
        check=_blocks_fit,
        message="has more blocks than the images can be halved",
        expression=(
            "'has %d blocks and each halves the image, but the images have %d pixels on each side'.format(["
            f"self.model.args.widths.size(), {_SIDE_CEL}])"
        ),
        sentence=lambda training: (
            f"has {len(training['model']['args']['widths'])} blocks and each halves the image, but the images have "
            f"{_side(training['data']['source'], training['data']['imageSize'])} pixels on each side"
        ),
    ),
    Rule(
        id="batch-rows",
        scope="spec.training",
        field="data.batchSize",
        reads=("data.batchSize", "data.source", "data.split.train"),
        cel=(
            f"!(self.data.source in {_CEL_ROWS}) || double(self.data.batchSize) <= "
            f"double({_CEL_ROWS}[self.data.source]) * self.data.split.train + 1.0"
        ),
        check=lambda training: (
            training["data"]["source"] not in _ROWS
            or training["data"]["batchSize"]
            <= _ROWS[training["data"]["source"]] * training["data"]["split"]["train"] + 1
        ),
        message="is more than the train split has rows",
        expression=f"'is more than the train split of the %d rows'.format([{_CEL_ROWS}[self.data.source]])",
        sentence=lambda training: f"is more than the train split of the {_ROWS[training['data']['source']]} rows",
    ),
    Rule(
        id="vit-heads",
        scope="spec.training",
        field="model.args",
        reads=("model.name", "model.args.dim", "model.args.heads"),
        cel=(
            "self.model.name != 'vit' || (has(self.model.args.dim) ? self.model.args.dim : 64) % "
            "(has(self.model.args.heads) ? self.model.args.heads : 4) == 0"
        ),
        check=lambda training: (
            training["model"]["name"] != "vit"
            or training["model"]["args"].get("dim", 64) % training["model"]["args"].get("heads", 4) == 0
        ),
        message="dim must be a multiple of heads",
        expression=(
            "'dim %d must be a multiple of heads %d'.format(["
            "has(self.model.args.dim) ? self.model.args.dim : 64, "
            "has(self.model.args.heads) ? self.model.args.heads : 4])"
        ),
        sentence=lambda training: (
            f"dim {training['model']['args'].get('dim', 64)} must be a multiple of "
            f"heads {training['model']['args'].get('heads', 4)}"
        ),
    ),
    Rule(
        id="nesterov-momentum",
        scope="spec.training",
        field="optimizer.nesterov",
        reads=("optimizer.name", "optimizer.nesterov", "optimizer.momentum"),
        cel=(
            "self.optimizer.name != 'sgd' || !has(self.optimizer.nesterov) || !self.optimizer.nesterov || "
            "!has(self.optimizer.momentum) || "
            "self.optimizer.momentum > 0.0"
        ),
        check=lambda training: (
            training["optimizer"]["name"] != "sgd"
            or not training["optimizer"].get("nesterov", False)
            or training["optimizer"].get("momentum", 0.9) > 0
        ),
        message="Nesterov's momentum needs momentum above 0",
    ),
    Rule(
        id="warmup-duration",
        scope="spec.training",
        field="schedule.warmup",
        reads=("schedule.name", "schedule.warmup", "loop.duration"),
        cel=f"!has(self.schedule.warmup) || ({_WARMUP_CEL})",
        check=lambda training: _fits_in(training["schedule"].get("warmup", "0"), training["loop"]["duration"]),
        message="is longer than the whole run",
        expression="'is longer than the whole run, %s'.format([self.loop.duration])",
        sentence=lambda training: f"is longer than the whole run, {training['loop']['duration']}",
    ),
    _metric_rule("schedule-metric", "spec.training", "schedule.metric", "", "has(self.schedule.metric)"),
    _metric_rule("stopping-metric", "spec.training", "loop.earlyStopping.metric", "", "has(self.loop.earlyStopping)"),
)


def _micro_batches(spec: Object) -> int:
    return int(spec["cluster"]["workers"]["count"]) * int(spec["training"]["loop"]["gradientAccumulation"])


def _batch_sentence(spec: Object) -> str:
    size, parts = spec["training"]["data"]["batchSize"], _micro_batches(spec)
    return (
        f"is not a multiple of {spec['cluster']['workers']['count']} workers x "
        f"{spec['training']['loop']['gradientAccumulation']} gradientAccumulation; next is "
        f"{(size // parts + 1) * parts}"
    )


_PARTS_CEL = "(self.cluster.workers.count * self.training.loop.gradientAccumulation)"

_SPEC = (
    Rule(
        id="batch-multiple",
        scope="spec",
        field="training.data.batchSize",
        reads=("training.data.batchSize", "training.loop.gradientAccumulation", "cluster.workers.count"),
        cel=f"self.training.data.batchSize % {_PARTS_CEL} == 0",
        check=lambda spec: spec["training"]["data"]["batchSize"] % _micro_batches(spec) == 0,
        message="must be a multiple of workers x gradientAccumulation",
        expression=(
            "'is not a multiple of %d workers x %d gradientAccumulation; next is %d'.format(["
            "self.cluster.workers.count, self.training.loop.gradientAccumulation, "
            f"(self.training.data.batchSize / {_PARTS_CEL} + 1) * {_PARTS_CEL}])"
        ),
        sentence=_batch_sentence,
    ),
    _metric_rule("checkpoint-metric", "spec", "checkpoint.metric", "training.", "has(self.checkpoint.metric)"),
    *(
        Rule(
            id=f"storage-{field}",
            scope="spec.storage",
            field=field,
            reads=("uri", field),
            cel=f"!has(self.{field}) || !has(self.uri) || self.uri.startsWith('s3://')",
            check=lambda storage, field=field: (  # type: ignore[misc]
                field not in storage or storage.get("uri", "s3://").startswith("s3://")
            ),
            message="is for S3 only, and storage.uri is a path: leave it out, or give the uri as s3://bucket/prefix",
        )
        for field in ("endpoint", "credentialsSecret")
    ),
)

RULES: tuple[Rule, ...] = (_NAME, *DATA_RULES, *_TRAINING, *_SPEC, *TRACKING_RULES)
