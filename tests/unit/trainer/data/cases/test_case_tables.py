"""Situations with tables from public bug reports, and further members of their kinds: never a wrong number quietly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.errors import DataError

from tests.unit.trainer.harness import small_job, train

ROWS = 200
DICE = np.random.default_rng(7)
A, B = DICE.normal(size=(2, ROWS)).round(4)
CLASSES = (A + B > 0).astype(int)


def job(source: str, task: str = "classification", **data: Any) -> Any:
    asked = {"source": source, "target": "y", "batchSize": 16, **data}
    return small_job({"spec.training.task": {"name": task}, "spec.training.data": asked})


def load(folder: Path, source: str = "t.csv", task: str = "classification", **data: Any) -> Prepared:
    return load_data(job(source, task, **data), folder, {})


def refusal(folder: Path, source: str = "t.csv", task: str = "classification", **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(folder, source, task, **data)
    return str(caught.value)


def write(folder: Path, columns: dict[str, Sequence[Any]], name: str = "t.csv") -> None:
    """Write columns as a text file or as Parquet, by the name."""
    if name.endswith(".parquet"):
        pq.write_table(pa.table({key: pa.array(list(values)) for key, values in columns.items()}), folder / name)
        return
    rows = zip(*columns.values(), strict=True)
    lines = [",".join("" if cell is None else str(cell) for cell in row) for row in rows]
    (folder / name).write_text("\n".join([",".join(columns), *lines]) + "\n")


def roles(data: Prepared) -> dict[str, str]:
    return {each["name"]: each["role"] for each in data.description()["table"]["columns"]}


def accuracy(folder: Path, source: str = "t.csv", epochs: int = 20, **data: Any) -> float:
    asked = job(source, **data).model_dump(by_alias=True)
    asked["spec"]["training"]["loop"] = {"duration": f"{epochs}ep", "seed": 1}
    asked["spec"]["training"]["optimizer"] = {"name": "adamw", "lr": 0.01}
    found = type(job(source)).model_validate(asked)
    return train(found, folder).test_metrics["test/accuracy"]


# --- fields that don't belong to their column (pandas#15203) ---------------------------------------------------------

LINES = [f"{a},{b},{y}" for a, b, y in zip(A, B, CLASSES, strict=True)]


def text(header: str = "a,b,y", change: Callable[[list[str]], list[str]] = lambda lines: lines) -> str:
    return "\n".join([header, *change(LINES)]) + "\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (text(change=lambda lines: [f"{line},1" for line in lines]), "row 1 has 4 fields, the header 3"),
        (text(change=lambda lines: [f"{line}," for line in lines]), "row 1 has 4 fields, the header 3"),
        (text("a,b,y,"), "row 1 has 3 fields, the header 4"),
        (text("a,b,y,", lambda lines: [f"{line}," for line in lines]), "field 4 of the header has no name"),
        (text(change=lambda lines: [f"{n},{line}" for n, line in enumerate(lines)]), "row 1 has 4 fields"),  # of R
        (text(change=lambda lines: [*lines[:150], "1.5,1", *lines[151:]]), "row 151 has 2 fields, the header 3"),
        (text(change=lambda lines: [*lines[:-1], "1"]), "row 200 has 1 field, the header 3"),  # cut off
        (text(change=lambda lines: [*lines, "\x1a"]), "row 201 has 1 field, the header 3"),
        (text(change=lambda lines: [*lines[:9], lines[9].replace(",", ",1,", 1), *lines[10:]]), "row 10 has 4 fields"),
        ("# made by a tool\n" + text(), "row 1 has 3 fields, the header 1"),
        ("sep=,\n" + text(), "row 1 has 3 fields, the header 2"),
        (text(change=lambda lines: [*lines[:99], "a,b,y", *lines[99:]]), "row 100, column a: 'a' is not a finite"),
        (text(change=lambda lines: [*lines, "sum,,100"]), "row 201, column a: 'sum' is not a finite number"),
        (text(change=lambda lines: [line.replace(".", ",") for line in lines]), "row 1 has 5 fields, the header 3"),
    ],
    ids=[
        "extra", "trailing", "header-trailing", "both-trailing", "row-names", "short", "cut-off", "ctrl-z", "inserted",
        "comment", "sep", "header-again", "total", "decimal-comma",
    ],
)  # fmt: skip
def test_shifted_columns_are_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    assert words in refusal(tmp_path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_breaks_inside_quotes_shift_nothing(tmp_path: Path, end: str) -> None:
    lines = [f'{a},"x{end}{n % 3}, ""y""",{y}' for n, (a, y) in enumerate(zip(A, CLASSES, strict=True))]
    (tmp_path / "t.csv").write_bytes(end.join(["a,b,y", *lines]).encode())
    data = load(tmp_path, normalize=False)
    assert roles(data) == {"a": "numeric", "b": "categorical", "y": "target"}
    x, y = data.rows.batch(np.arange(ROWS))
    np.testing.assert_array_equal(x[:, 0].numpy(), A.astype(np.float32))
    np.testing.assert_array_equal(x[:, 1:4].argmax(dim=1).numpy(), np.arange(ROWS) % 3)
    np.testing.assert_array_equal(y.numpy(), CLASSES)


