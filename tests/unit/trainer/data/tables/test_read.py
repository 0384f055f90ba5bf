"""What a source's bytes become: rows, types, what was left out, and what is refused, with the row."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.storage import Storage
from trainmaster_trainer.data.files import Files
from trainmaster_trainer.data.tables import raw
from trainmaster_trainer.data.tables import text as text_module
from trainmaster_trainer.data.tables.cache import cached_table
from trainmaster_trainer.data.tables.read import read_table
from trainmaster_trainer.data.tables.table import Table
from trainmaster_trainer.errors import DataError

TYPES = {"int64": "integer", "double": "number", "bool": "boolean", "large_string": "text", "timestamp[us]": "time"}


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the cache write every block of text, and every file, to files of its own."""
    monkeypatch.setattr(raw, "BATCH", 1)
    monkeypatch.setattr(raw, "SEGMENT", 1)


def table(folder: Path, source: str = "t.csv", **data: Any) -> Table:
    """Read a table into memory and through the cache: both must be the same, or the same refusal."""
    spec = Data.model_validate({"source": source, "target": "y", **data})
    files = Files.open(source, Storage(), folder, {}, is_table=True)
    try:
        found = read_table(files, spec)
    except DataError as error:
        with pytest.raises(DataError, match=f"^{re.escape(error.message)}$"):
            cached_table(files, spec, folder / ".cache")
        raise
    cached = cached_table(files, spec, folder / ".cache").table
    assert replace(cached, columns=()) == replace(found, columns=())
    for one, other in zip(found.columns, cached.columns, strict=True):
        assert replace(one, values=None) == replace(other, values=None)
        assert one.values.equals(other.values)
    return found


def of(folder: Path, content: str | bytes, source: str = "t.csv", **data: Any) -> Table:
    (folder / source).parent.mkdir(parents=True, exist_ok=True)
    (folder / source).write_bytes(content.encode() if isinstance(content, str) else content)
    return table(folder, source, **data)


def cells(found: Table) -> dict[str, list[Any]]:
    return {column.name: column.values.to_pylist() for column in found.columns}


def kinds(found: Table) -> dict[str, str]:
    for column in found.columns:  # the Arrow type is the one that the type promises
        assert TYPES.get(str(column.values.type), column.type.value) == column.type.value
    return {column.name: column.type.value for column in found.columns}


def left_out(found: Table) -> list[str]:
    return [f"{each.what} ({each.why})" for each in found.left_out]


def refusal(folder: Path, content: str | bytes, source: str = "t.csv", **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        of(folder, content, source, **data)
    return str(caught.value)


def parquet(folder: Path, name: str = "t.parquet", **columns: Any) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / name)


# --- rows and fields -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b,y\n1,2,3,0\n4,5,6,1\n", "row 1 has 4 fields, the header 3; row 2 has 4 fields, the header 3"),
        ("a,b\n1,2,\n3,4,\n", "row 1 has 3 fields, the header 2; row 2 has 3 fields, the header 2"),
        ("a,b\n1,2\n3,4,\n", "row 2 has 3 fields, the header 2"),
        ("a,b,c\n1,2,3\n1,2\n", "row 2 has 2 fields, the header 3"),
        ("a,b\n\n1,2\n\n3\n", "row 2 has 1 field, the header 2"),
        ('a,b\n"1\n,2",2\n3\n', "row 2 has 1 field, the header 2"),
        ("a\n1;2\n", "row 1 has 2 fields, the header 1"),
        ("a,b,\n1,2,\n", "field 3 of the header has no name"),
        ("a,,b,\n1,2,3,4\n", "field 2 of the header has no name; field 4 of the header has no name"),
        ("a,b, a ,b\n1,2,3,4\n", "field 3 of the header is 'a' again, as field 1; field 4 of the header is 'b' again"),
        ('a,b\n1,2\n1,5" pipe\n', "row 2 has a quote inside a field"),
        ('a,b\n1,"x"y\n', "row 1 has a quote inside a field"),
        ('a,b\n1,"say \\"hi\\" now"\n', "row 1 has a quote inside a field"),
        ('a,b\n1,2\n3,"4\n5,6\n', "row 2 has a quote that is never closed"),
        ("a,b\n1,2\n3,\x004\n", "row 2 has a NUL byte"),
        ("a,b\n", "has a header and no rows"),
        ("a,b\n \n\n", "has a header and no rows"),
        ("", "is empty"),
        ("\n\n", "is empty"),
    ],
)
def test_broken_text_is_refused_with_its_row(tmp_path: Path, content: str, words: str) -> None:
    found = refusal(tmp_path, content)
    assert found.startswith("t.csv")
    assert words in found
    if "\x00" not in content and content.strip():
        assert words in refusal(tmp_path, content.replace("\n", "\r\n"))


