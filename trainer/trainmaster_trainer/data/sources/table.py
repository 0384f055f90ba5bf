"""CSV and Parquet: read whole and checked whole, so that a broken row shows before the first step, with its number."""

from __future__ import annotations

from trainmaster_trainer.data.images.column import Place
from trainmaster_trainer.data.rows import Rows
from trainmaster_trainer.data.tables.cache import open_tables
from trainmaster_trainer.data.tables.rows import TableRows
from trainmaster_trainer.errors import ConfigurationError

from .base import Request


def build(request: Request) -> Rows:
    """Return the rows of a table: those of `source`, then those of the sources of single splits.

    They are numbers, tokens where a column has the role text, images where one has that role.

    Raises:
        DataError: With everything that is wrong with roles, and the first ten cells that can't be used.
    """
    data, asked = request.data, request.every()
    sources = {field: (each.files(), each.data) for field, each in asked.items()}
    table, lengths = open_tables(sources, request.env, request.say)
    own = tuple(lengths.get(field, 0) for field in ("validationSource", "testSource"))
    if data.text_columns:
        from trainmaster_trainer.data.text.rows import TextRows  # not for every table: it imports tokenizers

        return TextRows(table, data, request.task, own)
    if data.image_column is None:
        return TableRows(table, data, request.task, own)
    from trainmaster_trainer.data.images.table import ImageTableRows  # with torchvision

    places = [Place.of(each.files(), data, request.storage, request.base_dir, request.env) for each in asked.values()]
    if len({(place.files.store, place.folder) for place in places}) > 1:
        raise ConfigurationError(
            "data.validationSource and data.testSource are in other folders than data.source, and paths of images are "
            "relative to the folder of their table; set data.images.root"
        )
    return ImageTableRows(table, places[0], data, request.task, own, request.say)
