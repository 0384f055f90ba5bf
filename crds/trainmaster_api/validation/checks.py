"""Rules between fields that need knowledge of a data set or of a name that we ship; the CRD has none of them.

`trainmaster validate`, the admission webhook and the operator (`Accepted`) run them, after the models have been parsed.
Rules of one object alone are validators of its model.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trainmaster_api.spec.data import SKLEARN_SETS, Data
from trainmaster_api.spec.job import Spec
from trainmaster_api.spec.model import shape_problem
from trainmaster_api.spec.schedule import PlateauArgs
from trainmaster_api.spec.task import Loss, MetricPart, Task
from trainmaster_api.types import parse_count

from .problem import Problem

Find = Callable[[Spec], Iterator[Problem]]


@dataclass(frozen=True)
class Check:
    """A rule that only Python knows.

    Attributes:
        id: Its name, for tests.
        reads: Paths of what it reads; it is silent while one of them has a problem of its own.
        find: Yields what is wrong, with its path and without the value there.
        summary: What must hold, one sentence; for the reference.
    """

    id: str
    reads: tuple[str, ...]
    find: Find
    summary: str


CHECKS: list[Check] = []
_DATA, _TASK, _MODEL = "spec.training.data", "spec.training.task", "spec.training.model"


def _check(*reads: str) -> Callable[[Find], Find]:
    """Register a check; its docstring is its summary."""

    def register(find: Find) -> Find:
        name = find.__name__.strip("_").replace("_", "-")
        CHECKS.append(Check(name, reads, find, " ".join((find.__doc__ or "").split())))
        return find

    return register


def _is_named(data: Data) -> bool:
    return data.source is not None and data.source.startswith(("sklearn:", "images:"))


# --- data ----------------------------------------------------------------------------------------------------------


@_check(f"{_DATA}.source")
def _source_kind(spec: Spec) -> Iterator[Problem]:
    """`data.source` is `sklearn:<name>`, `images:<folder>`, or the address of a file that ends in .csv or .parquet."""
    data = spec.training.data
    if data.source is not None and not _is_named(data) and not data.is_table:
        words = "must be `sklearn:<name>`, `images:<folder>`, or the address of a file that ends in .csv or .parquet"
        yield Problem(f"{_DATA}.source", words)


@_check(f"{_DATA}.source")
def _source_scheme(spec: Spec) -> Iterator[Problem]:
    """`data.source` is read from a path or from s3://."""
    source = spec.training.data.source or ""
    if "://" in source and not source.startswith(("s3://", "images:s3://")):
        yield Problem(f"{_DATA}.source", "is read from a path or from s3://; copy the data to one of them")


@_check(f"{_DATA}.source")
def _source_sklearn(spec: Spec) -> Iterator[Problem]:
    """`sklearn:` is followed by the name of a data set that comes with scikit-learn."""
    data = spec.training.data
    if data.source is not None and data.source.startswith("sklearn:") and data.sklearn_set is None:
        known = [f"sklearn:{name}" for name in SKLEARN_SETS]
        words = f"unknown data set; scikit-learn's are {', '.join(known)}"
        yield Problem(f"{_DATA}.source", words, hint=_nearest(data.source, known))


@_check(f"{_DATA}.source", f"{_DATA}.target")
def _target(spec: Spec) -> Iterator[Problem]:
    """A CSV or Parquet file needs `data.target`; no other source takes it."""
    data = spec.training.data
    if data.is_table and data.target is None:
        yield Problem(f"{_DATA}.target", "is required: a CSV or Parquet file needs `target`, the column to predict")
    if not data.is_table and data.target is not None and (_is_named(data) or data.reference is not None):
        words = "only a CSV or Parquet file has a `target`; this source brings its own labels: leave it out"
        yield Problem(f"{_DATA}.target", words)


@_check(f"{_DATA}.source", f"{_DATA}.features")
def _features(spec: Spec) -> Iterator[Problem]:
    """Only a CSV or Parquet file takes `data.features`."""
    data = spec.training.data
    if data.features is not None and (_is_named(data) or data.reference is not None):
        words = "only a CSV or Parquet file has columns to choose `features` from: leave it out"
        yield Problem(f"{_DATA}.features", words)


