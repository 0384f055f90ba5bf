"""Rows of a table with a column of images: the target and the split are the table's, the sample is an image."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.task import Task

from trainmaster_trainer.data.division import Division
from trainmaster_trainer.data.duplicates import row_ids
from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.data.tables.cache import CachedTable
from trainmaster_trainer.data.tables.encode import Encoder
from trainmaster_trainer.data.tables.report import make_report
from trainmaster_trainer.data.tables.results import Results
from trainmaster_trainer.data.tables.rows import SplitTable
from trainmaster_trainer.data.tables.table import Column, ColumnType, Table
from trainmaster_trainer.errors import DataError

from .column import ColumnContent, Place, image_cells, with_cells
from .copies import file_ids, two_classes
from .decode import Look
from .folder import check_images
from .rows import ImageRows


class ImageTableRows(SplitTable, ImageRows):
    """Images of a column.

    Args:
        table: As it was read, in memory or mapped from the cache.
        place: Where paths start.
        data: `spec.training.data`.
        task: Whether targets are classes or numbers.
        own: As for `SplitTable`.
        say: Takes a sentence on how far reading is, every few seconds.

    Attributes:
        report: What is said before the first step.

    Raises:
        DataError: A role doesn't fit, or images can't be read: the first ten at once.
    """

    def __init__(
        self,
        table: Table | CachedTable,
        place: Place,
        data: Data,
        task: Task,
        own: tuple[int, ...] = (0, 0),
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        assert data.image_column is not None
        self._cached = table if isinstance(table, CachedTable) else None
        table = table.table if isinstance(table, CachedTable) else table
        cells = image_cells(table, data.image_column)
        SplitTable.__init__(self, with_cells(table, cells), data, task, own, Results(self._cached, data, task))
        if cells is None:  # its role has said so
            raise DataError(f"{table.shown}: column {data.image_column} has no images")
        content = ColumnContent(table, cells, self.kept, place)
        notes = check_images(content, Look.of(data), say, full=data.images.check == "full")
        self._image = cells.name
        ImageRows.__init__(self, content, self.y, self.labels, data)
        self.notes = notes if self._cached is None else (*notes, self._cached.note)
        dropped = len(table) - len(self.kept)
        self.report = make_report(self.table, self.plans, Encoder(()), self.dropped, dropped)

    def check(self, division: Division) -> tuple[str, ...]:
        """Return the warnings of a table, and those of images that are in two classes."""
        found = (*SplitTable.check(self, division), *self.uncompared)
        classes = self.row_classes
        return found if classes is None else (*found, *two_classes(self.content, self.copy_ids(), classes))

    def table_ids(self, visit: Callable[[Column], None] = lambda _: None) -> Indices:
        """Return for each row of the table the number of the first one whose image has the same bytes."""
        found = np.arange(len(self.table), dtype=np.int64)
        found[self.kept] = self.kept[self.copy_ids()]
        return found

    def copy_ids(self) -> Indices:
        """Return for each row the number of the first one whose image has the same bytes."""
        return self._compared[0]

    @property
    def uncompared(self) -> list[str]:
        """Return why only paths were compared, if so."""
        return self._compared[1]

    @cached_property
    def _compared(self) -> tuple[Indices, list[str]]:
        """Equal cells first, which are paths or hashes of the bytes; then the files behind different paths."""
        column = self.table.column(self._image)
        cells = row_ids([column], len(self.table))[self.kept]
        _, first, group = np.unique(cells, return_index=True, return_inverse=True)
        if column.type is not ColumnType.TEXT:
            return first[group], []
        ids, uncompared = file_ids(self.content, np.sort(first), most=self.comparison.most)
        return ids[first[group]], uncompared

    def __getstate__(self) -> dict[str, Any]:
        """Return what a process is sent that reads images: this one holds the entry of the cache for it."""
        return {**self.__dict__, "_cached": None, "_results": Results()}

    def description(self) -> dict[str, Any]:
        """Return what the package and `data.json` say of the table."""
        return {"table": self.report.wire()}

    def summary(self) -> str:
        """Return the report as text."""
        return self.report.text()