def test_ten_rows_are_named_and_the_others_counted(tmp_path: Path) -> None:
    found = refusal(tmp_path, "a,b\n" + "1,2\n" * 3 + "1,2,3\n" * 12)
    assert "row 4 has 3 fields" in found
    assert "row 13 has" in found
    assert "row 14" not in found
    assert "and 2 more" in found


def test_row_numbers_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "CHUNK", 7)
    monkeypatch.setattr(raw, "TEXT_BLOCK", 7)
    rows = [f'{row},"x\r\n{row}" , {row / 2}' for row in range(100)]
    found = of(tmp_path, "a,b,c\r\n" + "\r\n\r\n".join(rows))
    assert cells(found)["b"] == [f"x\r\n{row}" for row in range(100)]
    assert cells(found)["c"] == [row / 2 for row in range(100)]
    assert left_out(found) == ["99 empty lines (no fields)"]
    rows[73] += ",1"
    assert "row 74 has 4 fields, the header 3." in refusal(tmp_path, "a,b,c\r\n" + "\r\n\r\n".join(rows))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_space_around_fields_and_empty_lines(tmp_path: Path, end: str) -> None:
    lines = ["", ' a ,"b\nc"\t, d', " 1 , x y , ' '", "   ", '\t2, " x ",NA ', "3,NA  ,"]
    found = of(tmp_path, end.join(lines) + end)
    assert cells(found) == {"a": [1, 2, 3], "b\nc": ["x y", " x ", None], "d": ["' '", None, None]}
    assert left_out(found) == ["2 empty lines (no fields)"]
    assert found.parts[0].first_line == 4  # the header has a line break


def test_index_that_to_csv_writes_is_left_out(tmp_path: Path) -> None:
    pd.DataFrame({"x": [0.5, 1.5], "y": [0, 1]}).to_csv(tmp_path / "t.csv")
    found = table(tmp_path)
    assert kinds(found) == {"x": "number", "y": "integer"}
    assert left_out(found) == ["the first column, which has no name (counts the rows)"]
    assert found.names == of(tmp_path, '"","x","y"\n"1",0.5,0\n"2",1.5,1\n').names  # R's write.csv


@pytest.mark.parametrize(
    "rows", ["5,1\n6,1\n", "0,1\n2,1\n", "1,1\n0,1\n", "0,1\n,1\n", "a,1\nb,1\n", "0.0,1\n1.0,1\n"]
)
def test_nameless_column_that_does_not_count_is_refused(tmp_path: Path, rows: str) -> None:
    assert "field 1 of the header has no name, and its column doesn't count the rows" in refusal(
        tmp_path, f",y\n{rows}"
    )