@_check(f"{_DATA}.target", f"{_DATA}.features")
def _features_target(spec: Spec) -> Iterator[Problem]:
    """`data.features` doesn't contain the target."""
    data = spec.training.data
    if data.target is not None and data.target in (data.features or ()):
        yield Problem(f"{_DATA}.features", "must not contain the target: the model would read the answer")


@_check(f"{_DATA}.source", f"{_DATA}.class", f"{_DATA}.args")
def _data_args(spec: Spec) -> Iterator[Problem]:
    """`data.args` are the arguments of `data.class`."""
    data = spec.training.data
    if data.args and data.reference is None:
        yield Problem(f"{_DATA}.args", "are the arguments of `class`; a `source` has none: leave them out")


@_check(f"{_DATA}.source", f"{_DATA}.batchSize", f"{_DATA}.split")
def _batch_rows(spec: Spec) -> Iterator[Problem]:
    """`data.batchSize` is at most the number of rows in the train split."""
    data = spec.training.data
    known = data.sklearn_set
    if known is not None and data.batch_size > known.rows * data.split.train + 1:
        yield Problem(f"{_DATA}.batchSize", f"is more than the train split of the {known.rows} rows")


# --- task ----------------------------------------------------------------------------------------------------------


@_check(f"{_TASK}.name", f"{_DATA}.source")
def _source_task(spec: Spec) -> Iterator[Problem]:
    """`task.name` fits the data set of scikit-learn; a folder of images is a classification."""
    data, name = spec.training.data, spec.training.task.name
    known = data.sklearn_set
    if known is not None and (known.classes is None) != (name == "regression"):
        right = "regression" if known.classes is None else "classification"
        yield Problem(f"{_TASK}.name", f"{data.source} is a {right}")
    if (data.source or "").startswith("images:") and name != "classification":
        yield Problem(f"{_TASK}.name", "a folder of images is a classification: a sub-folder's name is a class")


@_check(f"{_TASK}.name", f"{_TASK}.numClasses", f"{_DATA}.source")
def _num_classes(spec: Spec) -> Iterator[Problem]:
    """`task.numClasses` is the number of classes that the data has, and is for classification."""
    task, known = spec.training.task, spec.training.data.sklearn_set
    if task.num_classes is None:
        return
    if task.name != "classification":
        yield Problem(f"{_TASK}.numClasses", f"a {task.name} has no classes: leave it out")
    elif known is not None and known.classes not in (None, task.num_classes):
        yield Problem(f"{_TASK}.numClasses", f"{spec.training.data.source} has {known.classes} classes")


@_check(f"{_TASK}.name", f"{_TASK}.loss")
def _loss(spec: Spec) -> Iterator[Problem]:
    """`task.loss` is one for the task."""
    task = spec.training.task
    if task.loss is not None:
        yield from _of_task(task, task.loss, f"{_TASK}.loss.name")


@_check(f"{_TASK}.name", f"{_TASK}.metrics")
def _metrics(spec: Spec) -> Iterator[Problem]:
    """Each of `task.metrics` is one for the task, and no two have the same name."""
    task = spec.training.task
    seen: dict[str, int] = {}
    for index, metric in enumerate(task.metrics):
        path = f"{_TASK}.metrics[{index}]"
        yield from _of_task(task, metric, f"{path}.name")
        if metric.key in seen:
            yield Problem(path, f"has the name `{metric.key}` of metrics[{seen[metric.key]}]; a metric has one name")
        elif metric.FAMILY.get(metric.name) is None and metric.key in Task(name=task.name).metric_keys:
            yield Problem(path, f"has the name `{metric.key}`, which a metric of the task has already: rename it")
        seen.setdefault(metric.key, index)


def _of_task(task: Task, part: Loss | MetricPart, path: str) -> Iterator[Problem]:
    shipped = part.FAMILY.get(part.name)
    if shipped is not None and shipped.tasks and task.name not in shipped.tasks:
        fitting = [each.name for each in part.FAMILY if task.name in each.tasks]
        yield Problem(path, f"is for {' and '.join(shipped.tasks)}; for {task.name} there are {', '.join(fitting)}")


