"""JSON Lines: the types of JSON are those of columns, over all lines; what isn't a record is refused with its line."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.storage import Storage
from trainmaster_trainer.data.files import Files
from trainmaster_trainer.data.tables import jsonl
from trainmaster_trainer.data.tables.read import read_table
from trainmaster_trainer.data.tables.table import ColumnType, Table
from trainmaster_trainer.errors import DataError

from tests.unit.trainer.data.tables.test_rows import loaded


def read(folder: Path, text: str | bytes, name: str = "rows.jsonl", **data: Any) -> Table:
    """Return a table of one file."""
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return table_at(folder, name, **data)


def table_at(folder: Path, source: str, **data: Any) -> Table:
    spec = Data.model_validate({"source": source, "target": "y", **data})
    return read_table(Files.open(source, Storage(), folder, {}, is_table=True), spec)


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def refused(folder: Path, text: str | bytes, **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, text, **data)
    return str(caught.value)


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        ("1 -2 9223372036854775807", ColumnType.INTEGER, [1, -2, 2**63 - 1]),
        ("1 2.5 1e3", ColumnType.NUMBER, [1.0, 2.5, 1000.0]),
        ("1.0 2.0 3.0", ColumnType.NUMBER, [1.0, 2.0, 3.0]),
        ("true null false", ColumnType.BOOLEAN, [True, None, False]),
        ('"1" "2" "007"', ColumnType.TEXT, ["1", "2", "007"]),
        ('"NA" null ""', ColumnType.TEXT, ["NA", None, ""]),
        ('"2024-01-31" "2024-02-01T12:00" null', ColumnType.TIME, None),
        ("null null null", ColumnType.EMPTY, [None, None, None]),
        ("9223372036854775808 1 2", ColumnType.NUMBER, [2.0**63, 1.0, 2.0]),
        ("9223372036854775809 1 2", ColumnType.TEXT, ["9223372036854775809", "1", "2"]),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 100])
def test_jsonl_types_are_those_of_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, cells: str, kind: ColumnType, values: list[Any] | None
) -> None:
    monkeypatch.setattr(jsonl, "LINES", block)
    table = read(tmp_path, "".join(f'{{"a": {cell}, "y": 1}}\n' for cell in cells.split()))
    column = table.column("a")
    assert column.type is kind
    assert values is None or column.values.to_pylist() == values


def test_jsonl_inexact_integers_among_floats_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in (1, 10):
        monkeypatch.setattr(jsonl, "LINES", block)
        column = read(tmp_path, '{"y": 9007199254740993}\n{"y": 0.5}\n{"y": 9007199254740992}\n').column("y")
        assert column.notes == ("1 integers as the nearest number",)
        assert column.values.to_pylist() == [2.0**53, 0.5, 2.0**53]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"y": 1}\n{"y": }\n', "line 2 isn't JSON: Expecting value at character 7"),
        ('{"y": 1}\n\n[1]\n', "line 3 is a list and not an object"),
        ('{"y": 1}\n7\n', "line 2 is 7 and not an object"),
        ('{"y": 1, "a": 2, "y": 3}\n', "line 1 has the key 'y' more than once"),
        ('{"y": 1, "a": {"b": 1, "b": 2}}\n', "line 1 has the key 'b' more than once"),
        ('{"y": NaN}\n', "line 1 has NaN, which JSON doesn't have"),
        ('{"y": -Infinity}\n', "line 1 has -Infinity"),
        ('{"y": "\\ud800"}\n', "line 1 has \\ud800, half of a character"),
        ('{"y": 1} {"y": 2}\n', "line 1 isn't JSON: Extra data at character 10"),
        ('{"y": 1}\n{"y": "a\n', "line 2 isn't JSON"),
        ('{\n  "y": 1\n}\n', "Each line must be one JSON object"),
        ('{"y": ' + "[" * 100_000 + "\n", "line 1 is nested too deeply"),
        ('{"y": 1' + "0" * 5000 + "}\n", "line 1 can't be read"),
    ],
)
def test_jsonl_line_that_is_no_record_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["1", '"1"'], 'column y has numbers (row 1: 1) and text (row 2: "1"): write one type'),
        (["true", "1"], "column y has true or false (row 1: true) and numbers (row 2: 1)"),
        (["null", "0.5", '"a"', "true"], 'numbers (row 2: 0.5) and text (row 3: "a") and true or false (row 4: true)'),
        (["1", "[1]"], "row 2, column y: is a list or an object"),
        (['{"a": 1}', "{}"], "row 2, column y: is a list or an object"),
        (["1.5", "1e999"], "row 2, column y: is beyond what a 64-bit float holds"),
        (["1.5", "1" + "0" * 400], "row 2, column y: is beyond what a 64-bit float holds"),
    ],
)
@pytest.mark.parametrize("block", [1, 100])
def test_jsonl_column_that_no_type_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, values: list[str], words: str
) -> None:
    monkeypatch.setattr(jsonl, "LINES", block)
    assert words in refused(tmp_path, "".join(f'{{"y": {value}}}\n' for value in values))


def test_jsonl_bytes_that_are_not_utf8_are_refused_with_the_line(tmp_path: Path) -> None:
    assert "line 2 has bytes that aren't UTF-8 (e9 22 7d)" in refused(tmp_path, b'{"y": "a"}\n{"y": "\xe9"}\n')
    assert "is UTF-16" in refused(tmp_path, '{"y": 1}\n'.encode("utf-16"))


def test_jsonl_ten_problems_are_named_and_the_others_counted(tmp_path: Path) -> None:
    found = refused(tmp_path, "{\n" * 14)
    assert found.count("isn't JSON") == 10
    assert " and 4 more" in found


def test_jsonl_missing_key_is_null_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in (1, 100):
        monkeypatch.setattr(jsonl, "LINES", block)
        table = read(tmp_path, lines({"a": 1, "y": 1}, {"y": 2, "b": "x"}, {"a": None, "y": 3}))
        assert table.names == ("a", "y", "b")
        assert table.column("a").values.to_pylist() == [1, None, None]
        assert table.column("a").notes == ("null in 1 of 3 rows, which don't have the key",)
        assert table.column("b").notes == ("null in 2 of 3 rows, which don't have the key",)
        assert table.column("y").notes == ()


def test_jsonl_nested_column_may_be_ignored(tmp_path: Path) -> None:
    text = lines({"y": 1, "meta": {"id": 3}}, {"y": 2, "meta": [1]})
    assert "row 1, column meta: is a list or an object" in refused(tmp_path, text)
    table = read(tmp_path, text, columns={"meta": {"role": "ignore"}})
    assert table.column("meta").type is ColumnType.OTHER


def test_jsonl_empty_lines_marks_and_line_ends(tmp_path: Path) -> None:
    table = read(tmp_path, b'\xef\xbb\xbf\r\n{"y": 1}\r\n  \n{"y": 2}')
    assert table.column("y").values.to_pylist() == [1, 2]
    assert [each.what for each in table.left_out] == ["2 empty lines"]
    assert table.parts[0].first_line == 2


def test_jsonl_compressed_and_in_parts(tmp_path: Path) -> None:
    (tmp_path / "days" / "day=1").mkdir(parents=True)
    (tmp_path / "days" / "day=2").mkdir()
    (tmp_path / "days" / "day=1" / "a.jsonl.gz").write_bytes(gzip.compress(b'{"y": 1, "a": "x"}\n'))
    packed = pa.compress(b'{"a": 5}\n{"y": 2.5}\n', codec="zstd", asbytes=True)
    (tmp_path / "days" / "day=2" / "b.jsonl.zst").write_bytes(packed)
    with pytest.raises(DataError, match=r"text .*day=1/a.jsonl.gz: row 1.* and numbers .*day=2/b.jsonl.zst: row 1: 5"):
        table_at(tmp_path, "days", format="jsonl")
    packed = pa.compress(b'{"y": 2.5}\n', codec="zstd", asbytes=True)
    (tmp_path / "days" / "day=2" / "b.jsonl.zst").write_bytes(packed)
    table = table_at(tmp_path, "days", format="jsonl")
    assert table.column("y").values.to_pylist() == [1.0, 2.5]
    assert table.column("a").values.to_pylist() == ["x", None]
    assert table.column("day").values.to_pylist() == [1, 2]
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"y": 1}\n' * 1000)[:-20])
    with pytest.raises(DataError, match="can't be decompressed"):
        table_at(tmp_path, "cut.jsonl.gz")


def test_jsonl_without_rows_is_refused(tmp_path: Path) -> None:
    assert "has no rows" in refused(tmp_path, "\n\n")


def test_jsonl_names_are_unique_and_not_empty(tmp_path: Path) -> None:
    assert "the key '' is no name" in refused(tmp_path, '{"": 1, "y": 2}\n')
    assert "the key 'y ' is one of 2 that are the column 'y'" in refused(tmp_path, '{"y": 1, "y ": 2}\n')


def test_jsonl_is_trained_on_as_a_table(tmp_path: Path) -> None:
    rows = [{"size": index / 7, "city": "ABC"[index % 3], "label": index % 2 == 0} for index in range(60)]
    (tmp_path / "rows.jsonl").write_text(lines(*rows))
    data = loaded(tmp_path, source="rows.jsonl", columns={})
    assert data.rows.features == ["size", "city=A", "city=B", "city=C", "city is another"]
    assert data.rows.labels == ["false", "true"]
    assert "read with format 'jsonl'" in data.about()


cells = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)


@settings(deadline=None)
@given(st.lists(cells, min_size=1, max_size=30), st.integers(1, 40))
def test_jsonl_numbers_are_those_of_python(values: list[float | None], block: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "LINES", block)
        column = read(Path(folder), lines(*({"y": value} for value in values))).column("y")
    if any(isinstance(value, float) for value in values):
        assert column.values.to_pylist() == [None if value is None else float(value) for value in values]
    else:
        assert column.values.to_pylist() == values
