"""Where `trainmaster run` puts what."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.address import parse
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.driver import places
from trainmaster_trainer.driver.identity import Refused
from trainmaster_trainer.driver.places import folder_beside, folder_of, near, only_one, short_scratch, storage_address


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_storage_address_of_the_file_and_the_option(job: TrainingJob, folder: Path) -> None:
    assert str(storage_address(None, job)) == f"{folder}/trainmaster-runs"
    assert str(storage_address("here/", job)) == f"{folder}/here"
    assert str(storage_address("../here", job)) == f"{folder.parent}/here"
    assert str(storage_address("s3://bucket/x/", job)) == "s3://bucket/x"
    assert str(storage_address("spec", job)) == "s3://bucket/prefix"


def test_storage_address_without_one_in_the_file(job: TrainingJob) -> None:
    storage = job.spec.storage.model_copy(update={"uri": None})
    bare = job.model_copy(update={"spec": job.spec.model_copy(update={"storage": storage})})
    with pytest.raises(Refused, match=r"the file has no spec\.storage\.uri"):
        storage_address("spec", bare)


@pytest.mark.parametrize("asked", ["s3://bucket/a#1", "s3:/bucket", "gs://bucket", "a//b", "", "~/runs"])
def test_an_address_that_is_none_names_the_option(job: TrainingJob, asked: str) -> None:
    with pytest.raises(Refused, match=f'--storage "{asked}" '):
        storage_address(asked, job)


def test_a_folder_whose_name_is_not_utf8_is_refused(folder: Path, job: TrainingJob, monkeypatch: Any) -> None:
    """No message could name it to the workers; TMPDIR is only passed over."""
    odd = os.fsdecode(os.fsencode(folder) + b"/gr\xf6\xdfe")
    Path(odd).mkdir()
    with pytest.raises(Refused, match=r"the folder .*/gr\\udcf6\\udcdfe has a name that isn't valid UTF-8; rename it"):
        folder_of(f"{odd}/job.yaml")
    assert folder_of("job.yaml") == folder
    monkeypatch.chdir(odd)
    with pytest.raises(Refused, match="choose another place with --storage"):
        storage_address(None, job)
    short = Path(os.fsdecode(b"/tmp/\xf6"))
    short.mkdir(exist_ok=True)
    monkeypatch.setenv("TMPDIR", str(short))
    scratch = short_scratch()
    scratch.rmdir()
    short.rmdir()
    assert short not in scratch.parents


def test_a_working_directory_may_have_any_name(job: TrainingJob, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("my #1 project?", "50% done", "ü"):
        (folder / name).mkdir()
        monkeypatch.chdir(folder / name)
        assert parse(str(storage_address(None, job))).path == f"{folder}/{name}/trainmaster-runs"
    (folder / "end ").mkdir()
    monkeypatch.chdir(folder / "end ")
    with pytest.raises(Refused, match="choose another place with --storage"):
        storage_address(None, job)


def test_a_working_directory_that_was_deleted(job: TrainingJob, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "gone").mkdir()
    monkeypatch.chdir(folder / "gone")
    (folder / "gone").rmdir()
    with pytest.raises(Refused, match="working directory doesn't exist;"):
        storage_address(None, job)
    assert near("/x") == "/x"
    monkeypatch.chdir(folder)


def test_lock_folder_in_local_storage_or_home(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert folder_beside(parse("/mnt/runs")) == Path("/mnt/runs")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    assert folder_beside(parse("s3://bucket")) == folder / "state/trainmaster"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(folder / "home"))
    assert folder_beside(parse("s3://bucket")) == folder / "home/.local/state/trainmaster"


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    assert folder_beside(parse("s3://bucket")).name == f"trainmaster-{os.getuid()}"


@pytest.mark.parametrize("length", [22, 23, 33, 48, 200])
def test_scratch_is_short_whatever_tmpdir_says(length: int, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    long = Path("/tmp") / ("t" * (length - len("/tmp/")))
    long.mkdir(exist_ok=True)
    monkeypatch.setenv("TMPDIR", str(long))
    scratch = short_scratch()
    try:
        path = scratch / "ray/session_2026-11-25_12-58-13_123456_4194304/sockets"
        path.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path / "plasma_store"))
        assert len(str(path / "plasma_store")) <= 103, "what macOS allows"
        assert scratch.stat().st_mode & 0o777 == 0o700
        assert (scratch.parent == long) == (length <= 22)
    finally:
        os.system(f"rm -r {scratch} {long}")


def test_no_short_folder_at_all_names_tmpdir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_SHORT", 0)
    with pytest.raises(Refused, match="set TMPDIR"):
        short_scratch()


def test_only_one_process_at_a_time(job: TrainingJob, folder: Path) -> None:
    refused = pytest.raises(Refused, match=f"is already running in process {os.getpid()}")
    with only_one(folder, job), refused, only_one(folder, job):
        pass
    with only_one(folder, job):
        pass