# --- model, schedule -----------------------------------------------------------------------------------------------


@_check(_MODEL, f"{_DATA}.source", f"{_DATA}.imageSize", f"{_DATA}.channels")
def _model_shape(spec: Spec) -> Iterator[Problem]:
    """A model for images gets images, whose side its patches divide and its blocks can halve."""
    data = spec.training.data
    if data.sklearn_set is not None:
        shape = data.sklearn_set.shape
    elif (data.source or "").startswith("images:"):
        shape = (data.channels, data.image_size, data.image_size)
    elif data.is_table:
        shape = (len(data.features) if data.features else 1,)
    else:
        return
    found = shape_problem(spec.training.model, shape)
    if found is not None:
        yield Problem(f"{_MODEL}.{found[0]}", found[1])


@_check("spec.training.schedule.warmup", "spec.training.schedule.name", "spec.training.loop.duration")
def _warmup(spec: Spec) -> Iterator[Problem]:
    """`schedule.warmup` isn't longer than the whole run."""
    schedule, duration = spec.training.schedule, spec.training.loop.duration
    (part, part_unit), (whole, unit) = parse_count(schedule.warmup), parse_count(duration)
    if part_unit == unit and part > whole:
        yield Problem("spec.training.schedule.warmup", f"is longer than the whole run, {duration}")


@_check("spec.training.schedule.name", "spec.training.schedule.minLrRatio")
def _min_lr_ratio(spec: Spec) -> Iterator[Problem]:
    """`schedule.minLrRatio` is for a schedule that lowers the learning rate."""
    schedule = spec.training.schedule
    if schedule.name == "constant" and schedule.min_lr_ratio:
        words = "schedule constant stays at the peak: leave it out, or take cosine, linear or plateau"
        yield Problem("spec.training.schedule.minLrRatio", words)


# --- metrics that are watched --------------------------------------------------------------------------------------


@_check("spec.training.schedule", _TASK)
def _schedule_metric(spec: Spec) -> Iterator[Problem]:
    """The metric of `schedule` plateau is one of the task's."""
    if spec.training.schedule.name == "plateau":
        metric = spec.training.schedule.typed_args(PlateauArgs).metric
        yield from _is_metric(spec.training.task, metric, "spec.training.schedule.args.metric")


@_check("spec.training.loop.earlyStopping", _TASK)
def _stopping_metric(spec: Spec) -> Iterator[Problem]:
    """`loop.earlyStopping.metric` is one of the task's."""
    early = spec.training.loop.early_stopping
    if early is not None:
        yield from _is_metric(spec.training.task, early.metric, "spec.training.loop.earlyStopping.metric")


@_check("spec.checkpoint.metric", _TASK)
def _checkpoint_metric(spec: Spec) -> Iterator[Problem]:
    """`checkpoint.metric` is one of the task's."""
    yield from _is_metric(spec.training.task, spec.checkpoint.metric, "spec.checkpoint.metric")


def _is_metric(task: Task, metric: str, path: str) -> Iterator[Problem]:
    known = [f"val/{key}" for key in task.metric_keys]
    if metric not in known:
        words = f"must be a metric of the task: {', '.join(known)}"
        yield Problem(path, words, hint=_nearest(metric, known))


# --- storage -------------------------------------------------------------------------------------------------------


@_check("spec.storage")
def _s3_only(spec: Spec) -> Iterator[Problem]:
    """`storage.endpoint` and `storage.credentialsSecret` are for S3."""
    storage = spec.storage
    if storage.uri is None or storage.uri.startswith("s3://"):
        return
    for key, value in (("endpoint", storage.endpoint), ("credentialsSecret", storage.credentials_secret)):
        if value is not None:
            words = "is for S3 only, and storage.uri is a path: leave it out, or give the uri as s3://bucket/prefix"
            yield Problem(f"spec.storage.{key}", words)


def _nearest(value: str, known: list[str]) -> str:
    near = difflib.get_close_matches(value.lower(), known, n=1)
    return f"did you mean `{near[0]}`?" if near else ""
