"""Which store an address of `data.source` is read from, and what is said when nothing is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.spec.storage import Storage
from trainmaster_trainer.data import files as module
from trainmaster_trainer.data.files import Files
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