# --- timestamps with nulls (pandas#43280) ----------------------------------------------------------------------------

HOURS = [datetime(2024, 1, 1) + timedelta(hours=5 * n) for n in range(ROWS)]
TIMES: dict[str, tuple[Callable[[datetime], Any], pa.DataType]] = {
    "us": (lambda at: at, pa.timestamp("us")),
    "ns": (lambda at: at, pa.timestamp("ns")),
    "s": (lambda at: at, pa.timestamp("s")),
    "date32": (lambda at: at.date(), pa.date32()),
    "date64": (lambda at: at.date(), pa.date64()),
    "zone": (lambda at: at.replace(tzinfo=UTC), pa.timestamp("ms", "Europe/Oslo")),
}


def events(folder: Path, kind: str, is_null: Callable[[int], bool]) -> list[datetime | None]:
    """Write times with nulls as Parquet, and the same as text; the times as they should be read."""
    make, of = TIMES[kind]
    cells = [None if is_null(n) else make(at) for n, at in enumerate(HOURS)]
    pq.write_table(pa.table({"a": A, "seen": pa.array(cells, of), "y": CLASSES}), folder / "t.parquet")
    write(folder, {"a": A, "seen": [None if cell is None else cell.isoformat() for cell in cells], "y": CLASSES})
    return [None if cell is None else datetime.fromisoformat(cell.isoformat()).replace(tzinfo=None) for cell in cells]


@pytest.mark.parametrize("kind", TIMES)
def test_timestamps_with_nulls_are_the_same_from_both(tmp_path: Path, kind: str) -> None:
    cells = events(tmp_path, kind, lambda n: n % 10 == 3)
    for source in ("t.csv", "t.parquet"):
        assert "row 4, column seen: is empty; row 14, column seen: is empty" in refusal(tmp_path, source)
    both = [load(tmp_path, source, missing="impute") for source in ("t.csv", "t.parquet")]
    assert roles(both[0]) == roles(both[1]) == {"a": "numeric", "seen": "datetime", "y": "target"}
    first, second = (data.rows.batch(np.arange(ROWS))[0].numpy() for data in both)
    np.testing.assert_array_equal(first, second)
    # days since the mean of the train split, scaled; a null is the median of the train split
    days = np.array([np.nan if cell is None else (cell - HOURS[0]) / timedelta(days=1) for cell in cells])
    of_train = days[both[0].train]
    filled = np.where(np.isnan(days), np.nanmedian(of_train), days)
    expected = (filled - np.nanmean(of_train)) / np.nanstd(of_train)
    column = both[0].rows.features.index("seen days")
    np.testing.assert_allclose(first[:, column], expected, atol=1e-4)


@pytest.mark.parametrize("kind", TIMES)
def test_times_that_are_all_null_are_left_out(tmp_path: Path, kind: str) -> None:
    events(tmp_path, kind, lambda n: True)
    for source in ("t.csv", "t.parquet"):
        assert roles(load(tmp_path, source)) == {"a": "numeric", "seen": "ignore", "y": "target"}


