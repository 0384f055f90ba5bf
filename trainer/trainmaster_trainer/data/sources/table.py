"""CSV and Parquet: read whole and checked whole, so that a broken row shows before the first step, with its number."""

from __future__ import annotations

from trainmaster_trainer.data.images.column import Place
from trainmaster_trainer.data.prepared import Rows
from trainmaster_trainer.data.tables.read import read_table
from trainmaster_trainer.data.tables.rows import TableRows

from .base import Request


def build(request: Request) -> Rows:
    """Return the rows of a table: numbers, tokens where a column has the role text, images where one has that role.

    Raises:
        DataError: With everything that is wrong with roles, and the first ten cells that can't be used.
    """
    files, data = request.files(), request.data
    table = read_table(files, data)
    if data.text_columns:
        from trainmaster_trainer.data.text.rows import TextRows  # not for every table: it imports tokenizers

        return TextRows(table, data, request.task)
    if data.image_column is None:
        return TableRows(table, data, request.task)
    from trainmaster_trainer.data.images.table import ImageTableRows  # with torchvision

    place = Place.of(files, data, request.storage, request.base_dir, request.env)
    return ImageTableRows(table, place, data, request.task)
