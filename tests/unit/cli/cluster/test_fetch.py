"""The model of a job on this disk: whole or not at all, and never in the place of something else."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import Any

import pytest
from trainmaster_cli.cluster.stored import StoredRun
from trainmaster_cli.errors import UserError
from trainmaster_trainer.storage.store import Store, open_store

from tests.unit.operator.policy.wrappers import Bench

from .fake_api import FakeApi
from .test_commands import run

MODEL = {"model.safetensors": b"weights" * 1000, "training.json": b"{}", "data.json": b"{}", "out/last.pt": b"state"}


def finished(folder: Path, files: dict[str, bytes] | None = None, phase: str = "Complete") -> FakeApi:
    """Return a job whose run has these files of a model."""
    bench = Bench().running()
    bench.raw["status"] |= {"runUri": str(folder / "runs"), "phase": phase}
    store = open_store(str(folder / "runs"), None, "", {})
    store.put("metrics.jsonl", b"{}")
    for name, content in (MODEL if files is None else files).items():
        store.put(f"model/{name}", content)
    return FakeApi(bench.raw)


def test_fetch_copies_what_the_job_has_made(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    api = finished(tmp_path)
    others = {"report/test-metrics.json": b"[]", "code/0f3c.tar.gz": b"archive", "environment.json": b"{}"}
    for name, content in others.items():
        open_store(str(tmp_path / "runs"), None, "", {}).put(name, content)
    assert run(api, "fetch", "digits") == 0
    found = {str(file.relative_to("digits")): file.read_bytes() for file in Path("digits").rglob("*") if file.is_file()}
    expected = {f"model/{name}": content for name, content in MODEL.items()} | others
    assert found == expected
    lines = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    in_order = sorted(expected, key=lambda name: (name == "environment.json", name))
    assert lines == [[hashlib.sha256(expected[name]).hexdigest(), f"digits/{name}"] for name in in_order]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["digits", "runs"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_fetch_overwrites_nothing(tmp_path: Path, kind: str) -> None:
    there = tmp_path / "there"
    if kind == "file":
        there.write_text("mine")
    else:
        (there / "sub").mkdir(parents=True)
    with pytest.raises(UserError, match="is there already, and nothing is overwritten"):
        run(finished(tmp_path), "fetch", "digits", "-o", str(there))
    assert there.is_file() if kind == "file" else (there / "sub").is_dir()


def test_fetch_takes_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert run(finished(tmp_path), "fetch", "digits", "-o", str(tmp_path / "a")) == 0
    assert (tmp_path / "a" / "model" / "out" / "last.pt").read_bytes() == b"state"


@pytest.mark.parametrize(
    ("files", "phase", "said"),
    [
        ({}, "Complete", "digits is Complete and has no model: its training left none"),
        ({}, "Running", "digits is Running and has no model: only a job that is Complete has one"),
        ({"model.safetensors": b"w"}, "Running", "has no model"),  # what is written last isn't there
    ],
)
def test_fetch_without_a_model(tmp_path: Path, files: dict[str, bytes], phase: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        run(finished(tmp_path, files, phase), "fetch", "digits", "-o", str(tmp_path / "a"))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("files", [MODEL, {}])
def test_fetch_brings_what_a_search_has_found(tmp_path: Path, files: dict[str, bytes]) -> None:
    """With its model, or of a search without a final run."""
    api, store = finished(tmp_path, files), open_store(str(tmp_path / "runs"), None, "", {})
    wanted = {"tuning/study.log", "tuning/result.json", "report/search-history.png"}
    for name in (*wanted, "tuning/journal-000001-000000000.jsonl", "trials/0000/metrics.jsonl"):
        store.put(name, b"x")
    assert run(api, "fetch", "digits", "-o", str(tmp_path / "a")) == 0
    found = {str(file.relative_to(tmp_path / "a")) for file in (tmp_path / "a").rglob("*") if file.is_file()}
    assert found == wanted | {f"model/{name}" for name in files}
    bench = finished(tmp_path, files, phase="Running")
    if not files:
        with pytest.raises(UserError, match="is Running and has no model"):
            run(bench, "fetch", "digits", "-o", str(tmp_path / "b"))


def test_fetch_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Store.download_file

    def cut(self: Store, path: str, target: Path) -> None:
        if path.endswith("training.json"):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        whole(self, path, target)

    monkeypatch.setattr(Store, "download_file", cut)
    with pytest.raises(UserError, match=r"training\.json can't be written: no space left on device"):
        run(finished(tmp_path), "fetch", "digits", "-o", str(tmp_path / "a"))
    assert [each.name for each in tmp_path.iterdir()] == ["runs"]


def test_fetch_writes_nothing_outside_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of S3 may have any name."""
    files = {"model/data.json": 2, "model/../../../escaped": 4}
    monkeypatch.setattr(StoredRun, "files", lambda self, prefix: files if prefix == "model/" else {})
    monkeypatch.setattr(StoredRun, "download", lambda self, path, target: None)
    with pytest.raises(UserError, match="has a file in its storage that can't lie below"):
        run(finished(tmp_path), "fetch", "digits", "-o", str(tmp_path / "a"))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["runs"]
