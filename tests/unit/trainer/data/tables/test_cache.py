"""Tables larger than memory: one cache, built once also where a builder is killed, within bounds of memory and disk."""

from __future__ import annotations

import errno
import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from moto.server import ThreadedMotoServer
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.loading import Loading
from trainmaster_api.spec.storage import Storage
from trainmaster_trainer.context import ReportKind
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.data.entries import DONE, Folder
from trainmaster_trainer.data.files import Files
from trainmaster_trainer.data.loader import Workers
from trainmaster_trainer.data.tables import arrow_files, cache, encode, raw
from trainmaster_trainer.data.tables.cache import CachedTable, cache_size, cached_table, open_table, table_folder
from trainmaster_trainer.data.tables.read import read_table
from trainmaster_trainer.data.tables.table import Table
from trainmaster_trainer.errors import DataError
from trainmaster_trainer.memory import available_memory
from trainmaster_trainer.storage.store import Store

from tests.unit.trainer.data.tables import cache_process
from tests.unit.trainer.harness import Recording, small_job, train, weights

ROWS = 4000
ROOT = Path(__file__).parents[5]
PROCESS = Path(cache_process.__file__)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, names in ((raw, ("TEXT_BLOCK", "BATCH")), (encode, ("BLOCK",))):
        for name in names:
            monkeypatch.setattr(module, name, 4096)
    for module in (raw, cache):
        monkeypatch.setattr(module, "SEGMENT", 20_000)


def csv(rows: int = ROWS, seed: int = 0) -> str:
    dice = np.random.default_rng(seed)
    found = zip(range(rows), dice.normal(size=rows).round(6), dice.choice(["a", "b", ""], rows), strict=True)
    return "id,x,c,y\n" + "".join(f"{row},{x},{c},{row % 2}\n" for row, x, c in found)


def write(folder: Path, kind: str, rows: int = ROWS) -> str:
    """Write a source of a kind; return its name."""
    text = csv(rows)
    if kind == "parquet":
        table = pa.csv.read_csv(pa.BufferReader(text.encode()))
        pq.write_table(table, folder / "t.parquet", row_group_size=250)
        return "t.parquet"
    if kind.startswith("jsonl"):
        records = [line.split(",") for line in text.splitlines()[1:]]
        cells = [f'"id": {id_}, "x": {x}, "c": "{c}"' for id_, x, c, _ in records]
        cells = [f'{each}, "late": {row}' if row > rows // 2 else each for row, each in enumerate(cells)]
        lines = [f'{{{each}, "y": {row % 2}}}\n' for row, each in enumerate(cells)]
        content = "".join(lines).encode()
        (folder / f"t.{kind}").write_bytes(content if kind == "jsonl" else gzip.compress(content, mtime=0))
        return f"t.{kind}"
    name, content = {
        "csv": ("t.csv", text.encode()),
        "gz": ("t.csv.gz", gzip.compress(text.encode(), mtime=0)),
        "utf-16": ("u.csv", text.encode("utf-16")),
        "parts": ("d.csv/1.csv", text.encode()),
    }[kind]
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    if kind == "parts":
        for number, more in ((2, 3), (3, 900), (4, 0)):
            (folder / f"d.csv/{number}.csv").write_text(csv(more, number))
        return "d.csv"
    return name


def asked(source: str, **more: Any) -> Data:
    return Data.model_validate({"source": source, "target": "y", "csv": {"delimiter": ","}, **more})


def opened(folder: Path, source: str) -> Files:
    return Files.open(source, Storage(), folder, {}, is_table=True)


def cached(folder: Path, source: str, root: str = "cache", **more: Any) -> CachedTable:
    return cached_table(opened(folder, source), asked(source, **more), folder / root)


def started(folder: Path, source: str, root: str, die_at: int = -1, what: str = "read") -> subprocess.Popen[str]:
    arguments = [what, str(folder), source, str(folder / root), str(die_at)]
    return subprocess.Popen([sys.executable, str(PROCESS), *arguments], stdout=subprocess.PIPE, text=True)


def content(folder: Path, root: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / root).glob("*/*") if file.is_file()}


