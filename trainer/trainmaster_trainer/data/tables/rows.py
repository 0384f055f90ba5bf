"""A table's rows as the loop reads them: roles first, then the split, then the encoding that the train split fits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.task import Task

from trainmaster_trainer.data.checks import check
from trainmaster_trainer.data.division import Division, divide
from trainmaster_trainer.data.duplicates import dedupe, row_ids
from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.data.rows import FittedRows, TensorRows
from trainmaster_trainer.errors import DataError

from .arrow_files import mapping
from .cache import CachedTable, Progress
from .cells import is_missing, numbers
from .codes import Code
from .drift import Statistics, statistics_of
from .encode import Encoder, encode_target
from .keys import keys_of
from .report import ColumnReport, Encoding, Report, make_report
from .results import Results, to_json
from .roles import Planned, plan, planned_again, said_of_plans
from .table import Column, Table
from .unseen import unseen_in_splits


class SplitTable:
    """What all rows of a table have in common: their columns' roles, their targets, their split and its checks.

    Args:
        table: As it was read.
        data: `spec.training.data`.
        task: Whether targets are classes or numbers.
        own: How many of the last rows are the validation split, and how many after them the test split, because they
            come from sources of their own.
        results: Where what was found before is; nowhere by default.

    Attributes:
        plans: What becomes of each column.
        kept: Row numbers of the table that are rows here: all but those that `missing: drop` drops.
        dropped: Number of dropped rows by the column that lacks a value; one row may lack several.
        y: Target of each row: int64 classes, or float64 numbers.
        labels: Names of the classes.

    Raises:
        DataError: A role doesn't fit, a cell can't be used, or no row is left.
    """

    def __init__(
        self, table: Table, data: Data, task: Task, own: tuple[int, ...] = (0, 0), results: Results | None = None
    ) -> None:
        self.table, self._own, self._results = table, own, results or Results()
        self.plans = self._results.get(
            "roles", lambda: self._planned(data, task), said_of_plans, lambda said: planned_again(said, table, data)
        )
        self.kept, self.dropped = _kept(table, self.plans)
        self._target = next(each.column for each in self.plans if each.role == "target")
        self._time = data.split.column
        y, self.labels = encode_target(self._target, task)
        self.y = torch.from_numpy(y if self._is_whole else y[self.kept])
        weight = next((each.column for each in self.plans if each.role == "weight"), None)
        self.weights = None if weight is None else torch.from_numpy(numbers(weight)[self.kept])

    def _planned(self, data: Data, task: Task) -> tuple[Planned, ...]:
        self._results.say("deciding the roles of")
        return plan(self.table, data, task)

    @property
    def _is_whole(self) -> bool:
        """Whether every row stays: then nothing of the length of the table has to be copied."""
        return len(self.kept) == len(self.table)

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
        return dedupe(found, self.table_ids()[self.kept])

    def table_ids(self, visit: Callable[[Column], None] = lambda _: None) -> Indices:
        """Return for each row of the table the number of the first one that is a copy: of all features and the target.

        Rows that are dropped may have any.

        Args:
            visit: As for `row_ids`.
        """
        columns = [self._target, *(each.column for each in self.plans if each.is_feature)]
        return row_ids(columns, len(self.table), visit)

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
        return self._findings(division)

    def _findings(self, division: Division) -> tuple[str, ...]:
        """Look for what `check` returns."""
        self._results.say("checking")
        numbered = self._numbered(division)
        features = [each.column.name for each in self.plans if each.is_feature]
        group = next((each for each in self.plans if each.role == "group"), None)
        found = check(
            self.table,
            self._target.name,
            features,
            numbered,
            self.table_ids,
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
        if self._is_whole:
            return division
        train, validation, test = (self.kept[part] for part in division.parts)
        return Division(train, validation, test, division.by)


class PlannedRows(SplitTable, FittedRows):
    """Rows of a table whose samples are made with what the train split says; how is up to the subclass.

    All that is found in them is in the table.
    """

    def check(self, division: Division) -> tuple[str, ...]:
        """Return the warnings of every table; those that were found before are not looked for again."""
        return self._results.get(
            "checks", lambda: self._findings(division), to_json, _texts, *(part.data for part in division.parts)
        )

    def table_ids(self, visit: Callable[[Column], None] = lambda _: None) -> Indices:
        """Return for each row of the table the number of the first one that is a copy."""
        make = partial(super().table_ids, visit)
        return self._results.get("copies", make, _copies, lambda said: _ids(said, len(self.table)))

    def _reported(self, encoder: Encoding, depends: bytes, plans: Sequence[Planned] | None = None) -> Report:
        """Describe the columns.

        Args:
            encoder: Fitted on the train split.
            depends: What stands for it.
            plans: What becomes of each column, where notes were added.
        """
        asked = plans or self.plans
        dropped = len(self.table) - len(self.kept)

        def make() -> tuple[ColumnReport, ...]:
            self._results.say("describing")
            return make_report(self.table, asked, encoder, self.dropped, dropped).columns

        columns = self._results.get(
            "columns",
            make,
            lambda found: to_json([asdict(each) for each in found]),
            lambda said: tuple(ColumnReport(**each | {"notes": tuple(each["notes"])}) for each in json.loads(said)),
            depends,
            to_json([each.column.notes for each in asked]),
        )
        shown = self.table
        return Report(shown.shown, len(shown), dropped, self.dropped, shown.dialect, columns, shown.left_out)


class TableRows(TensorRows, PlannedRows):
    """Rows of a table whose columns are encoded as numbers.

    Args:
        table: As it was read, in memory or mapped from the cache.
        data: `spec.training.data`.
        task: Whether targets are classes or numbers.
        own: As for `SplitTable`.

    Attributes:
        in_memory: Whether `x` has the samples; else they are mapped from a file of the cache.
        encoder: Fitted by `fit`.
        report: What is said before the first step; made by `fit`.

    Raises:
        DataError: A role doesn't fit, a cell can't be used, or no row is left.
    """

    encoder: Encoder
    report: Report
    categories: tuple[tuple[int, int], ...] = ()

    def __init__(self, table: Table | CachedTable, data: Data, task: Task, own: tuple[int, ...] = (0, 0)) -> None:
        self._cached = table if isinstance(table, CachedTable) else None
        self.in_memory = self._cached is None
        self._mapped: npt.NDArray[np.float32] | None = None
        table = table.table if isinstance(table, CachedTable) else table
        PlannedRows.__init__(self, table, data, task, own, Results(self._cached, data, task))
        self.normalize, self._is_index = data.normalize, data.categories == "index"
        TensorRows.__init__(self, torch.zeros(len(self.kept), 0), self.y, self.labels, [])

    def _findings(self, division: Division) -> tuple[str, ...]:
        """Return the warnings of every table, and the categories that the train split doesn't have; after `fit`."""
        unseen = unseen_in_splits(self.encoder, self.table, self._numbered(division))
        return (*super()._findings(division), *unseen)

    def fit(self, train: Indices) -> None:
        """Fit the encoding on the train split and encode every row."""
        self._train = train if self._is_whole else self.kept[train]
        self.encoder = self._results.get(
            "encoder",
            self._measured,
            lambda found: to_json(found.wire()),
            lambda said: Encoder.read(json.loads(said)),
            self._train.data,
        )
        self.categories, self.features = self.encoder.categories, self.encoder.features
        self.shape = (len(self.features),)
        if self._cached is None:
            self.x = torch.from_numpy(self.encoder.matrix(self.table, None if self._is_whole else self.kept))
        else:
            self._mapped = self._encoded(self._cached)
            self.notes = (*self.notes, self._cached.note)
        self.report = self._reported(self.encoder, to_json(self.encoder.wire()))

    def _measured(self) -> Encoder:
        self._results.say("measuring")
        found: list[Statistics] = []

        def visit(code: Code, column: Column) -> None:
            if self._cached is not None:  # in memory, they are found when they are asked for
                found.append(Statistics.fit(code, column, self._train))

        encoder = Encoder.fit(self.plans, self._train, normalize=self.normalize, is_index=self._is_index, visit=visit)
        if found:
            self._statistics(tuple(found))
        return encoder

    def batch(self, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Return rows by number."""
        if self._mapped is None:
            return super().batch(indices)
        return torch.from_numpy(self._mapped[indices]), self.y[torch.from_numpy(indices)]

    def _encoded(self, cached: CachedTable) -> npt.NDArray[np.float32]:
        """Return the samples, mapped from a file that is written first where it isn't there."""
        width, rows = len(self.features), len(self.kept)
        made_of = hashlib.sha256(json.dumps([self.encoder.wire(), len(self.table)]).encode())
        made_of.update(self.kept.data)
        progress = Progress(cached.say, f"encoding {self.table.shown}")

        def write(path: Path) -> None:
            done = path.stat().st_size // (4 * width) if path.exists() else 0
            with path.open("r+b" if path.exists() else "wb") as file:
                file.truncate(done * 4 * width)  # the last row may be cut off, where a process was killed
                file.seek(0, 2)
                for block in self.encoder.blocks(self.table, self.kept, done):
                    file.write(block.data)
                    done += len(block)
                    progress.at(done * 4 * width, rows * 4 * width)

        path = cached.file(f"features-{made_of.hexdigest()[:16]}", ".f32", rows * width * 4, write)
        return np.frombuffer(mapping(path), np.float32).reshape(rows, width)

    def description(self) -> dict[str, Any]:
        """Return what the package and `data.json` say of the table: its columns, their encoding, the train split."""
        wire = [each.wire() for each in self._statistics()]
        return {"table": self.report.wire(), "encoder": self.encoder.wire(), "statistics": wire}

    def _statistics(self, found: tuple[Statistics, ...] | None = None) -> tuple[Statistics, ...]:
        """Return the statistics of the train split.

        Args:
            found: They are known already.
        """
        return self._results.get(
            "statistics",
            lambda: found or statistics_of(self.encoder, self.table, self._train),
            lambda found: to_json([each.wire() for each in found]),
            lambda said: tuple(Statistics.read(each) for each in json.loads(said)),
            self._train.data,
        )

    def summary(self) -> str:
        """Return the report as text."""
        return self.report.text()


def _texts(said: bytes) -> tuple[str, ...]:
    return tuple(json.loads(said))


def _copies(ids: Indices) -> bytes:
    """Return the rows that are copies, and of which: few, so that not all rows have to be stored."""
    rows = np.flatnonzero(ids != np.arange(len(ids)))
    return np.stack([rows, ids[rows]]).astype(np.int64).tobytes()


def _ids(said: bytes, rows: int) -> Indices:
    found = np.arange(rows, dtype=np.int64)
    copies, firsts = np.frombuffer(said, np.int64).reshape(2, -1)
    found[copies] = firsts
    return found


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
