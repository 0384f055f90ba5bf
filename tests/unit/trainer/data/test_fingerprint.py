"""What identifies the data, and what is said to have changed in it. Checksums come from the standard library."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trainmaster_api.layout import Fingerprint
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.data import fingerprint as module
from trainmaster_trainer.data.differences import shown, what_changed
from trainmaster_trainer.data.fingerprint import of_value, take
from trainmaster_trainer.errors import DataError
from trainmaster_trainer.storage.store import Store

from tests.unit.trainer.harness import small_job

ROWS = b"a,b,cls\n" + b"".join(b"%d,%d,%d\n" % (i, i * 7 % 5, i % 2) for i in range(99))


def job_of(source: str) -> TrainingJob:
    return small_job({"spec.training.data": {"source": source, "target": "cls", "batchSize": 64}})


TABLE = job_of("data.csv")
IMAGES = job_of("images:pictures")


def taken(job: TrainingJob, folder: Path, known: Fingerprint | None = None) -> Fingerprint:
    return take(job, folder, {}, known)


def changed(job: TrainingJob, folder: Path, change: Callable[[Path], object]) -> list[str]:
    """What is said when the folder is changed between two looks."""
    before = taken(job, folder)
    change(folder)
    after = taken(job, folder, before)
    found = what_changed(before, after)
    assert (before.digest == after.digest) is (found == [])
    return found


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "data.csv").write_bytes(ROWS)
    (tmp_path / "other.csv").write_bytes(b"x\n")
    return tmp_path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for path in ("cat/1.png", "cat/2.PNG", "dog/1.jpeg"):
        file = tmp_path / "pictures" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path.encode())
    return tmp_path


# -- one file ---------------------------------------------------------------------------------------------------------
def test_file_is_its_content(table: Path) -> None:
    found = taken(TABLE, table)
    (file,) = found.files
    assert (file.path, file.size, file.sha256) == ("data.csv", len(ROWS), hashlib.sha256(ROWS).hexdigest())
    assert file.lines is not None
    assert (file.lines.count, file.lines.per_block, len(file.lines.blocks)) == (100, 1, 100)
    assert file.lines.blocks[1] == hashlib.sha256(b"0,0,0").hexdigest()[:12]
    assert (found.source, found.count, found.size) == ("data.csv", 1, len(ROWS))
    assert Fingerprint.model_validate_json(found.model_dump_json(by_alias=True)) == found


def test_touched_file_is_the_same(table: Path) -> None:
    assert changed(TABLE, table, lambda folder: os.utime(folder / "data.csv", (1, 1))) == []


def test_file_beside_it_is_not_its_business(table: Path) -> None:
    assert changed(TABLE, table, lambda folder: (folder / "other.csv").write_bytes(b"y\n")) == []


def test_file_of_the_same_size_and_time(table: Path) -> None:
    file = table / "data.csv"
    time = file.stat().st_mtime_ns

    def correct(folder: Path) -> None:
        file.write_bytes(ROWS.replace(b"17,4,1", b"17,4,0"))
        os.utime(file, ns=(time, time))

    assert changed(TABLE, table, correct) == [
        f"data.csv: other content, {len(ROWS):,} bytes; 100 lines; line 19 differs"
    ]


def lines(*numbers: int) -> Callable[[Path], object]:
    """Change these lines, counted from 1."""
    text = ROWS.splitlines(keepends=True)
    for number in numbers:
        text[number - 1] = text[number - 1].upper().replace(b",", b";")
    return lambda folder: (folder / "data.csv").write_bytes(b"".join(text))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lines(1), "other content, 691 bytes; 100 lines; line 1 differs"),
        (lines(3, 4, 5), "other content, 691 bytes; 100 lines; lines 3 to 5 differ"),
        (lines(3, 5, 100), "other content, 691 bytes; 100 lines; 3 of lines 3 to 100 differ"),
    ],
)
def test_lines_that_differ_are_named(table: Path, change: Callable[[Path], object], said: str) -> None:
    assert len(ROWS) == 691
    assert changed(TABLE, table, change) == [f"data.csv: {said}"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ROWS + b"1,1,1\n2,2,0\n", "703 bytes, before 691; 102 lines, before 100"),
        (ROWS[:-1] + b"\n1,1,1", "696 bytes, before 691; 101 lines, before 100"),
        (b"".join(ROWS.splitlines(keepends=True)[:60]), "411 bytes, before 691; 60 lines, before 100"),
        (ROWS[:-3], "688 bytes, before 691; 100 lines; line 100 differs"),
        (
            ROWS.replace(b"7,4,1\n", b"7,4,1\n9,9,1\n", 1),
            "697 bytes, before 691; 101 lines, before 100; the first that differs is line 10",
        ),
        (b"", "0 bytes, before 691; 0 lines, before 100"),
    ],
    ids=["appended", "appended without an end", "truncated", "torn", "inserted", "emptied"],
)  # fmt: skip
def test_file_that_grew_or_shrank(table: Path, content: bytes, said: str) -> None:
    assert changed(TABLE, table, lambda folder: (folder / "data.csv").write_bytes(content)) == [f"data.csv: {said}"]


def test_long_file_names_the_block(table: Path) -> None:
    """10,000 lines in blocks of 40; what was appended makes the last block no different."""
    text = [b"%d,1,0\n" % i for i in range(10_000)]
    (table / "data.csv").write_bytes(b"".join(text))
    text[4321] = b"0,0,0\n"

    def change(folder: Path) -> None:
        (folder / "data.csv").write_bytes(b"".join([*text, b"1,1,1\n"]))

    before = taken(TABLE, table)
    assert before.files[0].lines is not None
    assert before.files[0].lines.per_block == 40
    (said,) = changed(TABLE, table, change)
    assert said.endswith("10,001 lines, before 10,000; the first that differs is lines 4,321 to 4,360")


def test_parquet_has_rows(tmp_path: Path) -> None:
    job, file = job_of("data.parquet"), tmp_path / "data.parquet"
    pq.write_table(pa.table({"a": range(100), "cls": [0, 1] * 50}), file)
    assert taken(job, tmp_path).files[0].rows == 100
    (said,) = changed(job, tmp_path, lambda _: pq.write_table(pa.table({"a": range(80), "cls": [0, 1] * 40}), file))
    assert said.endswith("; 80 rows, before 100")
    file.write_bytes(b"PAR1 and nothing more")
    assert taken(job, tmp_path).files[0].rows is None


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.source data\.csv: no such file"):
        taken(TABLE, tmp_path)


# -- folders ----------------------------------------------------------------------------------------------------------
def test_folder_is_the_files_that_are_read(pictures: Path) -> None:
    (pictures / "pictures/cat/notes.txt").write_bytes(b"")
    found = taken(IMAGES, pictures)
    assert [file.path for file in found.files] == ["cat/1.png", "cat/2.PNG", "dog/1.jpeg"]
    assert found.files[0].lines is None
    assert changed(IMAGES, pictures, lambda _: (pictures / "pictures/cat/notes.txt").write_bytes(b"x")) == []


def test_folder_names_each_file(pictures: Path) -> None:
    root = pictures / "pictures"

    def change(_: Path) -> None:
        (root / "dog/2.png").write_bytes(b"new")
        (root / "cat/2.PNG").unlink()
        (root / "cat/1.png").write_bytes(b"cat/1.pnG")

    assert changed(IMAGES, pictures, change) == [
        "cat/1.png: other content, 9 bytes",
        "cat/2.PNG: removed (9 bytes)",
        "dog/2.png: added (3 bytes)",
    ]


def test_renamed_file_is_a_change(pictures: Path) -> None:
    """The name of the folder is the class."""
    root = pictures / "pictures"
    found = changed(IMAGES, pictures, lambda _: (root / "cat/1.png").rename(root / "dog/7.png"))
    assert found == ["dog/7.png: renamed, before cat/1.png"]


def test_first_ten_changes_and_the_number_of_the_others() -> None:
    assert shown([str(i) for i in range(1012)]) == [*map(str, range(10)), "and 1,002 more"]
    assert shown(["a"]) == ["a"]


# -- bounds -----------------------------------------------------------------------------------------------------------
def test_large_file_is_its_size_and_time(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HASHED_BYTES", 690)
    before = taken(TABLE, table)
    assert before.files[0].sha256 is None
    assert what_changed(before, taken(TABLE, table, before)) == []
    (said,) = changed(TABLE, table, lambda folder: os.utime(folder / "data.csv", (0, 0)))
    assert said.startswith("data.csv: written at another time, 691 bytes (1970-01-01T00:00:00+00:00, before 20")


@pytest.mark.parametrize(("name", "bound"), [("HASHED_BYTES_TOTAL", 20), ("HASHED_FILES", 2)])
def test_bounds_over_all_files(pictures: Path, monkeypatch: pytest.MonkeyPatch, name: str, bound: int) -> None:
    """Files that are added or bounds that change don't turn a checksum into a time: the same ones are compared."""
    monkeypatch.setattr(module, name, bound)
    before = taken(IMAGES, pictures)
    assert [file.sha256 is not None for file in before.files] == [True, True, False]
    monkeypatch.setattr(module, name, 0)
    assert taken(IMAGES, pictures, before).digest == before.digest
    (pictures / "pictures/ant").mkdir()
    found = changed(IMAGES, pictures, lambda _: (pictures / "pictures/ant/1.png").write_bytes(b"x"))
    assert found == ["ant/1.png: added (1 bytes)"]