# --- dialect ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "data", "dialect"),
    [
        ("x;y\n1,5;ä\n2;b\n".encode("utf-8-sig"), {}, ("utf-8", ";", ",")),
        ("x,y\n1.5,ä\n2,b\n".encode("utf-16"), {}, ("utf-16-le", ",", ".")),
        (codecs.BOM_UTF16_BE + "x,y\n1.5,ä\n2,b\n".encode("utf-16-be"), {}, ("utf-16-be", ",", ".")),
        ("x\ty\n1.5\tä\n2\tb\n".encode("utf-32"), {}, ("utf-32-le", "\t", ".")),
        ("x|y\n1.5|ä\n2|b\n".encode("latin-1"), {"csv": {"encoding": "latin-1"}}, ("iso8859-1", "|", ".")),
        ("x:y\n1.5:'ä'\n2:b\n".encode(), {"csv": {"delimiter": ":", "quote": "'"}}, ("utf-8", ":", ".")),
        ("x y\n1.5 ä\n2 b\n".encode(), {"csv": {"delimiter": " "}}, ("utf-8", " ", ".")),
    ],
)
def test_dialect_is_recognised_or_declared_and_recorded(
    tmp_path: Path, content: bytes, data: dict[str, Any], dialect: tuple[str, ...]
) -> None:
    found = of(tmp_path, content, **data)
    assert cells(found) == {"x": [1.5, 2.0], "y": ["ä", "b"]}
    assert tuple(found.dialect[key] for key in ("encoding", "delimiter", "decimal")) == dialect
    assert found.dialect["recognised"] == [
        key for key in ("encoding", "delimiter", "decimal") if key not in data.get("csv", {})
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n3,ä\n".encode("latin-1"), "row 2 has bytes that aren't UTF-8 (e4"),
        ("a,ä\n1,2\n".encode("latin-1"), "the header has bytes that aren't UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "the header has a NUL byte"),
        ("a,b\n1,2\n3,4".encode("utf-16")[:-1], "row 2 has bytes that aren't UTF-16-LE"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0), "It is compressed with gzip: name it .csv.gz"),
    ],
)
def test_other_bytes_are_refused_with_the_row(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in refusal(tmp_path, content)


def test_null_words_only_where_not_quoted(tmp_path: Path) -> None:
    content = 'x,y\nNA,NA\n"NA","NA"\n,\n"",b\n'
    assert cells(of(tmp_path, content)) == {"x": [None, "NA", None, ""], "y": ["NA", "NA", None, "b"]}
    declared = of(tmp_path, content, nulls=["NA", "b"])
    assert cells(declared) == {"x": [None, "NA", "", ""], "y": [None, "NA", "", None]}
    assert declared.dialect["nulls"] == declared.dialect["targetNulls"] == ["NA", "b"]


# --- types over all files --------------------------------------------------------------------------------------------


def test_type_is_of_the_whole_column_not_of_a_part(tmp_path: Path) -> None:
    of(tmp_path, "a,b,c\n1,1,1\n", "d/p0.csv", format="csv")
    found = of(tmp_path, "b,a,c\nx,1.5,2\n", "d/p1.csv", format="csv")
    assert found.names == ("b", "a", "c")
    found = table(tmp_path, "d", format="csv")
    assert kinds(found) == {"a": "number", "b": "text", "c": "integer"}
    assert cells(found) == {"a": [1.0, 1.5], "b": ["1", "x"], "c": [1, 2]}
    assert found.where(1) == "p1.csv: row 1"


def test_one_fraction_in_the_last_row_makes_numbers(tmp_path: Path) -> None:
    found = of(tmp_path, "a,y\n" + "1,0\n" * 5000 + "1.0,1\n1.5,1\n")
    assert kinds(found) == {"a": "number", "y": "integer"}
    assert set(cells(found)["a"]) == {1.0, 1.5}


def test_timestamps_with_nulls_are_the_same_from_both(tmp_path: Path) -> None:
    moments = [datetime(2024, 1, 2, 3, 4, 5), None, datetime(1960, 2, 29)]
    parquet(tmp_path, when=pa.array(moments, pa.timestamp("ns")), y=pa.array([0, 1, 0], pa.int8()))
    pd.DataFrame({"when": moments, "y": [0, 1, 0]}).to_csv(tmp_path / "t.csv", index=False)
    one, other = table(tmp_path, "t.parquet"), table(tmp_path)
    assert kinds(one) == kinds(other) == {"when": "time", "y": "integer"}
    assert cells(one) == cells(other) == {"when": moments, "y": [0, 1, 0]}


def test_names_from_an_array_are_text(tmp_path: Path) -> None:
    pd.DataFrame([[1.5, 2.5], [3.5, 4.5]]).to_parquet(tmp_path / "t.parquet")
    assert table(tmp_path, "t.parquet").names == ("0", "1")


def test_parquet_index_without_name_is_left_out(tmp_path: Path) -> None:
    pd.DataFrame({"x": [1, 2]}, index=[7, 9]).to_parquet(tmp_path / "t.parquet")
    found = table(tmp_path, "t.parquet")
    assert (found.names, left_out(found)) == (
        ("x",),
        ["column __index_level_0__ (the index of pandas, which has no name)"],
    )


@pytest.mark.parametrize("content", [b"", b"PAR1", b"a,b\n1,2\n"])
def test_parquet_that_is_none(tmp_path: Path, content: bytes) -> None:
    assert refusal(tmp_path, content, "t.parquet").startswith("t.parquet: can't be read as Parquet: ")


def test_parquet_cut_off_or_without_rows(tmp_path: Path) -> None:
    parquet(tmp_path, a=[1, 2])
    whole = (tmp_path / "t.parquet").read_bytes()
    assert "can't be read as Parquet" in refusal(tmp_path, whole[:-9], "t.parquet")
    parquet(tmp_path, a=pa.array([], pa.int64()))
    with pytest.raises(DataError, match=r"^t\.parquet has no rows$"):
        table(tmp_path, "t.parquet")


# --- files -----------------------------------------------------------------------------------------------------------


def test_folder_as_spark_writes_it(tmp_path: Path) -> None:
    for name, content in {
        "part-10.csv": "a\n3\n",
        "part-1.csv": "a\n1\n2\n",
        "part-2.csv": "",
        "_SUCCESS": "",
        ".part-1.csv.crc": "x",
        "README.md": "x",
    }.items():
        (tmp_path / "out.csv").mkdir(exist_ok=True)
        (tmp_path / "out.csv" / name).write_text(content)
    found = table(tmp_path, "out.csv")
    assert cells(found) == {"a": [1, 2, 3]}
    assert [(part.name, part.rows, part.first_line) for part in found.parts] == [
        ("part-1.csv", 2, 2),
        ("part-10.csv", 1, 2),
    ]
    assert left_out(found) == [
        "2 files: out.csv/.part-1.csv.crc, out.csv/_SUCCESS (hidden or a marker)",
        "1 file: out.csv/README.md (of another format)",
        "1 file: out.csv/part-2.csv (empty)",
    ]


def test_hive_partitions_are_columns(tmp_path: Path) -> None:
    for folder, value in (
        ("year=2024/city=a%2Fb", 1),
        ("year=2023/city=__HIVE_DEFAULT_PARTITION__", 2),
        ("year=2025/city=007", 3),
    ):
        parquet(tmp_path, f"t/{folder}/part-0.parquet", x=[value])
    found = table(tmp_path, "t", format="parquet")
    assert kinds(found) == {"x": "integer", "year": "integer", "city": "text"}
    assert cells(found) == {"x": [2, 1, 3], "year": [2023, 2024, 2025], "city": [None, "a/b", "007"]}
    narrow = table(tmp_path, "t/year=202*/city=0*/*.parquet")
    assert cells(narrow) == {"x": [3], "year": [2025], "city": ["007"]}
    parquet(tmp_path, "t/year=2026/part-0.parquet", x=[4])
    with pytest.raises(DataError, match=r"part-0\.parquet has the partitions \['year', 'city'\], .*\['year'\]"):
        table(tmp_path, "t", format="parquet")


def test_partition_that_is_a_column_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path, "t/x=1/p.parquet", x=[2])
    with pytest.raises(DataError, match="'x' is a column and a partition"):
        table(tmp_path, "t", format="parquet")