def assert_equal(one: Table, other: Table) -> None:
    assert (one.parts, one.dialect, one.left_out) == (other.parts, other.dialect, other.left_out)
    for a, b in zip(one.columns, other.columns, strict=True):
        assert (a.name, a.type, a.notes) == (b.name, b.type, b.notes)
        assert a.values.equals(b.values)


# --- killed, and several at once -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "gz", "utf-16", "parts", "parquet", "jsonl", "jsonl.gz"])
def test_killed_while_building_is_finished_by_the_next(tmp_path: Path, kind: str) -> None:
    source = write(tmp_path, kind)
    undisturbed = json.loads(started(tmp_path, source, "whole", -1).communicate()[0])
    total = undisturbed["written"]
    assert total > 20
    rest = total
    for die_at in (total // 3, total // 3, total // 4):  # while it reads, reads on, and writes
        process = started(tmp_path, source, "killed", die_at)
        process.communicate()
        assert process.returncode == -9
        rest -= die_at
    last = json.loads(started(tmp_path, source, "killed", -1).communicate()[0])
    assert rest <= last["written"] < total * 2 // 3  # what is written again is less than two files
    assert content(tmp_path, "killed") == content(tmp_path, "whole")
    assert_equal(cached(tmp_path, source, "killed").table, read_table(opened(tmp_path, source), asked(source)))


def test_two_processes_build_once(tmp_path: Path) -> None:
    source = write(tmp_path, "csv")
    both = [started(tmp_path, source, "cache", what="meet") for _ in range(2)]
    found = [json.loads(each.communicate()[0]) for each in both]
    assert [each["rows"] for each in found] == [ROWS, ROWS]
    assert min(each["written"] for each in found) == 0
    assert max(each["written"] for each in found) > 0


def test_waiting_ends_when_the_builder_does(tmp_path: Path) -> None:
    """The builder stops in the middle; the waiting process says so, and takes over when it has been killed."""
    said: list[str] = []
    folder = Folder(tmp_path, 10**9, said.append, "t.csv")
    reading, go_on = threading.Event(), threading.Event()

    def stuck(path: Path) -> None:
        (path / "progress.txt").write_text("reading t.csv 34%")
        reading.set()
        go_on.wait(20)
        raise KeyboardInterrupt  # as one that is killed, it leaves everything as it is

    def build() -> None:
        with pytest.raises(KeyboardInterrupt):
            folder.entry("key", stuck)

    def finish(path: Path) -> None:
        (path / DONE).write_text("{}")

    first = threading.Thread(target=build)
    first.start()
    assert reading.wait(20)
    second = threading.Thread(target=lambda: folder.entry("key", finish))
    second.start()
    deadline = time.monotonic() + 20
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)
    assert said[0] == "waiting for another process that reads t.csv into the cache: reading t.csv 34%"
    go_on.set()
    second.join(20)
    assert (tmp_path / "key" / DONE).read_text() == "{}"
    first.join()


# --- which entry, and how much room ----------------------------------------------------------------------------------


def test_entry_is_of_the_content_and_of_how_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path, "csv")
    first = cached(tmp_path, source)
    built: list[Path] = []
    original = cache._build

    def build(*arguments: Any) -> None:
        built.append(arguments[-1])
        original(*arguments)

    monkeypatch.setattr(cache, "_build", build)
    assert cached(tmp_path, source).entry.path == first.entry.path
    assert cached(tmp_path, source, batchSize=7, missing="drop").entry.path == first.entry.path
    assert built == []
    assert cached(tmp_path, source, nulls=["a"]).entry.path != first.entry.path
    (tmp_path / source).write_text(csv(seed=1))
    again = cached(tmp_path, source)
    assert again.entry.path != first.entry.path
    assert_equal(again.table, read_table(opened(tmp_path, source), asked(source)))


