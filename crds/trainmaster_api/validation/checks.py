"""Rules between fields that depend on a data set or on a built-in name; the CRD has none of them.

`trainmaster validate`, the admission webhook and the operator (`Accepted`) run them, after the models have been parsed.
Rules of one object alone are validators of its model.
"""

from __future__ import annotations

from collections.abc import Iterator

from trainmaster_api.spec.job import Spec
from trainmaster_api.spec.model import shape_problem
from trainmaster_api.spec.schedule import PlateauArgs
from trainmaster_api.spec.task import Loss, MetricPart, Task
from trainmaster_api.types import parse_count

from .check import Check, registering
from .data_checks import DATA_CHECKS, nearest
from .image_checks import IMAGE_CHECKS
from .own_checks import OWN_CHECKS
from .problem import Problem
from .tuning_checks import TUNING_CHECKS

CHECKS: list[Check] = [*DATA_CHECKS]
_DATA, _TASK, _MODEL = "spec.training.data", "spec.training.task", "spec.training.model"
_check = registering(CHECKS)


# --- task ----------------------------------------------------------------------------------------------------------


@_check(f"{_TASK}.name", f"{_DATA}.source")
def _source_task(spec: Spec) -> Iterator[Problem]:
    """`task.name` must match the scikit-learn data set; a folder of images is a classification."""
    data, name = spec.training.data, spec.training.task.name
    known = data.sklearn_set
    if known is not None and (known.classes is None) != (name == "regression"):
        right = "regression" if known.classes is None else "classification"
        yield Problem(f"{_TASK}.name", f"{data.source} is a {right}")
    if (data.source or "").startswith("images:") and name != "classification":
        yield Problem(f"{_TASK}.name", "a folder of images is a classification: a sub-folder's name is a class")


@_check(f"{_TASK}.name", f"{_TASK}.numClasses", f"{_DATA}.source")
def _num_classes(spec: Spec) -> Iterator[Problem]:
    """`task.numClasses` must be the number of classes in the data, and is accepted for classification only."""
    task, known = spec.training.task, spec.training.data.sklearn_set
    if task.num_classes is None:
        return
    if task.name != "classification":
        yield Problem(f"{_TASK}.numClasses", f"a {task.name} has no classes: remove it")
    elif known is not None and known.classes not in (None, task.num_classes):
        yield Problem(f"{_TASK}.numClasses", f"{spec.training.data.source} has {known.classes} classes")


@_check(f"{_TASK}.name", f"{_TASK}.loss")
def _loss(spec: Spec) -> Iterator[Problem]:
    """`task.loss` must be a loss for the task."""
    task = spec.training.task
    if task.loss is not None:
        yield from _of_task(task, task.loss, f"{_TASK}.loss.name")


@_check(f"{_TASK}.name", f"{_TASK}.metrics")
def _metrics(spec: Spec) -> Iterator[Problem]:
    """`task.metrics` must be metrics for the task, with unique names."""
    task = spec.training.task
    seen: dict[str, int] = {}
    for index, metric in enumerate(task.metrics):
        path = f"{_TASK}.metrics[{index}]"
        yield from _of_task(task, metric, f"{path}.name")
        if metric.key in seen:
            yield Problem(
                path, f"has the name `{metric.key}` of metrics[{seen[metric.key]}]; names of metrics must be unique"
            )
        elif metric.FAMILY.get(metric.name) is None and metric.key in Task(name=task.name).metric_keys:
            yield Problem(path, f"has the name `{metric.key}`, which a metric of the task already has: rename it")
        seen.setdefault(metric.key, index)


def _of_task(task: Task, part: Loss | MetricPart, path: str) -> Iterator[Problem]:
    shipped = part.FAMILY.get(part.name)
    if shipped is not None and shipped.tasks and task.name not in shipped.tasks:
        fitting = [each.name for each in part.FAMILY if task.name in each.tasks]
        yield Problem(path, f"is for {' and '.join(shipped.tasks)}; for {task.name} there are {', '.join(fitting)}")


# --- model, schedule -----------------------------------------------------------------------------------------------


