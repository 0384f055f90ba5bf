"""Part of `spec.training.data` for text: how a column with the role `text` becomes tokens."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainmaster_api.types import Model, rule_error

SPECIAL = ("<padding>", "<empty>")
"""Tokens that stand for no text, by their number: what fills up a batch, and a text without a character."""
BYTE_VOCABULARY = len(SPECIAL) + 256
"""Tokens of the tokenizer `bytes`, and those that `bpe` begins with."""


class Text(Model):
    """How text becomes tokens, and tokens become batches."""

    tokenizer: Literal["bpe", "bytes"] = "bpe"
    """`bpe` (byte-level byte-pair encoding, learned from the train split and packaged with the model) or `bytes` (each
    byte of the UTF-8 text is a token)."""
    vocabulary: Annotated[int, Field(ge=BYTE_VOCABULARY, le=1_000_000)] = 8192
    """Largest number of tokens that `bpe` learns, the 258 that it begins with included. `bytes` has 258."""
    max_length: Annotated[int, Field(ge=1, le=16384)] = 256
    """Tokens of a text that are used; the rest of a longer one is cut off, and how many were cut is reported."""
    lowercase: bool = False
    """If true, text is converted to lower case first."""
    bucketing: bool = True
    """If true, a batch has rows of similar length, which saves most of the padding. The order of rows stays a function
    of `loop.seed` and the epoch."""

    @model_validator(mode="after")
    def _bytes_have_no_vocabulary(self) -> Self:
        default = type(self).model_fields["vocabulary"].default
        if self.tokenizer == "bytes" and self.vocabulary != default:
            raise rule_error(f"vocabulary is for tokenizer bpe: bytes always has {BYTE_VOCABULARY} tokens; remove it")
        return self
