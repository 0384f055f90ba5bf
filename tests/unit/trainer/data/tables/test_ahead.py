"""What the kernel is told to read ahead: the values that are asked for, and no others."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from trainmaster_trainer.data.tables import ahead
from trainmaster_trainer.data.tables.ahead import will_need
from trainmaster_trainer.data.tables.arrow_files import ArrowWriter, mapped


def asked_for(values: pa.ChunkedArray, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(ahead, "_MADVISE", lambda at, size, _: asked.append((at.value, at.value + size.value)))
    will_need(values)
    return asked


def column(tmp_path: Path) -> pa.ChunkedArray:
    numbers = pa.array(np.arange(100_000, dtype=np.float64))
    with ArrowWriter(tmp_path / "t.arrow") as writer:
        writer.write(pa.record_batch([numbers, numbers], ["a", "b"]))
    return pa.Table.from_batches(mapped(tmp_path / "t.arrow")).column("b")


def test_requests_cover_the_values_and_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = column(tmp_path)
    asked = asked_for(values, monkeypatch)
    start = values.chunk(0).buffers()[1].address
    assert asked[0][0] <= start < asked[0][0] + 4096
    assert asked[-1][1] == start + 800_000
    assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(asked))
    assert max(end - begin for begin, end in asked) <= 128 << 10


def test_of_a_slice_its_own_rows_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = column(tmp_path)
    start = values.chunk(0).buffers()[1].address
    asked = asked_for(values.slice(50_000, 100), monkeypatch)
    assert asked == [((start + 400_000) // 4096 * 4096, start + 400_800)]


def test_no_more_than_a_bound_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MOST", 200_000)
    asked = asked_for(column(tmp_path), monkeypatch)
    assert 200_000 <= sum(end - begin for begin, end in asked) < 200_000 + 4096


def test_values_in_memory_stay_as_they_are() -> None:
    values = pa.chunked_array([pa.array([1.0, None, 3.0]), pa.array([], pa.float64())])
    will_need(values)
    assert values.to_pylist() == [1.0, None, 3.0]
