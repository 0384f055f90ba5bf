"""Parts of `spec.training.data` for tables: how text is read, and what the columns are for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainmaster_api.types import Model

ColumnName = Annotated[str, Field(min_length=1, max_length=253)]
Role = Literal["numeric", "boolean", "categorical", "datetime", "text", "image", "group", "weight", "ignore"]
Missing = Literal["error", "impute", "drop"]

NULL_WORDS = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "#N/A")
"""Cells of a text file that are null, unless `data.nulls` says otherwise. A quoted word is text, never null."""


class Csv(Model):
    """How CSV and TSV files are read. What isn't declared is recognised, and the result is shown and stored."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Character between two fields. Default: recognised among `,`, `;`, tab and `|`."""
    decimal: Literal[".", ","] | None = None
    """Decimal separator. Default: recognised; `1.234` and `1,234` in one file are rejected as ambiguous."""
    quote: Annotated[str, Field(min_length=1, max_length=1)] = '"'
    """Character around a field that contains a delimiter; twice inside a field it stands for itself."""
    encoding: Annotated[str, Field(min_length=1, max_length=32)] | None = None
    """Character encoding, by its Python name. Default: UTF-8, or UTF-16 with a byte order mark."""


class ColumnSpec(Model):
    """What a column is for, in place of what would be inferred."""

    role: Role | None = None
    """Role of the column. Default: inferred from its type. `text` and `image` must be declared; an `image` column has
    paths of image files, or their bytes, and is the only feature."""
    missing: Missing | None = None
    """What to do with a missing value. Default: `data.missing`."""
    indicator: bool = False
    """If true, `impute` adds a feature that says whether the value was missing."""
