"""CSV and Parquet: read whole and checked whole, so that a broken row shows before the first step, with its number."""

from __future__ import annotations

from trainmaster_trainer.data.tables.read import read_table
from trainmaster_trainer.data.tables.rows import PlannedRows, TableRows

from .base import Request


def build(request: Request) -> PlannedRows:
    """Return the rows of a table: numbers, or tokens where a column has the role text.

    Raises:
        DataError: With everything that is wrong with roles, and the first ten cells that can't be used.
    """
    table = read_table(request.files(), request.data)
    if not request.data.text_columns:
        return TableRows(table, request.data, request.task)
    from trainmaster_trainer.data.text.rows import TextRows  # not for every table: it imports tokenizers

    return TextRows(table, request.data, request.task)
