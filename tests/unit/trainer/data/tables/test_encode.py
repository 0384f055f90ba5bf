"""Encoding: what numpy computes by hand, fitted on the train split alone."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pytest
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.task import Task
from trainmaster_trainer.data.tables.encode import Encoder
from trainmaster_trainer.data.tables.rows import TableRows
from trainmaster_trainer.data.tables.table import ColumnType
from trainmaster_trainer.errors import DataError

from .test_roles import COLUMNS, make_table

TRAIN = np.arange(40)


def fitted(given: dict[str, tuple[ColumnType, list[Any]]], **data: Any) -> TableRows:
    asked = Data.model_validate({"source": "x.csv", "target": "y"} | data)
    rows = TableRows(make_table(**given, y=COLUMNS["y"]), asked, Task(name="classification"))
    rows.fit(TRAIN)
    return rows


@pytest.mark.parametrize("base", [1_760_000_000, 1_760_000_000_000_000_000, -(2**62), 2**62])
def test_large_whole_numbers_keep_their_differences(base: int) -> None:
    values = [base + 3 * i for i in range(60)]
    small = 3.0 * np.arange(60)
    x = fitted({"a": (ColumnType.INTEGER, values)}).x[:, 0].numpy()
    expected = (small - small[:40].mean()) / small[:40].std()
    np.testing.assert_allclose(x, expected.astype(np.float32), rtol=1e-6, atol=1e-7)


def test_categories_are_those_of_the_train_split_and_another() -> None:
    values = ["b", "a"] * 20 + ["z"] * 20
    rows = fitted({"c": (ColumnType.TEXT, values)})
    assert rows.features == ["c=a", "c=b", "c is another"]
    assert rows.x[[0, 1, 59]].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_categories_as_numbers_begin_with_all_others() -> None:
    values: list[Any] = ["b", "a", None, "a"] * 10 + ["z"] * 20
    rows = fitted({"n": (ColumnType.NUMBER, [float(i % 7) for i in range(60)]), "c": (ColumnType.TEXT, values)},
                  missing="impute", categories="index")  # fmt: skip
    assert rows.features == ["n", "c"]
    assert rows.x[[0, 1, 2, 59], 1].tolist() == [2, 1, 3, 0]
    assert rows.categories == ((1, 4),)


def test_impute_is_the_median_of_the_train_split() -> None:
    values: list[Any] = [float(i) for i in range(60)]
    values[50] = None
    rows = fitted({"a": (ColumnType.NUMBER, values)}, missing="impute", columns={"a": {"indicator": True}})
    assert rows.features == ["a", "a is missing"]
    assert rows.x[50].tolist() == [0.0, 1.0]  # median 19.5 is the mean of 0 .. 39
    assert rows.x[:, 1].sum() == 1


def test_far_value_beside_a_train_split_of_zeros_is_refused() -> None:
    values = [0.0] * 59 + [2e16]
    with pytest.raises(DataError, match=r"row 60, column a: 2e\+16 is too far"):
        fitted({"a": (ColumnType.NUMBER, values)})
    assert float(fitted({"a": (ColumnType.NUMBER, values)}, normalize=False).x[59, 0]) == np.float32(2e16)


def test_drop_counts_rows() -> None:
    values: list[Any] = [float(i) for i in range(60)]
    values[3] = values[50] = None
    rows = fitted({"a": (ColumnType.NUMBER, values)}, missing="drop")
    assert len(rows) == len(rows.x) == 58
    assert rows.dropped == {"a": 2}
    assert "dropped: 2 of 60 rows" in rows.report.text()


def test_times_with_nulls_are_never_a_number() -> None:
    times: list[Any] = [dt.datetime(2024, 1, 1) + dt.timedelta(hours=5 * i) for i in range(60)]
    times[7] = None
    with pytest.raises(DataError, match="row 8, column t: is empty"):
        fitted({"t": (ColumnType.TIME, times)})
    rows = fitted({"t": (ColumnType.TIME, times)}, missing="impute")
    assert rows.features[:3] == ["t days", "t time of day sin", "t time of day cos"]
    assert float(rows.x.abs().max()) < 5
    assert rows.x[1, 1].item() == pytest.approx(np.sin(2 * np.pi * 5 / 24))


def test_encoder_survives_json_and_encodes_new_rows_alike() -> None:
    columns = {name: COLUMNS[name] for name in ("n", "i", "b", "c", "t")}
    rows = fitted(columns)
    read = Encoder.read(json.loads(json.dumps(rows.encoder.wire())))
    assert read == rows.encoder
    assert np.array_equal(read.transform(make_table(**columns)), rows.x.numpy())
    with pytest.raises(DataError, match=r"has no column 'b'.*trained with"):
        read.transform(make_table(**{name: columns[name] for name in ("n", "i", "c", "t")}))
    with pytest.raises(DataError, match="column 't' is of type text"):
        read.transform(make_table(**(columns | {"t": COLUMNS["c"]})))


def test_report_fits_its_width_and_says_what_is_left_out() -> None:
    rows = fitted({name: found for name, found in COLUMNS.items() if name != "y"})
    text = rows.summary()
    assert max(map(len, text.splitlines())) <= 100
    assert "left out: one: has one value only, 3" in text
    assert json.loads(json.dumps(rows.report.wire()))["rows"] == 60


def test_value_that_a_network_would_overflow_on_is_refused_with_its_row() -> None:
    """Within float32 as it is, and in no row of the train split."""
    values = [float(i % 7) for i in range(60)]
    values[55] = 3e38
    with pytest.raises(DataError, match=r"row 56, column a: 3e\+38 is too far from the values of the train split"):
        fitted({"a": (ColumnType.NUMBER, values)})
    assert fitted({"a": (ColumnType.NUMBER, values)}, normalize=False).x[55, 0] == np.float32(3e38)
    values[55] = 1e9
    fitted({"a": (ColumnType.NUMBER, values)})
