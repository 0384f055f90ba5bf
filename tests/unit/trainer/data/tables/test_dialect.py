"""What is recognised of a text file, and what is refused because it can be read in two ways."""

from __future__ import annotations

import codecs

import pyarrow as pa
import pytest
from trainmaster_api.spec.data import Data
from trainmaster_trainer.data.tables.dialect import (
    HEAD,
    decimal_of,
    dialect,
    encoding_of,
    names_of,
    recognise_delimiter,
)
from trainmaster_trainer.errors import DataError


def columns(**cells: list[str | None]) -> dict[str, pa.ChunkedArray]:
    return {name: pa.chunked_array([pa.array(values, pa.large_string())]) for name, values in cells.items()}


@pytest.mark.parametrize(
    ("head", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2,5\n", ";"),
        ("a\tb\n1,5\t2\n", "\t"),
        ("a|b\nx,y|z;w\n", "|"),
        ("last, first;age\nx;1\ny;2\n", ";"),
        ('"a;b",c\n1,2\n', ","),
        ('a,"b\n;"\n1,2\n', ","),
        ("a\n1\n", ","),
        ("a\n1;2\n", ";"),
        ("a,b\n1,2,3\n", ","),
        ("\n\na;b\r1;2\r", ";"),
        ("a,b\n" + "1,2\n" * HEAD + '3,"', ","),
    ],
)
def test_delimiter_is_that_of_the_header(head: str, delimiter: str) -> None:
    assert recognise_delimiter(head.encode()[:HEAD], '"', "t.csv") == delimiter


@pytest.mark.parametrize(
    "head", ["a,b;c\n1,2;3\n", "a,b;c\n1\n", "a;b,c\n", "text\nhello, world; bye\n", "a|b;c\n1;2|3\n1;2|3\n"]
)
def test_delimiter_that_may_be_two_is_refused(head: str) -> None:
    with pytest.raises(DataError, match=r"^t\.csv: .*set data\.csv\.delimiter"):
        recognise_delimiter(head.encode(), '"', "t.csv")


def test_declared_parts_win() -> None:
    data = Data.model_validate({"source": "t.csv", "csv": {"delimiter": ";", "quote": "'"}, "nulls": ["-"]})
    found = dialect(data, b"a,b\n1,2\n", "csv", "t.csv")
    assert (found.delimiter, found.quote, found.nulls, found.target_nulls) == (";", "'", ("-",), ("-",))
    plain = dialect(Data(source="t.tsv"), b"a,b\n", "tsv", "t.tsv")
    assert (plain.delimiter, plain.target_nulls, "NA" in plain.nulls) == ("\t", ("",), True)


@pytest.mark.parametrize("csv", [{"delimiter": '"'}, {"delimiter": "ä"}, {"quote": "\n"}, {"delimiter": "\r"}])
def test_declared_characters_that_can_not_be_used(csv: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"^data\.csv\."):
        dialect(Data.model_validate({"source": "t.csv", "csv": csv}), b"a,b\n", "csv", "t.csv")


@pytest.mark.parametrize(
    ("head", "declared", "expected"),
    [
        (b"a,b", None, ("utf-8", 0)),
        (codecs.BOM_UTF8 + b"a", None, ("utf-8", 3)),
        (codecs.BOM_UTF16_LE + b"a\0", None, ("utf-16-le", 2)),
        (codecs.BOM_UTF32_LE + b"a\0\0\0", None, ("utf-32-le", 4)),
        (codecs.BOM_UTF8 + b"a", "UTF8", ("utf-8", 3)),
        (codecs.BOM_UTF8 + b"a", "utf-8-sig", ("utf-8", 3)),
        (codecs.BOM_UTF16_BE + b"\0a", "utf-16", ("utf-16-be", 2)),
        (b"a\0", "utf-16-le", ("utf-16-le", 0)),
        (b"a", "latin1", ("iso8859-1", 0)),
    ],
)
def test_encoding(head: bytes, declared: str | None, expected: tuple[str, int]) -> None:
    assert encoding_of(head, declared, "t.csv") == expected


@pytest.mark.parametrize(
    ("head", "declared", "words"),
    [
        (b"a", "utf-9", "'utf-9' is no text encoding"),
        (b"a", "rot13", "'rot13' is no text encoding"),
        (codecs.BOM_UTF8 + b"a", "latin-1", "starts with the byte order mark of utf-8"),
        (codecs.BOM_UTF16_BE + b"\0a", "utf-16-le", "starts with the byte order mark of utf-16-be"),
    ],
)
def test_encoding_that_can_not_be(head: bytes, declared: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        encoding_of(head, declared, "t.csv")


@pytest.mark.parametrize(
    ("cells", "delimiter", "decimal"),
    [
        (columns(a=["1", "2"]), ",", "."),
        (columns(a=["1.234", "5.678"]), ",", "."),
        (columns(a=["1,5", "2"]), ",", ","),
        (columns(a=["0,123", None]), ";", ","),
        (columns(a=["1,234", "5,6"]), ";", ","),
        (columns(a=["1.5", "2.25"]), ";", "."),
        (columns(a=["1.5"], b=["x,y"]), ",", "."),
        (columns(a=["1.5", "2.5"], b=["1,5", "x", "y"]), ",", "."),
        (columns(a=[None]), ";", "."),
    ],
)
def test_decimal_separator_of_all_cells(cells: dict[str, pa.ChunkedArray], delimiter: str, decimal: str) -> None:
    assert decimal_of(cells, delimiter, None, "t.csv") == decimal


@pytest.mark.parametrize(
    ("cells", "delimiter"),
    [
        (columns(a=["1,234", "2"], b=["1.234", "3"]), ";"),
        (columns(a=["1,5"], b=["1.5"]), ","),
        (columns(a=["1,5", "1.5"]), ";"),
        (columns(a=["1,234", "12,500", "7"]), ","),
        (columns(a=["1.234", "12.500", "7"]), ";"),
    ],
)
def test_decimal_separator_that_may_be_two_is_refused(cells: dict[str, pa.ChunkedArray], delimiter: str) -> None:
    with pytest.raises(DataError, match=r"^t\.csv: .*; set data\.csv\.decimal$"):
        decimal_of(cells, delimiter, None, "t.csv")
    assert decimal_of(cells, delimiter, ",", "t.csv") == ","


def test_names_are_stripped_and_may_have_line_breaks() -> None:
    assert names_of(b'\xef\xbb\xbfa,"b ""x""\n c", d ,\n', ",", '"') == ["a", 'b "x"\n c', "d", ""]
