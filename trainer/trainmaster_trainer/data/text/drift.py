"""New texts of a packaged model against the train split: missing ones, their lengths, and which tokens they have.

What texts are about can't be measured like this. What changes with another source, language, alphabet or mark-up is
measured: how long they are, how long the pieces are that the tokenizer of the train split finds in them (in words that
it hasn't learned it finds short ones), and how frequent the most frequent tokens are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainmaster_trainer.data.finding import Finding
from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.data.tables.cells import Floats, shown
from trainmaster_trainer.data.tables.drift import Statistics, drifted
from trainmaster_trainer.data.tables.table import Column, ColumnType

from .tokenizer import Tokenizer
from .tokens import Numbers, Tokens

AT_ONCE = 1 << 16
"""Texts whose tokens are counted together: those of all may be larger than memory."""


@dataclass(frozen=True)
class TextStatistics:
    """What the train split says of texts.

    Attributes:
        lengths: Of the characters of each column's texts, before any is cut.
        sizes: Of the mean number of bytes of a text's tokens.
        tokens: Of the tokens that the model reads, by their numbers.
    """

    lengths: tuple[Statistics, ...]
    sizes: Statistics
    tokens: Statistics

    @classmethod
    def fit(
        cls, columns: Sequence[Column], kept: Indices, tokenizer: Tokenizer, tokens: Tokens, train: Indices
    ) -> TextStatistics:
        """Measure the train split.

        Args:
            columns: The text columns, of every row of the table.
            kept: Row numbers of the texts in the table.
            tokenizer: Learned from the train split.
            tokens: Those of the texts that are kept.
            train: Numbers of the texts of the train split.
        """
        lengths = [
            Statistics.of_numbers(each.name, ColumnType.INTEGER, _lengths(each)[kept[train]]) for each in columns
        ]
        sizes, counts = _measured(tokenizer, tokens, train)
        names = [str(token) for token in range(tokenizer.vocabulary)]
        frequent = Statistics.of_categories("", ColumnType.TEXT, names, counts, 0, len(train))
        return cls(tuple(lengths), Statistics.of_numbers("", ColumnType.NUMBER, sizes), frequent)

    def wire(self) -> dict[str, Any]:
        """Return what `read` reads."""
        return {
            "lengths": [each.wire() for each in self.lengths],
            "sizes": self.sizes.wire(),
            "tokens": self.tokens.wire(),
        }

    @classmethod
    def read(cls, wire: dict[str, Any]) -> TextStatistics:
        """Return the statistics that were written."""
        lengths = tuple(Statistics.read(each) for each in wire["lengths"])
        return cls(lengths, Statistics.read(wire["sizes"]), Statistics.read(wire["tokens"]))


def compare(
    known: TextStatistics, columns: Sequence[Column], tokenizer: Tokenizer, tokens: Tokens
) -> Iterator[Finding]:
    """Yield in what new texts differ from the train split.

    Args:
        known: Of the train split.
        columns: The text columns of the new rows, in the order of the train split's.
        tokenizer: That of the model.
        tokens: Those of the new rows.
    """
    rows = len(tokens)
    if not rows:
        return
    for column, trained in zip(columns, known.lengths, strict=True):
        lengths = _lengths(column)
        absent = int(np.count_nonzero(lengths == 0))
        if absent and trained.low:
            words = f"{absent:,} of {rows:,} rows ({absent / rows:.1%}) have no text, and in training each had one"
            yield _finding("missing", f"column {column.name}:", words, {"column": column.name, "rows": absent})
        if found := drifted(trained, trained.bins_of_numbers(lengths), rows):
            yield _finding("drift", f"column {column.name}: the number of characters", *found, column=column.name)
    sizes, counts = _measured(tokenizer, tokens, np.arange(rows))
    if found := drifted(known.sizes, known.sizes.bins_of_numbers(sizes), rows):
        yield _finding("drift", "the mean number of bytes of a text's tokens", *found)
    names = [str(token) for token in range(tokenizer.vocabulary)]
    bins = known.tokens.bins_of_categories(names, counts, 0)
    name_of = lambda token: f"token {shown(tokenizer.text_of(int(token)))}"  # noqa: E731
    if found := drifted(known.tokens, bins, rows, name_of, "tokens"):
        yield _finding("drift", "the frequency of tokens", *found)


def _lengths(column: Column) -> Floats:
    """Return the number of characters of each text; 0 where one is missing."""
    found = [np.zeros(0)]
    for _, piece in column.pieces():
        lengths = pc.fill_null(pc.utf8_length(piece.values.cast(pa.large_string())), 0)
        found.append(lengths.to_numpy().astype(np.float64))
    return np.concatenate(found)


def _measured(tokenizer: Tokenizer, tokens: Tokens, rows: Indices) -> tuple[Floats, Numbers]:
    """Return the mean number of bytes of each text's tokens, and how often each token is there.

    Args:
        tokenizer: Of the tokens.
        tokens: Those of all texts.
        rows: Numbers of the texts that are measured.
    """
    bytes_of = tokenizer.sizes()
    counts = np.zeros(tokenizer.vocabulary, np.int64)
    means = [np.zeros(0)]
    ordered = np.sort(rows)  # texts that lie together are read together
    for start in range(0, len(ordered), AT_ONCE):
        some = ordered[start : start + AT_ONCE]
        flat, starts = tokens.flat(some)
        counts += np.bincount(flat, minlength=len(counts))
        means.append(np.add.reduceat(bytes_of[flat], starts) / np.diff(np.append(starts, len(flat))))
    return np.concatenate(means), counts


def _finding(kind: str, what: str, words: str, details: dict[str, Any], **more: Any) -> Finding:
    return Finding("warn", f"{what} {words}", {"kind": kind, **more, **details})
