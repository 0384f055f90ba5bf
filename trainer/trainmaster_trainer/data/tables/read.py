"""Reading with pyarrow's defaults."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from trainmaster_api.spec.data import Data

from trainmaster_trainer.data.files import Files
from trainmaster_trainer.errors import DataError

from .table import ARROW, Column, ColumnType, Part, Table


def read_table(files: Files, data: Data) -> Table:
    """Read the files of a source as a table.

    Raises:
        DataError: They can't be read, or have no rows.
    """
    content = io.BytesIO(files.read())
    is_parquet = files.name.lower().endswith(".parquet")
    try:
        if is_parquet:
            found = pa.parquet.read_table(content)
        else:
            options = pa.csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)
            found = pa.csv.read_csv(content, convert_options=options)
    except (pa.ArrowException, OSError) as error:
        kind = "Parquet" if is_parquet else "CSV"
        raise DataError(f"{files.shown} can't be read as {kind}: {str(error).strip().splitlines()[0]}") from error
    if len(found) == 0:
        raise DataError(f"{files.shown} has no rows")
    columns = tuple(_column(name, found[name]) for name in found.column_names)
    return Table(files.shown, columns, (Part(files.name, len(found)),), {})


def _column(name: str, values: pa.ChunkedArray) -> Column:
    is_type, kind = pa.types, ColumnType.OTHER
    if is_type.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    for test, candidate in (
        (is_type.is_boolean, ColumnType.BOOLEAN),
        (is_type.is_integer, ColumnType.INTEGER),
        (is_type.is_floating, ColumnType.NUMBER),
        (is_type.is_timestamp, ColumnType.TIME),
        (is_type.is_date, ColumnType.TIME),
        (is_type.is_string, ColumnType.TEXT),
        (is_type.is_large_string, ColumnType.TEXT),
        (is_type.is_binary, ColumnType.BYTES),
        (is_type.is_null, ColumnType.EMPTY),
    ):
        if test(values.type):
            kind = candidate
    return Column(name, kind, values if kind is ColumnType.OTHER else values.cast(ARROW[kind], safe=False))
