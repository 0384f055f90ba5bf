"""A table's rows as the loop reads them: roles first, then the split, then the encoding that the train split fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.task import Task

from trainmaster_trainer.data.checks import check
from trainmaster_trainer.data.division import Division, divide
from trainmaster_trainer.data.duplicates import dedupe, row_ids
from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.data.prepared import FittedRows, TensorRows
from trainmaster_trainer.errors import DataError

from .cells import is_missing, numbers
from .drift import statistics_of
from .encode import Encoder, encode_target
from .keys import keys_of
from .report import Report, make_report
from .roles import Planned, plan
from .table import Table
from .unseen import unseen_in_splits


class SplitTable:
    """What all rows of a table have in common: their columns' roles, their targets, their split and its checks.

    Args:
        table: As it was read.
        data: `spec.training.data`.
        task: Whether targets are classes or numbers.
        own: How many of the last rows are the validation split, and how many after them the test split, because they
            come from sources of their own.

    Attributes:
        plans: What becomes of each column.
        kept: Row numbers of the table that are rows here: all but those that `missing: drop` drops.
        dropped: Number of dropped rows by the column that lacks a value; one row may lack several.
        y: Target of each row: int64 classes, or float64 numbers.
        labels: Names of the classes.

    Raises:
        DataError: A role doesn't fit, a cell can't be used, or no row is left.
    """

    def __init__(self, table: Table, data: Data, task: Task, own: tuple[int, ...] = (0, 0)) -> None:
        self.table, self._own = table, own
        self.plans = plan(table, data, task)
        self.kept, self.dropped = _kept(table, self.plans)
        self._target = next(each.column for each in self.plans if each.role == "target")
        self._time = data.split.column
        y, self.labels = encode_target(self._target, task)
        self.y = torch.from_numpy(y[self.kept])
        weight = next((each.column for each in self.plans if each.role == "weight"), None)
        self.weights = None if weight is None else torch.from_numpy(numbers(weight)[self.kept])

    @property
    def row_classes(self) -> Indices | None:
        """Return the class of each row; None for regression."""
        return None if self.y.is_floating_point() else self.y.numpy()

    def divide(self, data: Data) -> Division:
        """Return the split that the job asks for, in numbers of the rows that stay."""
        keys = keys_of(self.table, data, validation_rows=self._own[0], test_rows=self._own[1])
        values = None if keys.values is None else keys.values[self.kept]
        validation_rows, test_rows = self._own_rows()
        keys = replace(
            keys,
            rows=len(self.kept),
            classes=self.row_classes,
            class_names=self.labels,
            values=values,
            where=lambda row: self.table.where(int(self.kept[row])),
            validation_rows=validation_rows,
            test_rows=test_rows,
        )
        found = divide(data.split, keys)
        if not data.dedupe:
            return found
        columns = [self._target, *(each.column for each in self.plans if each.is_feature)]
        return dedupe(found, row_ids(columns, len(self.table))[self.kept])

    def _own_rows(self) -> tuple[int, int]:
        """Return how many of the rows that stay come from sources of single splits.

        Raises:
            DataError: Every row of a source is dropped.
        """
        ends = np.cumsum([len(self.table) - sum(self._own), *self._own])
        counts = np.diff(np.searchsorted(self.kept, ends), prepend=0).tolist()
        fields = ("source", "validationSource", "testSource")
        for field, rows, left in zip(fields, (int(ends[0]), *self._own), counts, strict=True):
            if rows and not left:
                raise DataError(
                    f"{self.table.shown}: missing values in {', '.join(self.dropped)} drop all {rows:,} rows of "
                    f"data.{field}; set missing of some columns to impute, or declare them ignore in data.columns"
                )
        return counts[1], counts[2]

    def check(self, division: Division) -> tuple[str, ...]:
        """Return what may give the target away, or makes a split worth less than it looks; after `fit`.

        Raises:
            DataError: The target is among the features.
        """
        numbered = self._numbered(division)
        features = [each.column.name for each in self.plans if each.is_feature]
        group = next((each for each in self.plans if each.role == "group"), None)
        found = check(
            self.table,
            self._target.name,
            features,
            numbered,
            is_classification=bool(self.labels),
            group=None if group is None else group.column.name,
            time=self._time if division.by == "time" else None,
        )
        refused = [finding.sentence for finding in found if finding.severity == "refuse"]
        if refused:
            raise DataError(f"{self.table.shown}: " + "; ".join(refused))
        return tuple(each.sentence for each in found)

    def _numbered(self, division: Division) -> Division:
        """Return a split in numbers of the table's rows."""
        train, validation, test = (self.kept[part] for part in division.parts)
        return Division(train, validation, test, division.by)


