"""CSV and Parquet: read whole and checked whole, so that a broken row shows before the first step, with its number."""

from __future__ import annotations

from trainmaster_trainer.data.tables.cache import open_table
from trainmaster_trainer.data.tables.rows import TableRows

from .base import Request


def build(request: Request) -> TableRows:
    """Return the rows of a table.

    Raises:
        DataError: With everything that is wrong with roles, and the first ten cells that can't be used.
    """
    found = open_table(request.files(), request.data, request.env, request.say)
    return TableRows(found, request.data, request.task)