def test_one_null_in_no_row_of_train_is_refused_as_well(tmp_path: Path) -> None:
    held = int(load_split(tmp_path)[0])
    events(tmp_path, "us", lambda n: n == held)
    for source in ("t.csv", "t.parquet"):
        assert f"row {held + 1}, column seen: is empty" in refusal(tmp_path, source)


def load_split(folder: Path) -> Any:
    write(folder, {"a": A, "y": CLASSES}, "plain.csv")
    return load(folder, "plain.csv").validation


@pytest.mark.parametrize(
    "values",
    [
        pa.array([at.time() for at in HOURS], pa.time64("us")),
        pa.array([timedelta(hours=n) for n in range(ROWS)], pa.duration("us")),
        pa.array([[n] for n in range(ROWS)]),
        pa.array([{"n": n} for n in range(ROWS)]),
        pa.array([b"%d" % n for n in range(ROWS)]),
    ],
    ids=lambda values: str(values.type),
)
def test_type_without_a_role_is_named_and_never_a_number(tmp_path: Path, values: pa.Array) -> None:
    pq.write_table(pa.table({"a": A, "b": values, "y": CLASSES}), tmp_path / "t.parquet")
    data = load(tmp_path, "t.parquet")
    assert data.rows.features == ["a"]
    assert "left out: b: holds" in data.about()
    assert "'b'" in refusal(tmp_path, "t.parquet", features=["a", "b"])


def test_text_that_is_almost_a_time_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"a": A, "seen": ["0000-00-00" if n == 3 else at for n, at in enumerate(HOURS)], "y": CLASSES})
    about = " ".join(load(tmp_path).about().split())
    assert "seen: text, though 199 of 200 cells are times: not row 4 '0000-00-00'" in about
    assert roles(load(tmp_path, nulls=["0000-00-00"], missing="impute"))["seen"] == "datetime"


# --- large numbers with small differences (xgb2sql#1) ----------------------------------------------------------------


@pytest.mark.parametrize("base", [1_760_000_000, 1_760_000_000_000_000_000, -(2**62)], ids=["s", "ns", "low"])
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_large_numbers_are_as_good_as_a_linear_fit(tmp_path: Path, base: int, name: str) -> None:
    steps = np.arange(ROWS * 2)
    y = steps / 2 + np.random.default_rng(1).normal(size=ROWS * 2)
    write(tmp_path, {"t": [base + int(step) for step in steps], "y": y.round(3).tolist()}, name)
    spec = job(name, "regression", batchSize=32).model_dump(by_alias=True)
    spec["spec"]["training"] |= {
        "model": {"name": "mlp", "args": {"hidden": []}},
        "optimizer": {"name": "adamw", "lr": 0.05},
        "loop": {"duration": "60ep", "seed": 1},
    }
    found = train(type(job(name)).model_validate(spec), tmp_path).test_metrics
    held = load(tmp_path, name, "regression", batchSize=32)
    line = np.polynomial.Polynomial.fit(steps[held.train], y[held.train], 1)
    rmse = float(np.sqrt(np.mean((line(steps[held.test]) - y[held.test]) ** 2)))
    assert found["test/rmse"] == pytest.approx(rmse, rel=0.05)
    assert found["test/r2"] > 0.999


# --- values that no network takes (gluonts PR 3312) ------------------------------------------------------------------