def test_parts_without_a_column_are_refused_by_name(tmp_path: Path) -> None:
    parquet(tmp_path, "t/0.parquet", a=[1], b=[1])
    parquet(tmp_path, "t/1.parquet", a=[1], c=[1])
    with pytest.raises(DataError, match=r"^t: 0\.parquet has no column 'c', .*; 1\.parquet has no column 'b', "):
        table(tmp_path, "t", format="parquet")


def test_pattern_and_names(tmp_path: Path) -> None:
    for name in ("a/1.csv", "a/b/2.csv", "3.csv", "4.tsv", ".5.csv"):
        of(tmp_path, f"x\n{name[-5]}\n", name)
    assert cells(table(tmp_path, "*.csv")) == {"x": [3]}
    assert cells(table(tmp_path, "a/*.csv")) == {"x": [1]}
    assert cells(table(tmp_path, "**/*.csv")) == {"x": [3, 1, 2]}
    assert cells(of(tmp_path, "x\n9\n", "a[1]*.csv")) == {"x": [9]}  # a file of that name is that file
    assert cells(of(tmp_path, "x\n8\n", "rows.txt", format="csv")) == {"x": [8]}
    with pytest.raises(DataError, match=r"a/\*\.parquet: no file that ends in \.parquet"):
        table(tmp_path, "a/*.parquet")


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_compressed_text(tmp_path: Path, ending: str) -> None:
    plain = ("x,y\n" + "".join(f"{row},{row % 2}\n" for row in range(5000))).encode()
    packed = gzip.compress(plain) if ending == "gz" else pa.compress(plain, codec="zstd", asbytes=True)
    name = f"t.csv.{ending}"
    assert cells(of(tmp_path, packed, name))["x"] == list(range(5000))
    cut = refusal(tmp_path, packed[: len(packed) // 2], name)
    assert cut.startswith(f"{name}: can't be decompressed")
    assert "can't be decompressed" in refusal(tmp_path, plain, name)
    if ending == "gz":
        assert len(of(tmp_path, packed + gzip.compress(b"7,1\n", mtime=0), name)) == 5001


def test_compression_that_is_not_read_is_refused(tmp_path: Path) -> None:
    of(tmp_path, "x\n1\n", "d/a.csv")
    (tmp_path / "d/b.csv.bz2").write_bytes(b"x")
    with pytest.raises(DataError, match=r"d/b\.csv\.bz2 can't be read: text may be compressed as \.gz or \.zst"):
        table(tmp_path, "d", format="csv")


# --- the same from CSV and Parquet -----------------------------------------------------------------------------------

_WORD = st.text(st.characters(codec="utf-8", exclude_characters="\x00\ufeff"), min_size=1, max_size=8)
_NAME = _WORD.map(str.strip).filter(lambda name: bool(name))
_TEXT = _WORD.map(lambda word: f"#{word}#")  # neither null nor a number, no space at its ends
_TIMES = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))
_CELLS: dict[str, tuple[st.SearchStrategy[Any], pa.DataType]] = {
    "text": (_TEXT, pa.string()),
    "integer": (st.integers(-(2**63), 2**63 - 1), pa.int64()),
    "number": (
        st.floats(allow_nan=False).filter(lambda value: value != int(value) if abs(value) < 1e15 else True),
        pa.float64(),
    ),
    "boolean": (st.booleans(), pa.bool_()),
    "time": (_TIMES, pa.timestamp("us")),
    "date": (st.dates(date(1, 1, 1)), pa.date32()),
    "zoned": (
        _TIMES.map(lambda at: at.replace(tzinfo=timezone(timedelta(hours=5, minutes=30)))),
        pa.timestamp("us", "Asia/Kolkata"),
    ),
}


