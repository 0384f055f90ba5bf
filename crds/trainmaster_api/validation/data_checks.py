"""Rules for `spec.training.data` that depend on what the source is."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from trainmaster_api.spec.cache import Cache
from trainmaster_api.spec.data import SKLEARN_SETS, Data
from trainmaster_api.spec.job import Spec
from trainmaster_api.spec.text import Text

from .check import Check, registering
from .problem import Problem

DATA_CHECKS: list[Check] = []
_DATA, _TASK = "spec.training.data", "spec.training.task"
_check = registering(DATA_CHECKS)


def _is_named(data: Data) -> bool:
    return data.source is not None and data.source.startswith(("sklearn:", "images:"))


def _is_images(data: Data) -> bool:
    return (data.source or "").startswith("images:")


def _has_no_columns(data: Data) -> bool:
    return _is_named(data) or data.reference is not None


_BY_COLUMN = ("group", "time", "column")


@_check(f"{_DATA}.source", f"{_DATA}.format")
def _source_kind(spec: Spec) -> Iterator[Problem]:
    """`data.source` must be `sklearn:<name>`, `images:<folder>`, or a table: by its ending, or by `data.format`."""
    data = spec.training.data
    if data.source is not None and not _is_named(data) and not data.is_table:
        words = (
            "must be `sklearn:<name>`, `images:<folder>`, or the address of a table that ends in .csv, .tsv, "
            ".jsonl or .parquet (text also .gz, .zst); for a folder of files, set `data.format`"
        )
        yield Problem(f"{_DATA}.source", words)


@_check(f"{_DATA}.source")
def _source_scheme(spec: Spec) -> Iterator[Problem]:
    """`data.source` must be a path or an s3:// address."""
    source = spec.training.data.source or ""
    if "://" in source and not source.startswith(("s3://", "images:s3://")):
        yield Problem(f"{_DATA}.source", "is read from a path or from s3://; copy the data to one of them")


@_check(f"{_DATA}.source")
def _source_sklearn(spec: Spec) -> Iterator[Problem]:
    """`sklearn:` must be followed by the name of a supported scikit-learn data set."""
    data = spec.training.data
    if data.source is not None and data.source.startswith("sklearn:") and data.sklearn_set is None:
        known = [f"sklearn:{name}" for name in SKLEARN_SETS]
        words = f"unknown data set; scikit-learn's are {', '.join(known)}"
        yield Problem(f"{_DATA}.source", words, hint=nearest(data.source, known))


@_check(f"{_DATA}.source", f"{_DATA}.target")
def _target(spec: Spec) -> Iterator[Problem]:
    """`data.target` is required for tables, and not accepted for other sources."""
    data = spec.training.data
    if data.is_table and data.target is None:
        yield Problem(f"{_DATA}.target", "is required: a table needs `target`, the column to predict")
    if not data.is_table and data.target is not None and (_is_named(data) or data.reference is not None):
        words = "only a table has a `target`; this source has its own labels: remove it"
        yield Problem(f"{_DATA}.target", words)


@_check(f"{_DATA}.source", f"{_DATA}.format")
def _format(spec: Spec) -> Iterator[Problem]:
    """`data.format` is accepted for tables only, and must be the format that the name of a file says."""
    data = spec.training.data
    if data.format is None:
        return
    if not data.is_table:
        yield Problem(f"{_DATA}.format", "only a table has a `format`: remove it")
        return
    by_name = data.model_copy(update={"format": None}).table_format
    if by_name is not None and by_name != data.format and {by_name, data.format} != {"csv", "tsv"}:
        yield Problem(f"{_DATA}.format", f"the source is named as {by_name}: remove `format`, or rename the files")


@_check(f"{_DATA}.source", f"{_DATA}.features")
def _features(spec: Spec) -> Iterator[Problem]:
    """`data.features` is accepted for tables only."""
    data = spec.training.data
    if data.features is not None and (_is_named(data) or data.reference is not None):
        words = "only a table has columns to select `features` from: remove it"
        yield Problem(f"{_DATA}.features", words)


