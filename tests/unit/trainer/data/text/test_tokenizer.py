"""Tokenizers: every text comes back from its tokens, cut where it is too long, and BPE is a function of the texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainmaster_api.spec.text import Text
from trainmaster_trainer.data.text import tokenizer
from trainmaster_trainer.data.text.tokenizer import BpeTokenizer, ByteTokenizer, Tokenizer, fit, read
from trainmaster_trainer.data.text.tokens import Tokens

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "and", "the", "other", "foxes"]


def array(texts: list[str], chunk: int = 1000) -> pa.ChunkedArray:
    parts = [pa.array(texts[start : start + chunk], pa.large_string()) for start in range(0, len(texts), chunk)]
    return pa.chunked_array(parts, type=pa.large_string())


def sentences(count: int = 400, seed: int = 0) -> list[str]:
    dice = np.random.default_rng(seed)
    return [" ".join(dice.choice(WORDS, dice.integers(1, 12))) for _ in range(count)]


def asked(**fields: Any) -> Text:
    return Text.model_validate({"maxLength": 16384, "vocabulary": 400, **fields})


def rows_of(tokens: Tokens) -> list[list[int]]:
    return [part.tolist() for part in np.split(tokens.values, tokens.offsets[1:-1])]


LEARNED = fit(asked(), array(sentences()))
texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=12)


@settings(deadline=None)
@given(texts, st.integers(1, 5))
def test_bytes_are_those_of_utf8(found: list[str], chunk: int) -> None:
    encoded = ByteTokenizer(asked(tokenizer="bytes", vocabulary=8192)).encode(array(found, chunk))
    expected = [[byte + 2 for byte in text.encode()] or [1] for text in found]
    assert rows_of(encoded.tokens) == expected
    assert not encoded.is_cut.any()


def test_bytes_of_a_part_of_an_array() -> None:
    found = ByteTokenizer(asked(tokenizer="bytes", vocabulary=8192)).encode(array(["abc", "é", "", "z"]).slice(1, 2))
    assert rows_of(found.tokens) == [[0xC3 + 2, 0xA9 + 2], [1]]


@settings(deadline=None)
@given(texts)
def test_bpe_gives_every_text_back(found: list[str]) -> None:
    assert isinstance(LEARNED, BpeTokenizer)
    rows = rows_of(LEARNED.encode(array([*found, "<padding> <empty>"])).tokens)
    assert [LEARNED.learned.decode(row, skip_special_tokens=True) for row in rows] == [*found, "<padding> <empty>"]
    assert all(0 not in row and (1 not in row or not text) for row, text in zip(rows, [*found, "x"], strict=True))


def test_bpe_learns_words() -> None:
    (row,) = rows_of(LEARNED.encode(array(["the quick brown fox"])).tokens)
    assert len(row) == 4
    assert LEARNED.vocabulary <= 400


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_long_texts_are_cut_and_counted(kind: str) -> None:
    whole = fit(asked(tokenizer=kind, vocabulary=400 if kind == "bpe" else 8192), array(sentences()))
    short = fit(asked(tokenizer=kind, vocabulary=400 if kind == "bpe" else 8192, maxLength=5), array(sentences()))
    found = array([*sentences(50, seed=1), "", "a"], chunk=7)
    long, cut = rows_of(whole.encode(found).tokens), short.encode(found)
    assert rows_of(cut.tokens) == [row[:5] for row in long]
    assert cut.is_cut.tolist() == [len(row) > 5 for row in long]


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_lowercase_makes_cases_one(kind: str) -> None:
    vocabulary = {"vocabulary": 400} if kind == "bpe" else {"vocabulary": 8192}
    for lower in (True, False):
        made = fit(asked(tokenizer=kind, lowercase=lower, **vocabulary), array(sentences()))
        first, second = rows_of(made.encode(array(["THE Fox É", "the fox é"])).tokens)
        assert (first == second) is lower


def test_bpe_is_a_function_of_the_texts() -> None:
    assert isinstance(LEARNED, BpeTokenizer)
    script = (
        "import json, sys, pyarrow as pa\n"
        "from trainmaster_api.spec.text import Text\n"
        "from trainmaster_trainer.data.text.tokenizer import fit\n"
        "texts = pa.chunked_array([pa.array(json.load(sys.stdin), pa.large_string())])\n"
        "sys.stdout.buffer.write(fit(Text(vocabulary=400, max_length=16384), texts).content())\n"
    )
    for number, order in enumerate((sentences(), sentences()[::-1])):
        env = {**os.environ, "TOKENIZERS_PARALLELISM": ("true", "false")[number], "PYTHONHASHSEED": str(number)}
        found = subprocess.run(
            [sys.executable, "-c", script], input=json.dumps(order).encode(), capture_output=True, check=True, env=env
        )
        assert found.stdout == LEARNED.content()


def test_bpe_learns_from_the_first_texts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [*sentences(), *["zzqzz"] * 500]
    for size, count in ((10**9, 1), (2000, 5)):
        monkeypatch.setattr(tokenizer, "FIT_BYTES", size)
        (row,) = rows_of(fit(asked(), array(found)).encode(array(["zzqzz"])).tokens)
        assert len(row) == count


def test_packaged_tokenizers_are_the_same() -> None:
    made: list[Tokenizer] = [LEARNED, ByteTokenizer(asked(tokenizer="bytes", vocabulary=8192))]
    found = array([*sentences(20, seed=2), "<padding>", "É"])
    for each in made:
        content = each.content() if isinstance(each, BpeTokenizer) else None
        again = read(each.asked, content)
        assert rows_of(again.encode(found).tokens) == rows_of(each.encode(found).tokens)
        assert again.vocabulary == each.vocabulary
    with pytest.raises(FileNotFoundError):
        read(asked(), None)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(0, 2**32 - 1), st.data())
def test_padded_rows_are_the_texts(lengths: list[int], seed: int, data: st.DataObject) -> None:
    dice = np.random.default_rng(seed)
    expected = [dice.integers(1, 300, length).astype(np.uint16) for length in lengths]
    tokens = Tokens.joined([Tokens(row, np.array([0, len(row)])) for row in expected], 300)
    rows = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=9)))
    found = tokens.padded(rows, 40).numpy()
    longest = max(lengths[row] for row in rows)
    assert found.shape[1] == min(40, longest + -longest % 8)
    for line, row in zip(found, rows, strict=True):
        assert line[: lengths[row]].tolist() == expected[row].tolist()
        assert (line[lengths[row] :] == 0).all()
    assert tokens.values.dtype == np.uint16
    assert Tokens.joined([], 2**16 + 1).values.dtype == np.uint32
