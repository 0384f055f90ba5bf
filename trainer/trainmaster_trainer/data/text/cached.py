"""Tokens of a table that is larger than memory: in files of its cache, written once and mapped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow.compute as pc

from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.data.tables.cache import CachedTable, Progress
from trainmaster_trainer.data.tables.table import Column

from .encode import TextEncoder
from .tokenizer import Encoded
from .tokens import Tokens

_LENGTHS = ".lengths"
"""Tokens of each text as int32, negative where the text had more than are used."""


def cached_tokens(cached: CachedTable, encoder: TextEncoder, columns: Sequence[Column], kept: Indices) -> Encoded:
    """Return the tokens of a table's texts: where each begins is in memory, and the tokens are mapped.

    Args:
        cached: The table.
        encoder: Fitted.
        columns: Those with the role text.
        kept: Row numbers, in order.
    """
    made_of = hashlib.sha256(json.dumps([encoder.wire(), len(cached)]).encode())
    made_of.update(encoder.content() or b"")
    made_of.update(kept.data)
    kind = np.dtype(encoder.tokenizer.kind)
    most = _most(encoder, columns, kept) * kind.itemsize
    progress = Progress(cached.say, f"encoding {cached.table.shown}")

    def write(path: Path) -> None:
        with _opened(path) as tokens, _opened(path.with_suffix(_LENGTHS)) as lengths:
            done = _cut(tokens, lengths, kind.itemsize)
            for encoded in encoder.blocks(columns, kept[done:]):
                tokens.write(encoded.tokens.values.data)
                tokens.flush()  # first, so that what has a length is there
                signs = np.where(encoded.is_cut, -1, 1)
                lengths.write((signs * encoded.tokens.lengths).astype(np.int32).data)
                lengths.flush()
                done += len(encoded.is_cut)
                progress.at(most * done / len(kept), most)

    path = cached.file(f"tokens-{made_of.hexdigest()[:16]}", ".tokens", most + 4 * len(kept), write)
    lengths = np.fromfile(path.with_suffix(_LENGTHS), np.int32)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.abs(lengths), dtype=np.int64)])
    return Encoded(Tokens(np.memmap(path, kind, "r"), offsets), lengths < 0)


def _most(encoder: TextEncoder, columns: Sequence[Column], kept: Indices) -> int:
    """Return the most tokens that there can be: one for each byte, and one for what separates columns."""
    sizes = (pc.sum(pc.binary_length(piece.values)).as_py() or 0 for column in columns for _, piece in column.pieces())
    return min(sum(sizes) + len(columns) * len(kept), encoder.tokenizer.asked.max_length * len(kept))


def _opened(path: Path) -> IO[bytes]:
    return path.open("r+b" if path.exists() else "w+b")


def _cut(tokens: IO[bytes], lengths: IO[bytes], width: int) -> int:
    """Cut off what a process that was killed hasn't finished, and return the number of texts that stay."""
    ends = np.cumsum(np.abs(np.frombuffer(lengths.read()[: lengths.tell() // 4 * 4], np.int32)), dtype=np.int64)
    done = int(np.searchsorted(ends * width, tokens.seek(0, 2), side="right"))
    lengths.truncate(done * 4)
    tokens.truncate(int(ends[done - 1]) * width if done else 0)
    for file in (tokens, lengths):
        file.seek(0, 2)
    return done
