"""The rows of a job as Transformers' Trainer reads them: tokens of each text, padded batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from trainmaster_trainer.data import Prepared
from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.data.text.encode import joined
from trainmaster_trainer.data.text.rows import TextRows
from trainmaster_trainer.data.text.tokens import Tokens
from trainmaster_trainer.errors import ConfigurationError

_AT_ONCE = 4096


class Texts(Dataset[dict[str, Any]]):
    """Rows of one split.

    Args:
        tokens: Of all rows.
        classes: Class of all rows.
        rows: Numbers of those of the split.
    """

    def __init__(self, tokens: Tokens, classes: Tensor, rows: Indices) -> None:
        self._tokens, self._classes, self._rows = tokens, classes, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = int(self._rows[index])
        start, end = self._tokens.offsets[row], self._tokens.offsets[row + 1]
        values = torch.from_numpy(self._tokens.values[start:end].astype(np.int64))
        return {"input_ids": values, "labels": self._classes[row]}


def collator(padding: int) -> Callable[[Sequence[dict[str, Any]]], dict[str, Tensor]]:
    """Return what makes a batch of rows.

    Args:
        padding: Token behind the end of a text.
    """

    def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        texts = [row["input_ids"] for row in rows]
        return {
            "input_ids": pad_sequence(texts, batch_first=True, padding_value=padding),
            "attention_mask": pad_sequence([torch.ones_like(text) for text in texts], batch_first=True),
            "labels": torch.stack([row["labels"] for row in rows]),
        }

    return collate


def rows_of(data: Prepared) -> TextRows:
    """Return the rows of a job's data.

    Raises:
        ConfigurationError: They aren't texts, or have weights.
    """
    if not isinstance(data.rows, TextRows):
        raise ConfigurationError("data.columns: no column has the role text, and a model of `transformers` reads texts")
    if data.has_weights:
        raise ConfigurationError("data.columns: the role weight doesn't go with `transformers`: its models take none")
    return data.rows


def encoded(rows: TextRows, tokenizer: Any) -> Tokens:
    """Return the tokens of all rows by a tokenizer of Transformers, cut at `data.text.maxLength`."""
    texts = joined([each.column for each in rows.plans if each.role == "text"]).take(pa.array(rows.kept))
    lengths, parts = [0], []
    for start in range(0, len(texts), _AT_ONCE):
        some = texts.slice(start, _AT_ONCE).to_pylist()
        found = tokenizer(some, truncation=True, max_length=rows.asked.max_length)["input_ids"]
        lengths += [len(each) for each in found]
        parts.append(np.fromiter((token for each in found for token in each), np.uint32))
    return Tokens(np.concatenate(parts), np.cumsum(np.asarray(lengths, np.int64)))