@_check(f"{_DATA}.source", f"{_DATA}.categories")
def _categories(spec: Spec) -> Iterator[Problem]:
    """`data.categories` is accepted for tables only."""
    data = spec.training.data
    if data.categories != "oneHot" and _has_no_columns(data):
        yield Problem(f"{_DATA}.categories", "only a table has columns of categories: remove it")


@_check(f"{_DATA}.target", f"{_DATA}.features")
def _features_target(spec: Spec) -> Iterator[Problem]:
    """`data.features` must not contain the target."""
    data = spec.training.data
    if data.target is not None and data.target in (data.features or ()):
        yield Problem(f"{_DATA}.features", "must not contain the target: the model would see the answer")


@_check(f"{_DATA}.source", f"{_DATA}.class", f"{_DATA}.args")
def _data_args(spec: Spec) -> Iterator[Problem]:
    """`data.args` is accepted together with `data.class` only."""
    data = spec.training.data
    if data.args and data.reference is None:
        yield Problem(f"{_DATA}.args", "are the arguments of `class`; a `source` takes none: remove them")


@_check(f"{_DATA}.source", f"{_DATA}.batchSize", f"{_DATA}.split")
def _batch_rows(spec: Spec) -> Iterator[Problem]:
    """`data.batchSize` must be at most the number of rows in the train split."""
    data = spec.training.data
    known = data.sklearn_set
    if known is not None and data.batch_size > data.largest_batch:
        yield Problem(f"{_DATA}.batchSize", f"is larger than the train split of the {known.rows} rows")


@_check(f"{_DATA}.split.by", f"{_DATA}.source")
def _split_by(spec: Spec) -> Iterator[Problem]:
    """`data.split.by` group, time and column are accepted for tables only."""
    data, by = spec.training.data, spec.training.data.split.by
    if by in _BY_COLUMN and _has_no_columns(data):
        yield Problem(f"{_DATA}.split.by", f"`{by}` needs a table with columns; use random or stratified")


@_check(f"{_DATA}.split.by", f"{_TASK}.name")
def _split_stratified(spec: Spec) -> Iterator[Problem]:
    """`data.split.by: stratified` is accepted for classification only."""
    name = spec.training.task.name
    if spec.training.data.split.by == "stratified" and name != "classification":
        words = f"`stratified` divides each class, and a {name} has none: use random, group, time or column"
        yield Problem(f"{_DATA}.split.by", words)


@_check(f"{_DATA}.split", f"{_DATA}.columns", f"{_DATA}.source")
def _split_column(spec: Spec) -> Iterator[Problem]:
    """`data.split.column` is required with `by` time, column and, without a column of the role group, group."""
    data, split = spec.training.data, spec.training.data.split
    if _has_no_columns(data) and split.by in _BY_COLUMN:
        return
    if split.column is not None and split.by not in _BY_COLUMN:
        words = "is the column of `split.by` group, time or column: set `split.by`, or remove it"
        yield Problem(f"{_DATA}.split.column", words)
    groups = [name for name, column in data.columns.items() if column.role == "group"]
    if split.column is None and split.by == "group" and len(groups) != 1:
        has = f"columns {', '.join(groups)} have the role group" if groups else "no column has the role group"
        yield Problem(f"{_DATA}.split.column", f"is required with `by: group`, because {has} in data.columns")
    if split.column is None and split.by in ("time", "column"):
        yield Problem(f"{_DATA}.split.column", f"is required with `by: {split.by}`: the column that the split goes by")


@_check(f"{_DATA}.split", f"{_DATA}.target", f"{_DATA}.features")
def _split_not_trained(spec: Spec) -> Iterator[Problem]:
    """`data.split.column` must not be the target, nor, with `by: column`, a feature."""
    data, split = spec.training.data, spec.training.data.split
    if split.column is None or split.by not in _BY_COLUMN:
        return
    if split.column == data.target:
        yield Problem(f"{_DATA}.split.column", "must not be the target: a split would lack what the others have")
    elif split.by == "column" and split.column in (data.features or ()):
        yield Problem(f"{_DATA}.features", f"must not contain `{split.column}`, which says the split: remove it")