def test_least_recently_used_is_evicted_and_never_what_is_in_use(tmp_path: Path) -> None:
    names = ["a.csv", "b.csv", "c.csv"]
    for name in names:
        (tmp_path / name).write_text(csv(seed=ord(name[0])))
    a, b = cached(tmp_path, "a.csv"), cached(tmp_path, "b.csv")
    os.utime(a.entry.path / DONE, (1, 1))
    os.utime(b.entry.path / DONE, (2, 2))
    limit = str(int(3.7 * a.entry.size))  # raw and typed rows of the new one, and one more
    b.entry.close()
    kept = cached(tmp_path, "c.csv", cache={"size": limit})
    assert [each.entry.path.exists() for each in (a, b, kept)] == [True, False, True]
    assert len(a.table.column("x").values.to_pylist()) == ROWS
    with pytest.raises(DataError, match=r"b\.csv: its cache needs .* there are in use, and data\.cache\.size allows"):
        cached(tmp_path, "b.csv", cache={"size": limit})
    assert not b.entry.path.exists()
    with pytest.raises(DataError, match=r"raise data\.cache\.size"):
        cached(tmp_path, "b.csv", "other", cache={"size": "1k"})


def test_folders_that_are_no_entries_are_never_deleted(tmp_path: Path) -> None:
    """The folder of the cache is the user's to choose, and may hold anything."""
    for name in ("t.csv", "u.csv"):
        (tmp_path / name).write_text(csv(seed=ord(name[0])))
    first = cached(tmp_path, "t.csv")
    root, limit = first.entry.folder.root, str(int(2.5 * first.entry.size))
    first.entry.close()
    (root / "mine").mkdir()
    (root / "mine" / "thesis.tex").write_text("x" * first.entry.size)
    cached(tmp_path, "u.csv", cache={"size": limit})
    assert not first.entry.path.exists(), "there was no room for both"
    assert (root / "mine" / "thesis.tex").exists()


@pytest.mark.parametrize("source", ["csv", "parquet"])
def test_full_disk_is_said_and_cleaned_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    name = write(tmp_path, source)
    written, original = [0], arrow_files.ArrowWriter.write

    def full(self: arrow_files.ArrowWriter, batch: pa.RecordBatch) -> None:
        written[0] += 1
        if written[0] == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, batch)

    monkeypatch.setattr(arrow_files.ArrowWriter, "write", full)
    with pytest.raises(DataError, match=rf"^{name}: the disk of the cache .* is full .* set data\.cache\.directory"):
        cached(tmp_path, name)
    assert content(tmp_path, "cache") == {}


def test_source_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write(tmp_path, "csv")
    original = arrow_files.ArrowWriter.write

    def write_and_append(self: arrow_files.ArrowWriter, batch: pa.RecordBatch) -> None:
        original(self, batch)
        with (tmp_path / name).open("a") as file:
            file.write("9,9,a,1\n" if file.tell() < 10**6 else "")

    monkeypatch.setattr(arrow_files.ArrowWriter, "write", write_and_append)
    with pytest.raises(DataError, match=r"t\.csv has changed while it was read"):
        cached(tmp_path, name)


# --- when, and where -------------------------------------------------------------------------------------------------


def test_mode_decides_and_auto_goes_by_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write(tmp_path, "csv")
    size = (tmp_path / name).stat().st_size
    env = {"TRAINMASTER_CACHE": str(tmp_path / "cache")}

    def is_cached(available: int, mode: str, **more: str) -> bool:
        monkeypatch.setattr(cache, "available_memory", lambda: available)
        found = open_table(opened(tmp_path, name), asked(name, cache={"mode": mode}), env | more)
        return isinstance(found, CachedTable)

    assert not is_cached(6 * size + 2, "auto")
    assert is_cached(6 * size - 2, "auto")
    assert is_cached(6 * size + 2, "auto", LOCAL_WORLD_SIZE="2")
    assert is_cached(10**15, "always")
    assert not is_cached(1, "never")


def test_folder_of_the_cache(tmp_path: Path) -> None:
    env = {"XDG_CACHE_HOME": "/x"}
    assert table_folder(asked("t.csv"), env) == Path("/x/trainmaster/tables")
    assert table_folder(asked("t.csv"), env | {"TRAINMASTER_CACHE": "/t"}) == Path("/t/tables")
    assert table_folder(asked("t.csv", cache={"directory": "/d"}), env | {"TRAINMASTER_CACHE": "/t"}) == Path(
        "/d/tables"
    )
    temporary = table_folder(asked("t.csv"), {})
    assert temporary.parent.name == f"trainmaster-cache-{os.getuid()}"
    assert cache_size(asked("t.csv"), temporary) == 15 * 2**30  # a pod's /scratch has 20Gi
    assert cache_size(asked("t.csv"), Path("/d")) == 100 * 2**30
    assert cache_size(asked("t.csv", cache={"size": "3k"}), temporary) == 3000


