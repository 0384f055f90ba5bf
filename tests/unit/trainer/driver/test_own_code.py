"""`trainmaster run` of a job with `code.path`: what it keeps, which run it means, what it says of changed code."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.archive import changes, remove, unpack
from trainmaster_api.git_state import decode
from trainmaster_api.packing import pack
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.driver import local, own_code
from trainmaster_trainer.driver.identity import Refused
from trainmaster_trainer.driver.local import LocalRun
from trainmaster_trainer.driver.places import only_one
from trainmaster_trainer.errors import CodeError, StorageDenied
from trainmaster_trainer.storage.store import Store

from tests.factories import REMOVE, load_example, parse
from tests.unit.trainer.code.world import wheel
from tests.unit.trainer.driver.test_local import options


def coded(code: dict[str, Any] | None = None) -> TrainingJob:
    return parse(load_example("digits", {"spec.training.code": code or {"path": "src"}}))


def with_inline(sha256: str, data: str) -> TrainingJob:
    """Return a job as a pod may have it: what it says isn't compared with the archive yet."""
    document = coded().wire()
    document["spec"]["training"]["code"] = {"inline": {"sha256": sha256, "data": data}}
    return TrainingJob.model_validate(document)


@pytest.fixture(autouse=True)
def src(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "net.py").write_text("WIDTH = 1\n")
    return tmp_path / "src"


def identified(job: TrainingJob | None = None, **more: Any) -> LocalRun:
    run = LocalRun(options(**more), job or coded())
    run.identify()
    run.note()
    return run


def test_code_is_kept_beside_the_run(src: Path, tmp_path: Path) -> None:
    run = identified()
    assert run.code is not None
    data = run.run.get(f"code/{run.code.sha256}.tar.gz")
    assert data is not None
    unpack(data, hashlib.sha256(data).hexdigest(), tmp_path / "back")
    assert (tmp_path / "back" / "net.py").read_text() == "WIDTH = 1\n"
    listing = json.loads(run.run.get(f"code/{run.code.sha256}.json") or b"")
    assert listing == {"net.py": hashlib.sha256(b"WIDTH = 1\n").hexdigest()}


def test_the_same_code_is_the_same_run(src: Path) -> None:
    first = identified()
    (src / "__pycache__").mkdir()
    (src / "__pycache__" / "net.pyc").write_text("")
    (src / "net.py").touch()
    assert identified().identity.uid == first.identity.uid
    src.rename(src.parent / "moved")
    assert identified(coded({"path": "moved"})).identity.uid == first.identity.uid


def test_changed_code_is_another_run_and_says_which_files(src: Path) -> None:
    first = identified()
    (src / "net.py").write_text("WIDTH = 2\n")
    (src / "more.py").write_text("")
    with pytest.raises(Refused) as refused:
        identified()
    assert str(refused.value).splitlines() == [
        "the code of job.yaml has changed since the last run of digits:",
        "  more.py: added",
        "  net.py: changed",
        "start a new run under the same name with --fresh, or give the job another metadata.name",
    ]
    fresh = identified(fresh=True)
    assert fresh.identity.uid != first.identity.uid
    assert identified().identity.uid == fresh.identity.uid


def test_changed_code_and_field_are_both_said(src: Path) -> None:
    identified()
    (src / "net.py").write_text("WIDTH = 2\n")
    job = parse(load_example("digits", {"spec.training.code": {"path": "src"}, "spec.training.loop.seed": 7}))
    with pytest.raises(
        Refused, match=r"job\.yaml has changed[^:]*:\n  net\.py: changed\n  training\.loop\.seed: 42 -> 7"
    ):
        identified(job)


def test_a_job_that_gets_code_is_another_run() -> None:
    identified(parse(load_example("digits")))
    with pytest.raises(Refused, match="code: absent -> "):
        identified()