@_check(f"{_DATA}.validationSource", f"{_DATA}.testSource", f"{_DATA}.source", f"{_DATA}.format", f"{_DATA}.split")
def _own_sources(spec: Spec) -> Iterator[Problem]:
    """`data.validationSource` and `testSource` must be of the kind of `source` (table, images), and different."""
    data = spec.training.data
    seen = {data.source: "source"}
    for field, own in data.own_sources.items():
        path, other = f"{_DATA}.{field}", data.of_source(own)
        if data.source is None or data.sklearn_set is not None:
            what = "a `class` says all of its rows" if data.source is None else "this set is one"
            yield Problem(path, f"goes with a `source` that is a table or a folder of images, and {what}: remove it")
        elif (data.is_table, _is_images(data)) != (other.is_table, _is_images(other)):
            kind = "a folder of images (`images:<folder>`)" if _is_images(data) else "a table (.csv, .tsv or .parquet)"
            yield Problem(path, f"must be {kind}, as `source` is")
        elif "://" in own and not own.startswith(("s3://", "images:s3://")):
            yield Problem(path, "is read from a path or from s3://; copy the data to one of them")
        elif data.split.by == "column":
            yield Problem(path, "can't go with `split.by: column`, which says the split of every row: remove one")
        elif own in seen:
            yield Problem(path, f"is the same as `{seen[own]}`: the splits must have different rows")
        seen.setdefault(own, field)


@_check(f"{_DATA}.validationSource", f"{_DATA}.testSource", f"{_DATA}.split")
def _split_undivided(spec: Spec) -> Iterator[Problem]:
    """`data.split.by` is not accepted if each split has a source of its own."""
    data = spec.training.data
    if len(data.own_sources) == 2 and data.split.by not in (None, "column"):
        words = "has nothing to divide: `validationSource` and `testSource` are the other two splits; remove it"
        yield Problem(f"{_DATA}.split.by", words)


@_check(f"{_DATA}.dedupe", f"{_DATA}.source")
def _dedupe(spec: Spec) -> Iterator[Problem]:
    """`data.dedupe` is accepted for tables and images only."""
    data = spec.training.data
    if data.dedupe and _has_no_columns(data) and not _is_images(data):
        yield Problem(f"{_DATA}.dedupe", "is for tables and images only: remove it")


@_check(f"{_DATA}.text", f"{_DATA}.columns")
def _text(spec: Spec) -> Iterator[Problem]:
    """`data.text` is accepted with a column of the role `text` only."""
    data = spec.training.data
    if data.text != Text() and not data.text_columns:
        words = "is for a column with the role text, and data.columns declares none: declare it, or remove this"
        yield Problem(f"{_DATA}.text", words)


@_check(f"{_DATA}.columns", f"{_DATA}.source")
def _text_alone(spec: Spec) -> Iterator[Problem]:
    """A column of the role `text` can't be combined with other features, nor with an indicator."""
    data = spec.training.data
    if not data.text_columns:
        return
    for name, column in data.columns.items():
        if column.role not in (None, "text", "group", "ignore"):
            words = f"{name} ({column.role}) can't be combined with text ({data.text_columns[0]}): declare one ignore"
            yield Problem(f"{_DATA}.columns", words)
        if column.role == "text" and column.indicator:
            yield Problem(f"{_DATA}.columns", f"{name} is text, which has no indicator of missing values: remove it")


@_check(f"{_DATA}.cache", f"{_DATA}.source")
def _cache(spec: Spec) -> Iterator[Problem]:
    """`data.cache` is accepted for tables only."""
    data = spec.training.data
    if data.cache != Cache() and _has_no_columns(data):
        yield Problem(f"{_DATA}.cache", "is for tables only: remove it")


@_check(f"{_DATA}.sampling", f"{_TASK}.name")
def _sampling(spec: Spec) -> Iterator[Problem]:
    """`data.sampling: balanced` is accepted for classification only."""
    name = spec.training.task.name
    if spec.training.data.sampling == "balanced" and name != "classification":
        yield Problem(f"{_DATA}.sampling", f"`balanced` balances classes, and a {name} has none: remove it")


def nearest(value: str, known: list[str]) -> str:
    """Return a hint at the nearest known value, or nothing."""
    near = difflib.get_close_matches(value.lower(), known, n=1)
    return f"did you mean `{near[0]}`?" if near else ""
