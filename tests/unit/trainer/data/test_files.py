"""Which store an address of `data.source` is read from, and what is said when nothing is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.spec.storage import Storage
from trainmaster_trainer.data import files as module
from trainmaster_trainer.data.files import Files, partitions
from trainmaster_trainer.errors import DataError


def opened(address: str, base_dir: Path, **storage: Any) -> Files:
    return Files.open(address, Storage.model_validate(storage), base_dir, {"AWS_ACCESS_KEY_ID": "key"})


def test_relative_path_is_relative_to_the_job(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/Rows.CSV").write_bytes(b"a,b\n")
    found = opened("in/Rows.CSV", tmp_path)
    assert (found.name, found.shown) == ("Rows.CSV", "in/Rows.CSV")
    assert found.read() == b"a,b\n"
    assert opened(str(tmp_path / "in/Rows.CSV"), Path("/")).read() == b"a,b\n"


def test_link_before_the_parent_is_followed_as_the_file_system_does(tmp_path: Path) -> None:
    (tmp_path / "real/jobs").mkdir(parents=True)
    (tmp_path / "real/rows.csv").write_bytes(b"x\n")
    (tmp_path / "link").symlink_to(tmp_path / "real/jobs")
    assert opened("../rows.csv", tmp_path / "link").read() == b"x\n"


def test_folder_has_many_files(tmp_path: Path) -> None:
    (tmp_path / "pictures/cat").mkdir(parents=True)
    (tmp_path / "pictures/cat/1.png").write_bytes(b"png")
    found = opened("pictures", tmp_path)
    assert found.name == ""
    assert found.read("cat/1.png") == b"png"
    with pytest.raises(DataError, match=r"data\.source pictures: no such file: cat/2\.png"):
        found.read("cat/2.png")


@pytest.mark.parametrize(
    ("address", "folder", "name"),
    [
        ("s3://bucket/in/rows.tsv.gz", "s3://bucket/in", "rows.tsv.gz"),
        ("s3://bucket/in/out", "s3://bucket/in", "out"),
        ("s3://bucket/in/*.csv", "s3://bucket/in", "*.csv"),
        ("s3://bucket/a/year=*/b/*.csv", "s3://bucket/a", "year=*/b/*.csv"),
        ("s3://bucket", "s3://bucket", ""),
        ("s3://bucket/*.csv", "s3://bucket", "*.csv"),
    ],
)
def test_table_on_s3_may_be_file_folder_or_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, folder: str, name: str
) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(module, "open_store", lambda *args: calls.append(args))
    found = Files.open(address, Storage(uri="s3://runs"), tmp_path, {}, is_table=True)
    assert (calls[0][0], found.name) == (folder, name)


class Listed:
    """A store on S3 with a few objects."""

    is_s3 = True

    def __init__(self, *paths: str) -> None:
        self.paths = paths

    def list(self, prefix: str = "") -> list[tuple[str, int]]:
        return [(path, 1) for path in self.paths if not prefix or path.startswith(f"{prefix}/")]


@pytest.mark.parametrize(
    ("name", "names", "root"),
    [
        ("rows.csv", ("rows.csv",), 0),
        ("out.csv", ("out.csv/part-0.csv", "out.csv/part-1.csv.gz"), 8),
        ("days", ("days/d=1/a.csv", "days/d=2/_k=1/b.csv"), 5),
        ("days/d=*/*.csv", ("days/d=1/a.csv",), 0),
        ("**.csv", ("days/d=1/a.csv", "days/d=2/_k=1/b.csv", "out.csv/part-0.csv", "rows.csv"), 0),
    ],
)
def test_files_of_a_table_on_s3(name: str, names: tuple[str, ...], root: int) -> None:
    store: Any = Listed(
        "out.csv/part-1.csv.gz", "out.csv/_SUCCESS", "out.csv/part-0.csv", "rows.csv",
        "days/d=2/_k=1/b.csv", "days/d=1/a.csv", "days/_tmp/c.csv", "days/d=1/.a.csv",
    )  # fmt: skip
    found = Files(store, name, name).table((".csv", ".csv.gz"))
    assert (found.names, found.root) == (names, root)


def test_partitions_are_decoded_as_hive_writes_them() -> None:
    assert partitions("year=2024/city=S%C3%A3o%20Paulo/x/part-0.csv") == {"year": "2024", "city": "São Paulo"}
    assert partitions("k=__HIVE_DEFAULT_PARTITION__/e=/p=q.csv") == {"k": None, "e": ""}


@pytest.mark.parametrize(("address", "kind"), [("gone.parquet", "file"), ("gone", "folder")])
def test_missing_path_is_shown_in_full(tmp_path: Path, address: str, kind: str) -> None:
    with pytest.raises(DataError) as caught:
        opened(address, tmp_path)
    assert str(caught.value) == f"data.source {address}: no such {kind} ({tmp_path}/{address})"


def test_file_that_goes_after_it_was_opened(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"")
    found = opened("rows.csv", tmp_path)
    (tmp_path / "rows.csv").unlink()
    with pytest.raises(DataError, match=r"data\.source rows\.csv: no such file: rows\.csv"):
        found.read()


def test_address_that_means_nothing_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'data\.source "s3://bucket/a#b\.csv" '):
        opened("s3://bucket/a#b.csv", tmp_path)


@pytest.mark.parametrize(
    ("address", "folder", "name"),
    [
        ("s3://bucket/in/rows.csv", "s3://bucket/in", "rows.csv"),
        ("s3://bucket/rows.parquet", "s3://bucket", "rows.parquet"),
        ("s3://bucket/pictures", "s3://bucket/pictures", ""),
    ],
)
def test_s3_uses_endpoint_region_and_keys_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, folder: str, name: str
) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(module, "open_store", lambda *args: calls.append(args))
    found = opened(address, tmp_path, uri="s3://runs", endpoint="http://minio:9000", region="eu-1")
    assert calls == [(folder, "http://minio:9000", "eu-1", {"AWS_ACCESS_KEY_ID": "key"})]
    assert (found.name, found.shown) == (name, address)