@st.composite
def _tables(draw: st.DrawFn) -> tuple[list[str], list[str], list[list[Any]]]:
    width, rows = draw(st.integers(2, 5)), draw(st.integers(1, 6))
    names = draw(st.lists(_NAME, min_size=width, max_size=width))  # twice the same: refused from both
    types = [draw(st.sampled_from(sorted(_CELLS))) for _ in names]
    columns = [draw(st.lists(st.none() | _CELLS[kind][0], min_size=rows, max_size=rows)) for kind in types]
    return names, types, columns


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    _tables(),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_csv_and_parquet_read_to_equal_columns(
    tmp_path: Path, drawn: tuple[list[str], list[str], list[list[Any]]], delimiter: str, end: str, encoding: str
) -> None:
    names, types, columns = drawn
    if end == "\n":  # Python's writer doesn't quote a CR then, and no reader can tell it from the end of a row
        names = [name.replace("\r", "_") for name in names]
        columns = [[cell.replace("\r", "_") if isinstance(cell, str) else cell for cell in each] for each in columns]
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end)
    writer.writerow(names)
    writer.writerows(zip(*columns, strict=True))
    (tmp_path / "t.csv").write_bytes(out.getvalue().encode(encoding))
    arrays = [pa.array(column, _CELLS[kind][1]) for column, kind in zip(columns, types, strict=True)]
    pq.write_table(pa.table(arrays, names=names), tmp_path / "t.parquet")
    results = []
    for source in ("t.csv", "t.parquet"):
        try:
            found = table(tmp_path, source, csv={"delimiter": delimiter, "decimal": "."})
            results.append((kinds(found), cells(found)))
        except DataError:
            results.append(({}, {}))
    assert results[0] == results[1]
    assert bool(results[0][0]) == (len(set(names)) == len(names))
