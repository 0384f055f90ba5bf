"""CSV and Parquet: read whole and checked whole, so that a broken row shows before the first step, with its number."""

from __future__ import annotations

from trainmaster_trainer.data.tables.join import join
from trainmaster_trainer.data.tables.read import read_table
from trainmaster_trainer.data.tables.rows import TableRows

from .base import Request


def build(request: Request) -> TableRows:
    """Return the rows of a table: those of `source`, then those of the sources of single splits.

    Raises:
        DataError: With everything that is wrong with roles, and the first ten cells that can't be used.
    """
    tables = {field: read_table(each.files(), each.data) for field, each in request.every().items()}
    own = tuple(len(tables[field]) if field in tables else 0 for field in ("validationSource", "testSource"))
    return TableRows(join(tables), request.data, request.task, own)