@pytest.mark.parametrize("value", [1.7976931348623157e308, -1e308, 1e39, -3.5e38, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("column", ["b", "y"])
def test_value_beyond_float32_is_refused_by_row_and_column(
    tmp_path: Path, value: float, name: str, column: str
) -> None:
    cells = {"a": A.tolist(), "b": B.tolist(), "y": (A + B).tolist()}
    cells[column][17] = value
    write(tmp_path, cells, name)
    assert f"row 18, column {column}: {value!r} is " in refusal(tmp_path, name, "regression")


@pytest.mark.parametrize("cell", ["1e400", "-1e400"])
def test_number_beyond_float64_is_refused_by_row_and_column(tmp_path: Path, cell: str) -> None:
    write(tmp_path, {"a": A, "b": [cell if n == 17 else b for n, b in enumerate(B)], "y": CLASSES})
    assert f"row 18, column b: '{cell}' is beyond" in refusal(tmp_path)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_target_without_a_value_is_refused(tmp_path: Path, task: str, name: str) -> None:
    y = [float("nan") if n == 17 else float(y) for n, y in enumerate(CLASSES)]
    write(tmp_path, {"a": A, "y": [None if cell != cell and name == "t.csv" else cell for cell in y]}, name)
    for missing in ("error", "impute", "drop"):
        assert "row 18, column y: the" in refusal(tmp_path, name, task, missing=missing)


@pytest.mark.parametrize("where", ["train", "validation"])
def test_value_that_float32_has_and_a_network_overflows_on(tmp_path: Path, where: str) -> None:
    """In validation it is refused; in train it is scaled down with all others, which is said."""
    row = int(getattr(load_split_of(tmp_path), where)[0])
    write(tmp_path, {"a": A, "b": [3e38 if n == row else b for n, b in enumerate(B)], "y": CLASSES})
    if where == "validation":
        assert f"row {row + 1}, column b: 3e+38 is too far" in refusal(tmp_path)
    else:
        about = " ".join(load(tmp_path).about().split())
        assert f"b: row {row + 1} is 3e+38, far from all others" in about
        assert "b: float32 can tell 2 of its" in about


def load_split_of(folder: Path) -> Prepared:
    write(folder, {"a": A, "y": CLASSES}, "plain.csv")
    return load(folder, "plain.csv")


# --- parts that don't belong together --------------------------------------------------------------------------------


def part(folder: Path, number: int, content: str | bytes) -> None:
    (folder / "days").mkdir(exist_ok=True)
    (folder / "days" / f"{number}.csv").write_bytes(content.encode() if isinstance(content, str) else content)


FIRST, SECOND = text(change=lambda lines: lines[:100]), text(change=lambda lines: lines[100:])


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (SECOND.replace(",", ";"), "1.csv has no column 'a'"),
        (SECOND.partition("\n")[2], "1.csv has no column 'a'"),
        (SECOND.replace("a,b,y", "A,b,y"), "0.csv has no column 'A', which other files have"),
        (SECOND.replace(".", ","), "1.csv: row 1 has 5 fields, the header 3"),
        (SECOND[:-4], "1.csv: row 100 has "),
        (SECOND.replace("a,b,y\n", "a,b,y\nx,1,1\n"), "1.csv: row 1, column a: 'x' is not a finite number"),
    ],
    ids=["delimiter", "no-header", "case", "decimal", "cut-off", "word"],
)
def test_part_of_another_form_is_refused_by_name(tmp_path: Path, second: str, words: str) -> None:
    part(tmp_path, 0, FIRST)
    part(tmp_path, 1, second)
    assert words in refusal(tmp_path, "days", format="csv")


@pytest.mark.parametrize(
    "second",
    [
        SECOND.encode("utf-16"),
        SECOND.replace("\n", "\r\n"),
        "y,b,a\n" + "".join(",".join(line.split(",")[::-1]) + "\n" for line in LINES[100:]),
        "\ufeff" + SECOND,
    ],
    ids=["utf-16", "crlf", "order", "mark"],
)
def test_part_that_is_written_otherwise_has_the_same_numbers(tmp_path: Path, second: str | bytes) -> None:
    part(tmp_path, 0, FIRST)
    part(tmp_path, 1, second)
    data = load(tmp_path, "days", format="csv", normalize=False)
    x, y = data.rows.batch(np.arange(ROWS))
    np.testing.assert_array_equal(x.numpy(), np.c_[A, B].astype(np.float32))
    np.testing.assert_array_equal(y.numpy(), CLASSES)


def test_part_that_is_there_twice_is_said(tmp_path: Path) -> None:
    for number, content in enumerate((FIRST, SECOND, FIRST)):
        part(tmp_path, number, content)
    warnings = load(tmp_path, "days", format="csv").warnings
    assert any("of train are exact copies of rows of validation or test (0.csv: row" in each for each in warnings)