class PlannedRows(SplitTable, FittedRows):
    """Rows of a table whose samples are made with what the train split says; how is up to the subclass."""


class TableRows(TensorRows, PlannedRows):
    """Rows of a table whose columns are encoded as numbers.

    Args:
        table: As it was read.
        data: `spec.training.data`.
        task: Whether targets are classes or numbers.

    Attributes:
        encoder: Fitted by `fit`.
        report: What is said before the first step; made by `fit`.

    Raises:
        DataError: A role doesn't fit, a cell can't be used, or no row is left.
    """

    encoder: Encoder
    report: Report
    categories: tuple[tuple[int, int], ...] = ()

    def __init__(self, table: Table, data: Data, task: Task, own: tuple[int, ...] = (0, 0)) -> None:
        PlannedRows.__init__(self, table, data, task, own)
        self.normalize, self._is_index = data.normalize, data.categories == "index"
        TensorRows.__init__(self, torch.zeros(len(self.kept), 0), self.y, self.labels, [])

    def check(self, division: Division) -> tuple[str, ...]:
        """Return the warnings of every table, and the categories that the train split doesn't have; after `fit`."""
        unseen = unseen_in_splits(self.encoder, self.table, self._numbered(division))
        return (*super().check(division), *unseen)

    def fit(self, train: Indices) -> None:
        """Fit the encoding on the train split and encode every row."""
        self._train = self.kept[train]
        self.encoder = Encoder.fit(self.plans, self._train, normalize=self.normalize, is_index=self._is_index)
        self.categories = self.encoder.categories
        kept = self.kept if len(self.kept) < len(self.table) else None
        self.x = torch.from_numpy(self.encoder.matrix(self.table, kept))
        self.shape, self.features = tuple(self.x.shape[1:]), self.encoder.features
        self.report = make_report(self.table, self.plans, self.encoder, self.dropped, len(self.table) - len(self.kept))

    def description(self) -> dict[str, Any]:
        """Return what the package and `data.json` say of the table: its columns, their encoding, the train split."""
        statistics = [each.wire() for each in statistics_of(self.encoder, self.table, self._train)]
        return {"table": self.report.wire(), "encoder": self.encoder.wire(), "statistics": statistics}

    def summary(self) -> str:
        """Return the report as text."""
        return self.report.text()


def _kept(table: Table, plans: tuple[Planned, ...]) -> tuple[Indices, dict[str, int]]:
    """Return the rows that stay, and how many values are missing in columns whose rows are dropped."""
    stays = np.ones(len(table), dtype=np.bool_)
    dropped: dict[str, int] = {}
    for planned in plans:
        if planned.missing == "drop" and planned.nulls:
            absent = is_missing(planned.column)
            stays &= ~absent
            dropped[planned.column.name] = int(absent.sum())
    if not stays.any():
        raise DataError(
            f"{table.shown}: missing values in {', '.join(dropped)} drop all {len(table):,} rows; set missing of some "
            "columns to impute, or declare them ignore in data.columns"
        )
    return np.flatnonzero(stays).astype(np.int64), dropped