@pytest.mark.parametrize("storage", ["src/results", "src"])
def test_results_are_no_part_of_the_code(storage: str) -> None:
    first = identified(storage=storage)
    with only_one(first.folder, first.job):
        again = identified(storage=storage)
    assert again.code is not None
    assert list(again.code.listing) == ["net.py"]
    assert again.run.uri == first.run.uri


def test_checkpoints_of_other_runs_are_no_part_of_the_code(src: Path, tmp_path: Path) -> None:
    (src / "out").mkdir()
    (src / "out" / "last.pt").write_bytes(b"of another run")
    no_parts = {f"spec.training.{part}": REMOVE for part in ("task", "data", "model", "loop", "optimizer", "schedule")}
    script = {"path": "net.py", "checkpoints": ["out"]}
    changes = {**no_parts, "spec.training.code": {"path": "src"}, "spec.training.script": script}
    archive = own_code.packed(parse(load_example("digits", changes)), tmp_path, tmp_path / "runs")
    assert archive is not None
    assert (list(archive.listing), archive.results) == (["net.py"], ("out/",))


def test_code_that_cant_travel_is_refused(src: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (src / "out").symlink_to("/etc")
    with pytest.raises(Refused, match=r"spec\.training\.code: 'out' is a link to the absolute path '/etc'"):
        LocalRun(options(), coded())
    assert local.main(options(), coded()) == local.BAD_INPUT
    assert "Traceback" not in capsys.readouterr().err


def test_a_run_reads_the_code_as_it_was_packed(
    src: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (src / ".env").write_text("TOKEN=1")
    seen: dict[str, Any] = {}

    def lead(run: LocalRun, settings: Any, scratch: Path, reader: int) -> tuple[Any, float]:
        (src / "net.py").write_text("WIDTH = 3\n")
        code = Path(settings.code_dir)
        seen.update(text=(code / "net.py").read_text(), mode=stat.S_IMODE(code.stat().st_mode), scratch=scratch)
        seen.update(inside=code.is_relative_to(scratch), base=settings.base_dir)
        raise Refused("enough")

    monkeypatch.setattr(LocalRun, "_lead", lead)
    assert local.main(options(), coded()) == local.BAD_INPUT
    assert (seen["text"], seen["mode"], seen["inside"]) == ("WIDTH = 1\n", 0o555, True)
    assert seen["base"] == str(src.parent)
    assert not seen["scratch"].exists(), "read-only folders are removed, too"
    assert "names that secrets have: .env; `!NAME` in .trainmasterignore" in capsys.readouterr().out


def test_a_run_without_code_is_as_before() -> None:
    job = parse(load_example("digits"))
    run = identified(job)
    assert run.code is None
    assert own_code.unpacked(job, None, {}, Path("nowhere")) is None
    assert "code" not in run.identity.record["fixed"]


@pytest.mark.parametrize("is_in_the_job", [True, False])
def test_inline_code_is_kept_once(
    src: Path, tmp_path: Path, is_in_the_job: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pod the job has the checksum alone, and the archive is a file of the run's Secret."""
    archive = pack(src)
    data = base64.b64encode(archive.data).decode() if is_in_the_job else ""
    file = tmp_path / "code.tar.gz"
    file.write_bytes(archive.data)
    job = with_inline(archive.sha256, data)
    run = Store(str(tmp_path / "run"))
    own_code.keep_inline(run, job, "" if is_in_the_job else str(file))
    assert run.get(f"code/{archive.sha256}.tar.gz") == archive.data
    assert own_code.listing(run, archive.sha256) == {"net.py": hashlib.sha256(b"WIDTH = 1\n").hexdigest()}
    monkeypatch.setattr(Store, "put_if", None)
    own_code.keep_inline(run, job, "" if is_in_the_job else str(file))


def test_inline_code_that_cannot_be_kept(src: Path, tmp_path: Path) -> None:
    archive = pack(src)
    job = coded({"inline": {"sha256": archive.sha256, "data": base64.b64encode(archive.data).decode()}})
    run = Store(str(tmp_path / "run"))
    run.put("code", b"a file where the folder belongs")
    with pytest.raises(StorageDenied, match=r"a file is where a directory should be .* code/"):
        own_code.keep_inline(run, job, "")
    with pytest.raises(CodeError, match="the job says 000000000000"):
        own_code.keep_inline(Store(str(tmp_path / "other")), with_inline("0" * 64, ""), "")


def test_other_code_is_not_kept(src: Path, tmp_path: Path) -> None:
    run = Store(str(tmp_path / "run"))
    own_code.keep_inline(run, coded({"image": "/app"}), "")
    own_code.keep_inline(run, parse(load_example("digits")), "")
    assert run.list() == []


def test_the_record_of_inline_code_has_its_checksum(src: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(src)
    told: list[str] = []

    def lead(run: LocalRun, settings: Any, scratch: Path, reader: int) -> tuple[Any, float]:
        told.append(settings.code_sha256)
        raise Refused("enough")

    monkeypatch.setattr(LocalRun, "_lead", lead)
    inline = {"sha256": archive.sha256, "data": base64.b64encode(archive.data).decode()}
    local.main(options(), coded({"inline": inline}))
    assert told == [archive.sha256]


def test_a_run_takes_code_from_an_image_folder(src: Path) -> None:
    assert own_code.unpacked(coded({"image": str(src)}), None, {}, src.parent) == src
    with pytest.raises(CodeError, match="/nowhere does not exist in this image"):
        own_code.unpacked(coded({"image": "/nowhere"}), None, {}, src.parent)


def test_changes_name_ten_files() -> None:
    before = {f"f{number:02}": "1" for number in range(12)}
    assert changes(before, {}) == [f"f{number:02}: removed" for number in range(10)] + ["2 more"]
    assert changes({"a": "1"}, {"a": "1+x"}) == ["a: executable or not"]
    assert changes({"a": "1"}, {"a": "1"}) == []


def test_git_state_is_noted_where_the_code_is(src: Path, tmp_path: Path) -> None:
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b -c commit.gpgsign=false commit -q -m a"):
        subprocess.run(["git", *command.split()], check=True)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "job.txt").write_text("beside the code")

    def noted(code: dict[str, Any]) -> str:
        job = coded(code)
        return own_code.note_git(job, tmp_path, own_code.packed(job, tmp_path, tmp_path / "runs"), tmp_path / "scratch")

    found = decode(Path(noted({"path": "src"})).read_text())
    assert found is not None
    assert not found.dirty
    (src / "net.py").write_text("WIDTH = 2\n")
    found = decode(Path(noted({"path": "src"})).read_text())
    assert found is not None
    assert found.dirty
    assert "+WIDTH = 2" in found.diff
    assert noted({"image": str(src)}) == ""


def test_a_run_installs_its_lock_file(src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINMASTER_CACHE", str(tmp_path / "cache"))
    (src / "lock.txt").write_text(wheel(src / "wheels", "tinyone", "1.0"))
    job = coded({"path": "src", "requirements": "lock.txt", "wheels": "wheels"})
    seen: list[dict[str, str]] = []

    def lead(run: LocalRun, *_: Any) -> tuple[Any, float]:
        seen.append(own_code.variables(run.packages))
        raise Refused("enough")

    monkeypatch.setattr(LocalRun, "_lead", lead)
    assert local.main(options(), job) == local.BAD_INPUT
    assert Path(seen[0]["TRAINMASTER_PACKAGES"], "tinyone.py").exists()
    fixed = identified(job).identity.record["fixed"]
    assert fixed["requirements"] == "lock.txt"
    assert own_code.packages(coded({"path": "src"}), src, {}) is None
    assert own_code.variables(None) == {}
    remove(tmp_path / "cache")  # read-only folders
