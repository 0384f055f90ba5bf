"""Rows of a table whose features are text: tokens in memory or mapped, padded batch by batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.task import Task

from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.data.tables.cache import CachedTable
from trainmaster_trainer.data.tables.report import Report
from trainmaster_trainer.data.tables.results import Results, to_json
from trainmaster_trainer.data.tables.roles import Planned
from trainmaster_trainer.data.tables.rows import PlannedRows
from trainmaster_trainer.data.tables.table import Column, Table

from .cached import cached_tokens
from .drift import TextStatistics
from .encode import TextEncoder, amounts, joined
from .tokenizer import Encoded
from .tokens import Tokens

TOKENIZER = "tokenizer.json"


class TextRows(PlannedRows):
    """Rows whose samples are tokens, int64 of (n, longest of the batch); 0 behind the end of a text.

    Args:
        table: As it was read, in memory or mapped from the cache.
        data: `spec.training.data`; its columns declare the role text.
        task: Whether targets are classes or numbers.

    Attributes:
        tokens: Those of each row; `lengths` is how many each has.
        vocabulary: Number of tokens that there are.
        encoder: Fitted by `fit`.
        report: What is said before the first step; made by `fit`.

    Raises:
        DataError: A role doesn't fit, a cell can't be used, or no row is left.
    """

    encoder: TextEncoder
    report: Report
    tokens: Tokens
    lengths: Indices
    vocabulary: int

    def __init__(self, table: Table | CachedTable, data: Data, task: Task, own: tuple[int, ...] = (0, 0)) -> None:
        self._cached = table if isinstance(table, CachedTable) else None
        whole = table.table if isinstance(table, CachedTable) else table
        super().__init__(whole, data, task, own, Results(self._cached, data, task))
        self.asked = data.text
        self.shape = (data.text.max_length,)
        self.features = [each.column.name for each in self.plans if each.role == "text"]

    def fit(self, train: Indices) -> None:
        """Learn the tokenizer from the train split and encode every row."""
        plans = [each for each in self.plans if each.role == "text"]
        self.encoder = TextEncoder.fit(plans, self.kept[train], self.asked)
        encoded = self._encoded([each.column for each in plans])
        self.tokens, self.lengths = encoded.tokens, encoded.tokens.lengths
        self.vocabulary = self.encoder.tokenizer.vocabulary
        said = amounts(self.encoder.tokenizer, encoded)
        noted = [_noted(each, said) if each is plans[0] else each for each in self.plans]
        depends = to_json(self.encoder.wire()) + (self.encoder.content() or b"")
        self.report = self._reported(self.encoder, depends, noted)
        self._train, self._depends = train, depends

    def _encoded(self, columns: Sequence[Column]) -> Encoded:
        """Return the tokens of every row, in memory or mapped from files of the cache."""
        if self._cached is not None:
            encoded = cached_tokens(self._cached, self.encoder, columns, self.kept)
            self.notes = (*self.notes, self._cached.note)
            return encoded
        texts = joined(columns)
        is_whole = len(self.kept) == len(self.table)
        return self.encoder.tokenizer.encode(texts if is_whole else texts.take(pa.array(self.kept)))

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Return the tokens of rows, padded to the longest, and targets."""
        return self.tokens.padded(indices, self.asked.max_length), self.y[torch.from_numpy(indices)]

    def description(self) -> dict[str, Any]:
        """Return what the package and `data.json` say of the table: its columns and their tokenizer."""
        return {
            "table": self.report.wire(),
            "text": self.encoder.wire(),
            "textStatistics": self._statistics().wire(),
        }

    def _statistics(self) -> TextStatistics:
        """Return the statistics of the train split."""
        return self._results.get(
            "text-statistics",
            lambda: TextStatistics.fit(
                [each.column for each in self.plans if each.role == "text"],
                self.kept,
                self.encoder.tokenizer,
                self.tokens,
                self._train,
            ),
            lambda found: to_json(found.wire()),
            lambda said: TextStatistics.read(json.loads(said)),
            self._depends,
            self._train.data,
        )

    def files(self) -> dict[str, bytes]:
        """Return the tokenizer as `tokenizers` reads it."""
        content = self.encoder.content()
        return {} if content is None else {TOKENIZER: content}

    def summary(self) -> str:
        """Return the report as text."""
        return self.report.text()


def _noted(planned: Planned, words: str) -> Planned:
    column = planned.column
    return replace(planned, column=replace(column, notes=(*column.notes, words)))
