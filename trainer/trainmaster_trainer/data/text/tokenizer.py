"""Tokenizers: the bytes of UTF-8, or byte-level BPE learned from the train split; both read any text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer as Learned
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from trainmaster_api.spec.text import BYTE_VOCABULARY, SPECIAL, Text

from .tokens import Numbers, Tokens, smallest

PADDING, EMPTY = range(len(SPECIAL))
ROWS_AT_ONCE, BYTES_AT_ONCE = 4096, 1 << 19
"""What is encoded together; what is made of it on the way takes some fifty times as much."""
FIT_BYTES = 64 << 20
"""Text of the train split that BPE learns from: its first rows, in the split's random order. More changes few merges,
and takes 8 s for each 64 MiB."""


@dataclass(frozen=True)
class Encoded:
    """Texts as tokens.

    Attributes:
        tokens: At least one for each text, at most `maxLength`.
        is_cut: Whether a text had more.
    """

    tokens: Tokens
    is_cut: npt.NDArray[np.bool_]


class Tokenizer(ABC):
    """From texts to tokens.

    Args:
        asked: `data.text`.
    """

    vocabulary: int
    """Number of tokens, those that stand for no text included."""

    def __init__(self, asked: Text) -> None:
        self.asked = asked

    @abstractmethod
    def numbers(self, texts: pa.Array) -> tuple[Numbers, Numbers]:
        """Return the tokens of some texts one after the other, and how many each has."""

    @abstractmethod
    def text_of(self, token: int) -> str:
        """Return what a token stands for, for people."""

    @abstractmethod
    def sizes(self) -> Numbers:
        """Return how many bytes each token stands for."""

    @property
    def kind(self) -> type[np.unsignedinteger]:
        """The smallest type that holds the tokens."""
        return smallest(self.vocabulary)

    def encode(self, texts: pa.ChunkedArray) -> Encoded:
        """Return the tokens of texts, cut at the longest that is used; a text without a character has the token EMPTY.

        Args:
            texts: `large_string` without nulls.
        """
        parts, cut = [], [np.zeros(0, np.bool_)]
        for some in _blocks(texts):
            flat, lengths = self.numbers(some)
            is_empty = lengths == 0
            flat = np.insert(flat, np.cumsum(lengths)[is_empty], EMPTY)
            lengths = lengths + is_empty
            kept = np.minimum(lengths, self.asked.max_length)
            starts = np.cumsum(lengths) - lengths
            within = np.arange(len(flat)) - np.repeat(starts, lengths)
            # stored small at once: int64 of every token of 10 million texts would be many times their size
            small = flat[within < self.asked.max_length].astype(self.kind)
            parts.append(Tokens(small, np.concatenate([[0], np.cumsum(kept)])))
            cut.append(lengths > kept)
        return Encoded(Tokens.joined(parts, self.vocabulary), np.concatenate(cut))

    def words(self) -> str:
        """Say what it is."""
        case = ", lower case" if self.asked.lowercase else ""
        return f"{self.asked.tokenizer}, {self.vocabulary:,} tokens{case}"


class ByteTokenizer(Tokenizer):
    """The bytes of UTF-8: token = byte + 2."""

    vocabulary = BYTE_VOCABULARY

    def numbers(self, texts: pa.Array) -> tuple[Numbers, Numbers]:
        """Return the bytes of some texts."""
        if self.asked.lowercase:
            texts = pc.utf8_lower(texts)
        _, places, content = texts.buffers()
        offsets = np.frombuffer(places, np.int64)[texts.offset : texts.offset + len(texts) + 1]
        found = np.frombuffer(content or b"", np.uint8)[offsets[0] : offsets[-1]]
        return found.astype(np.int64) + len(SPECIAL), np.diff(offsets)

    def text_of(self, token: int) -> str:
        """Return the byte, as a letter of ASCII where it is one."""
        byte = token - len(SPECIAL)
        return SPECIAL[token] if byte < 0 else chr(byte) if byte < 128 else f"byte {byte:#x}"

    def sizes(self) -> Numbers:
        """Return one for each byte."""
        return np.where(np.arange(self.vocabulary) < len(SPECIAL), 0, 1).astype(np.int64)


class BpeTokenizer(Tokenizer):
    """Byte-level BPE, as `tokenizers` learns and writes it.

    Args:
        asked: `data.text`.
        learned: The tokenizer.
    """

    def __init__(self, asked: Text, learned: Learned) -> None:
        super().__init__(asked)
        # `<padding>` in a text is text: without this it would become padding
        learned.encode_special_tokens = True
        self.learned, self.vocabulary = learned, learned.get_vocab_size()

    @classmethod
    def fit(cls, asked: Text, texts: pa.ChunkedArray | Iterable[pa.Array]) -> BpeTokenizer:
        """Learn the merges of the most frequent pairs: a pure function of the texts, whatever their order.

        Args:
            asked: `data.text`.
            texts: Those of the train split, without nulls; no more are read than are learned from.
        """
        learned = Learned(models.BPE())
        if asked.lowercase:
            learned.normalizer = normalizers.Lowercase()
        learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        learned.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=asked.vocabulary,
            min_frequency=2,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        learned.train_from_iterator(_some(texts), trainer=trainer)
        return cls(asked, learned)

    def numbers(self, texts: pa.Array) -> tuple[Numbers, Numbers]:
        """Return the tokens of some texts."""
        found = [each.ids for each in self.learned.encode_batch_fast(texts.to_pylist(), add_special_tokens=False)]
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        flat = np.fromiter((number for ids in found for number in ids), np.int64, int(lengths.sum()))
        return flat, lengths

    def text_of(self, token: int) -> str:
        """Return the letters; a part of one can't be shown."""
        return SPECIAL[token] if token < len(SPECIAL) else self.learned.decode([token])

    def sizes(self) -> Numbers:
        """Return the number of merged bytes."""
        names = (self.learned.id_to_token(token) or "" for token in range(self.vocabulary))  # a letter is a byte
        found = np.fromiter((len(name) for name in names), np.int64, self.vocabulary)
        found[: len(SPECIAL)] = 0
        return found

    def content(self) -> bytes:
        """Return it as `tokenizers` writes it."""
        return self.learned.to_str().encode()