def test_available_memory_is_that_of_the_container(tmp_path: Path) -> None:
    def put(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    put("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert available_memory(tmp_path) == 4000 * 1024
    put("proc/self/cgroup", "0::/pod\n")
    put("sys/fs/cgroup/pod/memory.max", "1000000\n")
    put("sys/fs/cgroup/pod/memory.current", "700000\n")
    put("sys/fs/cgroup/pod/memory.stat", "anon 1\ninactive_file 200000\n")
    assert available_memory(tmp_path) == 500_000
    put("sys/fs/cgroup/pod/memory.max", "max\n")
    assert available_memory(tmp_path) == 4000 * 1024


# --- what is trained on ----------------------------------------------------------------------------------------------


def job(folder: Path, mode: str, **data: Any) -> TrainingJob:
    found = {
        "source": str(folder / "t.csv"), "target": "y", "batchSize": 16, "missing": "impute",
        "columns": {"id": {"role": "ignore"}}, "cache": {"mode": mode, "directory": str(folder / "cache")},
    }  # fmt: skip
    return small_job({"spec.training.data": found | data, "spec.training.task": {"name": "classification"}})


def loaded(folder: Path, mode: str, **data: Any) -> Prepared:
    return load_data(job(folder, mode, **data), folder, {})


@pytest.mark.parametrize("missing", ["impute", "drop"])
def test_batches_are_the_same_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    write(tmp_path, "csv")
    one = loaded(tmp_path, "never", missing=missing)
    for module in ("tables.distinct", "duplicates"):
        monkeypatch.setattr(f"trainmaster_trainer.data.{module}.LARGE", 10)
    other = loaded(tmp_path, "always", missing=missing)
    assert not other.rows.in_memory  # type: ignore[attr-defined]
    rows = np.random.default_rng(0).permutation(len(one.rows))
    for a, b in zip(one.rows.batch(rows), other.rows.batch(rows), strict=True):
        assert a.dtype == b.dtype
        assert a.numpy().tobytes() == b.numpy().tobytes()
    assert (one.train == other.train).all()
    assert (one.said, one.warnings, one.description()) == (other.said, other.warnings, other.description())
    assert other.notes[-1].startswith(f"cached in {tmp_path / 'cache'}/tables (")
    assert one.about() in other.about() or other.about().replace(f"{other.notes[-1]}\n", "") == one.about()


def test_weights_and_numbers_of_categories_are_the_same(tmp_path: Path) -> None:
    write(tmp_path, "csv")
    asked = {"columns": {"id": {"role": "weight"}, "x": {"role": "ignore"}}, "categories": "index"}
    one, other = loaded(tmp_path, "never", **asked), loaded(tmp_path, "always", **asked)
    rows = one.train[:50]
    for data in (one, other):
        data.move(torch.device("cpu"))
    assert (one.is_on_device, other.is_on_device) == (True, False)
    assert one.inputs == other.inputs
    assert torch.equal(one.weight(rows), other.weight(rows))  # type: ignore[arg-type]
    for a, b in zip(one.batch(rows), other.batch(rows), strict=True):
        assert torch.equal(a, b)  # type: ignore[arg-type]
    assert Workers.of(Loading(), other.rows, torch.device("cpu")).number == 0
    assert Workers.of(Loading(workers=2), other.rows, torch.device("cpu")).number == 2
    assert Workers.of(Loading(workers=2), one.rows, torch.device("cpu")).number == 0


def test_training_is_the_same_and_says_where_the_table_is(tmp_path: Path) -> None:
    write(tmp_path, "csv", 300)
    here, mapped, seen = job(tmp_path, "never"), job(tmp_path, "always"), Recording()
    train(here, tmp_path / "1")
    train(mapped, tmp_path / "2", recording=seen)
    assert weights(here, tmp_path / "1") == weights(mapped, tmp_path / "2")
    said = [report.message for report in seen.reports if report.kind is ReportKind.DATA]
    assert f"cached in {tmp_path / 'cache'}/tables (" in said[0]
    doing = [report.message for report in seen.reports if report.kind is ReportKind.READING]
    assert doing == [
        f"{words} {tmp_path / 't.csv'}" for words in ("deciding the roles of", "measuring", "describing", "checking")
    ]


def test_samples_are_written_once_and_read_on_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "csv")
    first = loaded(tmp_path, "always")
    file = next((tmp_path / "cache" / "tables").glob("*/*.f32"))
    whole = file.read_bytes()
    first.rows._cached.entry.close()  # type: ignore[attr-defined]
    file.with_suffix(".partial").write_bytes(whole[: len(whole) // 2 + 1])  # a row is cut off
    file.unlink()
    starts: list[int] = []
    blocks = encode.Encoder.blocks

    def counted(self: encode.Encoder, table: Table, kept: Any, first: int = 0) -> Iterator[Any]:
        starts.append(first)
        return blocks(self, table, kept, first)

    monkeypatch.setattr(encode.Encoder, "blocks", counted)
    loaded(tmp_path, "always")
    loaded(tmp_path, "always")
    assert starts == [ROWS // 2]
    assert file.read_bytes() == whole


def test_rows_larger_than_memory(tmp_path: Path) -> None:
    """820 MB of rows are read, checked, encoded and made batches of in 82 MB, a tenth of their size."""
    rows, letters = 300_000, np.random.default_rng(0).integers(97, 122, 1 << 20, dtype=np.uint8).tobytes().decode()
    writer = None
    for seed in range(0, rows, 10_000):
        dice = np.random.default_rng(seed)
        x = dice.normal(size=(16, 10_000))
        notes = [letters[at : at + 2600] for at in dice.integers(0, 10**6, 10_000)]
        columns = {f"x{index}": pa.array(each) for index, each in enumerate(x)}
        part = pa.table(columns | {"note": pa.array(notes), "y": pa.array((x[0] > 0).astype(np.int64))})
        writer = writer or pq.ParquetWriter(
            tmp_path / "t.parquet", part.schema, use_dictionary=False, compression="none"
        )
        writer.write_table(part)
    assert writer is not None
    writer.close()
    size = (tmp_path / "t.parquet").stat().st_size
    command = [sys.executable, str(PROCESS), "measure", str(tmp_path), "t.parquet", str(tmp_path / "cache"), "{}"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | cache_process.EXACT_MEMORY | {"PYTHONPATH": paths}
    found = json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)
    assert found["rows"] == rows
    assert size > 800 * 10**6
    assert found["peak"] < size / 10


# --- S3 --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket() -> Iterator[Store]:
    import boto3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "id", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys).create_bucket(Bucket="data")
    yield Store("s3://data/rows", f"http://{host}:{port}", access_key="id", secret_key="secret", patience=5.0)
    server.stop()


@pytest.mark.parametrize("kind", ["csv", "gz", "parquet", "jsonl"])
def test_objects_on_s3_are_read_in_ranges(
    tmp_path: Path, bucket: Store, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    name = write(tmp_path, kind, 20_000)
    bucket.put(name, (tmp_path / name).read_bytes())
    files, spec = Files(bucket, name, f"s3://data/rows/{name}"), asked(f"s3://data/rows/{name}")
    monkeypatch.setattr("trainmaster_trainer.data.fingerprint.HASHED_BYTES", 0)  # as of a large object: its ETag
    whole = read_table(files, spec)
    monkeypatch.setattr(raw, "TEXT_BLOCK", 1 << 16)
    ranges: list[int] = []
    read_range = Store.read_range

    def counted(self: Store, path: str, start: int, length: int) -> bytes | None:
        ranges.append(length)
        return read_range(self, path, start, length)

    monkeypatch.setattr(Store, "read_range", counted)
    monkeypatch.setattr(Store, "get_versioned", lambda *_: pytest.fail("an object was read whole"))
    assert_equal(cached_table(files, spec, tmp_path / "cache").table, whole)
    assert len(ranges) > 2
    assert max(ranges) < (tmp_path / name).stat().st_size
