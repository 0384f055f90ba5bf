"""Text columns on their way into a model; fitted on the train split, and packaged for new rows."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from trainmaster_api.spec.table import Missing
from trainmaster_api.spec.text import Text

from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.data.tables.accepted import check_cells
from trainmaster_trainer.data.tables.distinct import pick
from trainmaster_trainer.data.tables.problems import CellProblems
from trainmaster_trainer.data.tables.roles import Planned, without_blanks
from trainmaster_trainer.data.tables.table import Column, ColumnType, Part, Table
from trainmaster_trainer.errors import DataError

from .tokenizer import BpeTokenizer, Encoded, Tokenizer, fit, read

VERSION = 1
AT_ONCE = 1024
SEPARATOR = "\n"
"""Between the texts of several columns."""
_ACCEPTED = (ColumnType.TEXT, ColumnType.INTEGER, ColumnType.EMPTY)  # new rows may have digits only


@dataclass(frozen=True)
class TextCode:
    """What becomes of a text column, for the report.

    Attributes:
        name: Of the column.
        missing: What is done with missing values, and with texts without a character.
        becomes: What it becomes.
    """

    name: str
    missing: Missing
    becomes: str = ""

    def features(self) -> list[str]:
        """Return the column's name."""
        return [self.name]

    def words(self) -> str:
        """Say what it becomes."""
        return self.becomes + {"impute": "; missing: no text", "drop": "; rows without it dropped"}.get(
            self.missing, ""
        )


@dataclass(frozen=True)
class TextEncoder:
    """Columns with the role text, in order, and the tokenizer.

    Attributes:
        codes: One per column.
        tokenizer: Fitted on the train split.
    """

    codes: tuple[TextCode, ...]
    tokenizer: Tokenizer

    @classmethod
    def fit(cls, plans: Sequence[Planned], train: Indices, asked: Text) -> TextEncoder:
        """Learn the tokenizer from the train split, and from nothing else.

        Args:
            plans: Those of the text columns.
            train: Row numbers of the train split in the table.
            asked: `data.text`.
        """
        tokenizer = fit(asked, _texts([each.column for each in plans], train))
        return cls(tuple(TextCode(each.column.name, each.missing, tokenizer.words()) for each in plans), tokenizer)

    def blocks(self, columns: Sequence[Column], rows: Indices) -> Iterator[Encoded]:
        """Yield the tokens of rows some at a time, for columns that are larger than memory."""
        return (self.tokenizer.encode(pa.chunked_array([texts])) for texts in _texts(columns, rows))

    def columns(self, table: Table) -> list[Column]:
        """Return the text columns of new rows. Other columns, the target among them, are not used.

        Raises:
            DataError: A column is missing or of another kind, or has no text in a row; the first ten at once.
        """
        problems, columns = CellProblems(table), []
        for code in self.codes:
            if code.name not in table.names:
                near = difflib.get_close_matches(code.name, table.names, n=1)
                hint = f" (is it {near[0]!r}?)" if near else ""
                problems.say(f"{table.shown} has no column {code.name!r}{hint}, which the model was trained with")
                continue
            column = table.column(code.name)
            if column.type not in _ACCEPTED:
                problems.say(
                    f"{table.shown}: column {code.name!r} is of type {column.type}; the model reads text: quote it, or "
                    "use predict_text"
                )
                continue
            values = column.values.cast(pa.large_string())
            column = without_blanks(Column(code.name, ColumnType.TEXT, values))
            # a prediction per row is expected, so that no row is dropped here
            check_cells(column, "text", "impute" if code.missing == "impute" else "error", problems)
            columns.append(column)
        problems.check()
        return columns

    def transform(self, table: Table) -> Encoded:
        """Return the tokens of new rows.

        Raises:
            DataError: As for `columns`.
        """
        return self.tokenizer.encode(joined(self.columns(table)))

    def table_of(self, texts: Sequence[str]) -> Table:
        """Return texts as the table that `columns` reads.

        Raises:
            DataError: The model reads several columns.
        """
        if len(self.codes) > 1:
            names = ", ".join(code.name for code in self.codes)
            raise DataError(f"the model reads the columns {names}; use predict_table")
        column = Column(self.codes[0].name, ColumnType.TEXT, pa.chunked_array([pa.array(texts, pa.large_string())]))
        return Table("texts", (column,), (Part("texts", len(texts)),), {})

    def wire(self) -> dict[str, Any]:
        """Return what `read` reads besides the file of the tokenizer."""
        columns = [{"name": code.name, "missing": code.missing} for code in self.codes]
        return {"version": VERSION, "columns": columns, **self.tokenizer.asked.wire()}

    def content(self) -> bytes | None:
        """Return the file of the tokenizer; None: it needs none."""
        return self.tokenizer.content() if isinstance(self.tokenizer, BpeTokenizer) else None

    @classmethod
    def read(cls, wire: dict[str, Any], content: bytes | None) -> TextEncoder:
        """Return the encoder that was written.

        Raises:
            ValueError: A later version wrote it.
        """
        if wire["version"] != VERSION:
            raise ValueError(f"the package's text has version {wire['version']}; this Trainmaster reads {VERSION}")
        asked = Text.model_validate({key: value for key, value in wire.items() if key not in ("version", "columns")})
        codes = tuple(TextCode(column["name"], column["missing"]) for column in wire["columns"])
        return cls(codes, read(asked, content))


def _texts(columns: Sequence[Column], rows: Indices) -> Iterator[pa.Array]:
    """Yield the text of rows by number, AT_ONCE rows at a time."""
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        first, end = int(some.min()), int(some.max()) + 1
        parts = []
        for column in columns:  # rows that lie together are looked for in their chunks only
            values = column.values.slice(first, end - first)
            parts.append(replace(column, values=pa.chunked_array([pick(values, some - first)])))
        yield from joined(parts).chunks


def joined(columns: Sequence[Column]) -> pa.ChunkedArray:
    """Return the text of each row: its columns with a line break between them; null is no text."""
    empty = pa.scalar("", pa.large_string())
    texts = [pc.fill_null(column.values, empty) for column in columns]
    if len(texts) == 1:
        return texts[0]
    return pc.binary_join_element_wise(*texts, pa.scalar(SEPARATOR, pa.large_string()))


def amounts(tokenizer: Tokenizer, encoded: Encoded) -> str:
    """Return how many tokens texts have, and how many texts were cut, for the report."""
    lengths = encoded.tokens.lengths
    cut, most = int(np.count_nonzero(encoded.is_cut)), tokenizer.asked.max_length
    return (
        f"tokens of a text: median {int(np.median(lengths)):,}, most {int(lengths.max()):,}; "
        f"{cut:,} texts ({cut / len(lengths):.1%}) cut at {most:,}"
    )