@_check(_MODEL, f"{_DATA}.source", f"{_DATA}.imageSize", f"{_DATA}.channels", f"{_DATA}.columns")
def _model_shape(spec: Spec) -> Iterator[Problem]:
    """A model for images requires images, of a size that its patches and blocks divide; one for text requires text."""
    data = spec.training.data
    if data.sklearn_set is not None:
        shape = data.sklearn_set.shape
    elif data.is_images:
        shape = (data.channels, data.image_size, data.image_size)
    elif data.is_table:
        shape = (len(data.features) if data.features else 1,)
    else:
        return
    found = shape_problem(spec.training.model, shape, is_text=bool(data.text_columns))
    if found is not None:
        yield Problem(f"{_MODEL}.{found[0]}", found[1])


@_check("spec.training.schedule.warmup", "spec.training.schedule.name", "spec.training.loop.duration")
def _warmup(spec: Spec) -> Iterator[Problem]:
    """`schedule.warmup` must not be longer than the run."""
    schedule, duration = spec.training.schedule, spec.training.loop.duration
    (part, part_unit), (whole, unit) = parse_count(schedule.warmup), parse_count(duration)
    if part_unit == unit and part > whole:
        yield Problem("spec.training.schedule.warmup", f"is longer than the run, {duration}")


@_check("spec.training.schedule.name", "spec.training.schedule.minLrRatio")
def _min_lr_ratio(spec: Spec) -> Iterator[Problem]:
    """`schedule.minLrRatio` is accepted for schedules that lower the learning rate only."""
    schedule = spec.training.schedule
    if schedule.name == "constant" and schedule.min_lr_ratio:
        words = "schedule constant stays at the peak: remove it, or use cosine, linear or plateau"
        yield Problem("spec.training.schedule.minLrRatio", words)


# --- several workers -----------------------------------------------------------------------------------------------


@_check("spec.training.distributed.syncBatchNorm", "spec.cluster.workers.count", "spec.cluster.workers.gpus")
def _sync_batch_norm(spec: Spec) -> Iterator[Problem]:
    """`distributed.syncBatchNorm` requires GPUs if there is more than one worker."""
    workers = spec.cluster.workers
    if spec.training.distributed.sync_batch_norm and workers.count > 1 and not workers.gpus:
        words = (
            "requires GPUs, because PyTorch has no SyncBatchNorm on CPUs: set cluster.workers.gpus, use "
            "cluster.workers.count: 1, or remove it and use a norm that doesn't depend on the batch, such as GroupNorm"
        )
        yield Problem("spec.training.distributed.syncBatchNorm", words)


# --- metrics that are watched --------------------------------------------------------------------------------------


@_check("spec.training.schedule", _TASK)
def _schedule_metric(spec: Spec) -> Iterator[Problem]:
    """The metric of schedule `plateau` must be a metric of the task."""
    if spec.training.schedule.name == "plateau":
        metric = spec.training.schedule.typed_args(PlateauArgs).metric
        yield from _is_metric(spec.training.task, metric, "spec.training.schedule.args.metric")


@_check("spec.training.loop.earlyStopping", _TASK)
def _stopping_metric(spec: Spec) -> Iterator[Problem]:
    """`loop.earlyStopping.metric` must be a metric of the task."""
    early = spec.training.loop.early_stopping
    if early is not None:
        yield from _is_metric(spec.training.task, early.metric, "spec.training.loop.earlyStopping.metric")


@_check("spec.checkpoint.metric", _TASK)
def _checkpoint_metric(spec: Spec) -> Iterator[Problem]:
    """`checkpoint.metric` must be a metric of the task."""
    yield from _is_metric(spec.training.task, spec.checkpoint.metric, "spec.checkpoint.metric")


def _is_metric(task: Task, metric: str, path: str) -> Iterator[Problem]:
    known = [f"val/{key}" for key in task.metric_keys]
    if metric not in known:
        words = f"must be a metric of the task: {', '.join(known)}"
        yield Problem(path, words, hint=nearest(metric, known))


# --- storage -------------------------------------------------------------------------------------------------------


@_check("spec.storage")
def _s3_only(spec: Spec) -> Iterator[Problem]:
    """`storage.endpoint` and `storage.credentialsSecret` are accepted for S3 only."""
    storage = spec.storage
    if storage.uri is None or storage.uri.startswith("s3://"):
        return
    for key, value in (("endpoint", storage.endpoint), ("credentialsSecret", storage.credentials_secret)):
        if value is not None:
            words = "is for S3 only, and storage.uri is a path: remove it, or set the uri to s3://bucket/prefix"
            yield Problem(f"spec.storage.{key}", words)


CHECKS.extend(IMAGE_CHECKS)
CHECKS.extend(OWN_CHECKS)
CHECKS.extend(TUNING_CHECKS)