def fit(asked: Text, texts: pa.ChunkedArray | Iterable[pa.Array]) -> Tokenizer:
    """Return the tokenizer that was asked for.

    Args:
        asked: `data.text`.
        texts: Those of the train split, without nulls.
    """
    return ByteTokenizer(asked) if asked.tokenizer == "bytes" else BpeTokenizer.fit(asked, texts)


def read(asked: Text, content: bytes | None) -> Tokenizer:
    """Return a tokenizer that was packaged.

    Args:
        asked: `data.text`.
        content: What `BpeTokenizer.content` returned.

    Raises:
        FileNotFoundError: It is needed and isn't there.
    """
    if asked.tokenizer == "bytes":
        return ByteTokenizer(asked)
    if content is None:
        raise FileNotFoundError("the package has no file of its tokenizer")
    return BpeTokenizer(asked, Learned.from_str(content.decode()))


def _blocks(texts: pa.ChunkedArray | Iterable[pa.Array]) -> Iterator[pa.Array]:
    """Yield a few texts at a time: where they are cut makes no difference to what is made of them."""
    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else texts:
        for start in range(0, len(chunk), ROWS_AT_ONCE):
            some = chunk.slice(start, ROWS_AT_ONCE)
            at = np.cumsum(pc.binary_length(some).to_numpy()) // BYTES_AT_ONCE
            for begin, end in pairwise([0, *(np.flatnonzero(np.diff(at)) + 1).tolist(), len(some)]):
                yield some.slice(begin, end - begin)


def _some(texts: pa.ChunkedArray | Iterable[pa.Array]) -> Iterator[list[str]]:
    """Yield the first texts, up to `FIT_BYTES`; one at least."""
    left, least = FIT_BYTES, 1
    for some in _blocks(texts):
        sizes = np.cumsum(pc.binary_length(some).to_numpy())
        number = max(least, int(np.searchsorted(sizes, left, side="right")))
        yield some.slice(0, number).to_pylist()
        if number < len(some):
            return
        left, least = left - int(sizes[-1]), 0