def test_too_many_files_to_list(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTED_FILES", 2)
    before = taken(IMAGES, pictures)
    assert (before.files, before.count) == ([], 3)
    assert what_changed(before, taken(IMAGES, pictures, before)) == []
    root = pictures / "pictures"
    found = changed(IMAGES, pictures, lambda _: (root / "cat/1.png").write_bytes(b"cat/1.PNG"))
    assert found == ["3 files with 28 bytes, not the same as before"]
    assert changed(IMAGES, pictures, lambda _: (root / "cat/1.png").unlink()) == [
        "2 files with 19 bytes, before 3 with 28 bytes"
    ]


# -- what has no files ------------------------------------------------------------------------------------------------
def test_set_of_scikit_learn_is_the_library_s_version() -> None:
    found = taken(job_of("sklearn:digits"), Path("/"))
    text = f"scikit-learn {version('scikit-learn')}, digits"
    assert (found.value, found.digest) == (text, hashlib.sha256(text.encode()).hexdigest())
    older = of_value("sklearn:digits", "scikit-learn 1.8.0, digits")
    assert what_changed(older, found) == [f"sklearn:digits: {text}, before scikit-learn 1.8.0, digits"]


@pytest.mark.parametrize("source", [{"class": "my_pkg:Rows"}, {"source": "acme/rows:customers"}])
def test_data_of_others_has_no_digest(source: dict[str, str]) -> None:
    found = taken(small_job({"spec.training.data": {**source, "batchSize": 64}}), Path("/"))
    assert found.digest == ""
    assert what_changed(found, of_value(found.source, "anything")) == []


# -- S3 ---------------------------------------------------------------------------------------------------------------
def test_object_with_the_same_etag_is_not_read_again(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the store of a disk that calls itself S3: what matters is which objects are read."""
    read: list[str] = []
    get = Store.get
    monkeypatch.setattr(Store, "get", lambda self, path: read.append(path) or get(self, path))
    before = taken(TABLE, table)
    assert read == ["data.csv"]
    taken(TABLE, table, before)
    assert read == ["data.csv"] * 2, "a file on disk is read each time"
    store = module.Files.open("data.csv", TABLE.spec.storage, table, {}).store
    monkeypatch.setattr(Store, "is_s3", property(lambda _: True))
    found = [module.Stat("data.csv", before.files[0].size, before.files[0].version)]
    assert module._of_files("data.csv", store, found, before) == before
    assert read == ["data.csv"] * 2
    monkeypatch.undo()
    again = [module.Stat("data.csv", before.files[0].size, "written again")]
    assert module._of_files("data.csv", store, again, before).digest == before.digest, "the content is the same"


def test_comparing_imports_no_torch() -> None:
    code = "import sys, trainmaster_trainer.data.identity; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("source", ["parts.csv", "parts.csv/*.csv", "**/part-*.csv"])
def test_every_part_of_a_table_counts(tmp_path: Path, source: str) -> None:
    folder = tmp_path / "parts.csv"
    folder.mkdir()
    for number in range(3):
        (folder / f"part-{number}.csv").write_bytes(ROWS)
    (folder / "_SUCCESS").touch()
    job = job_of(source)
    assert changed(job, tmp_path, lambda root: (root / "parts.csv" / "_SUCCESS").write_text("x")) == []
    (found,) = changed(job, tmp_path, lambda root: (root / "parts.csv" / "part-1.csv").write_bytes(ROWS + b"1,2,0\n"))
    assert "part-1.csv" in found
    (found,) = changed(job, tmp_path, lambda root: (root / "parts.csv" / "part-9.csv").write_bytes(ROWS))
    assert "part-9.csv" in found


def test_hidden_files_of_a_folder_of_images_do_not_count(pictures: Path) -> None:
    def look(root: Path) -> None:
        (root / "pictures" / ".ipynb_checkpoints").mkdir()
        (root / "pictures" / ".ipynb_checkpoints" / "1.png").write_bytes(b"x")

    assert changed(IMAGES, pictures, look) == []


def test_archive_of_images_is_one_file(tmp_path: Path) -> None:
    archive = tmp_path / "pictures.zip"
    archive.write_bytes(b"one")
    job = job_of("images:pictures.zip")
    assert [file.path for file in taken(job, tmp_path).files] == ["pictures.zip"]
    assert changed(job, tmp_path, lambda _: archive.write_bytes(b"two")) == ["pictures.zip: other content, 3 bytes"]
