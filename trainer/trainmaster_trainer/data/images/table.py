"""Rows of a table with a column of images: the target and the split are the table's, the sample is an image."""

from __future__ import annotations

from typing import Any

from trainmaster_api.spec.data import Data
from trainmaster_api.spec.task import Task

from trainmaster_trainer.data.tables.encode import Encoder
from trainmaster_trainer.data.tables.report import make_report
from trainmaster_trainer.data.tables.rows import SplitTable
from trainmaster_trainer.data.tables.table import Table
from trainmaster_trainer.errors import DataError

from .column import ColumnContent, Place, image_cells, with_cells
from .decode import Look
from .folder import check_images
from .rows import ImageRows


class ImageTableRows(SplitTable, ImageRows):
    """Images of a column.

    Args:
        table: As it was read.
        place: Where paths start.
        data: `spec.training.data`.
        task: Whether targets are classes or numbers.

    Attributes:
        report: What is said before the first step.

    Raises:
        DataError: A role doesn't fit, or images can't be read: the first ten at once.
    """

    def __init__(self, table: Table, place: Place, data: Data, task: Task, own: tuple[int, ...] = (0, 0)) -> None:
        assert data.image_column is not None
        cells = image_cells(table, data.image_column)
        SplitTable.__init__(self, with_cells(table, cells), data, task, own)
        if cells is None:  # its role has said so
            raise DataError(f"{table.shown}: column {data.image_column} has no images")
        content = ColumnContent(table, cells, self.kept, place)
        notes = check_images(content, Look.of(data), full=data.images.check == "full")
        ImageRows.__init__(self, content, self.y, self.labels, data)
        self.notes = notes
        dropped = len(table) - len(self.kept)
        self.report = make_report(self.table, self.plans, Encoder(()), self.dropped, dropped)

    def description(self) -> dict[str, Any]:
        """Return what the package and `data.json` say of the table."""
        return {"table": self.report.wire()}

    def summary(self) -> str:
        """Return the report as text."""
        return self.report.text()
