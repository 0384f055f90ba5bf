"""The user's code before Ray starts: in the pod's own process or in a child, and what ends the attempt."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api import names
from trainmaster_api.archive import Archive, remove
from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.packing import pack
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.code import installed as code_installed
from trainmaster_trainer.code.installed import hold
from trainmaster_trainer.data.entries import Entry
from trainmaster_trainer.launcher import code as launcher_code
from trainmaster_trainer.launcher.code import Brought, bring_code
from trainmaster_trainer.launcher.head import Head
from trainmaster_trainer.launcher.identity import Pod
from trainmaster_trainer.processes import Children

from tests.unit.trainer.code.world import wheel

from .fakes import Scripted


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "net.py").write_text("WIDTH = 1\n")
    return pack(tmp_path / "src")


def pod(environment: dict[str, str], job: TrainingJob, code: dict[str, Any] | None) -> Pod:
    document = job.wire()
    if code is not None:
        document["spec"]["training"]["code"] = code
    Path(environment["TRAINMASTER_RUN_DIR"], names.KEY_JOB).write_text(json.dumps(document))
    return Pod.read({**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)})


def test_no_code_is_no_folder(environment: dict[str, str], job: TrainingJob) -> None:
    assert bring_code(pod(environment, job, None), Scripted({})) == Brought("")


def test_inline_code_comes_from_the_secret(environment: dict[str, str], job: TrainingJob, archive: Archive) -> None:
    found = pod(environment, job, {"inline": {"sha256": archive.sha256, "data": ""}})
    missing = bring_code(found, Scripted({}))
    assert isinstance(missing, ExitMessage)
    assert missing.failure_class is FailureClass.CODE_ERROR
    assert f"{job.metadata.name}-run has no code.tar.gz" in missing.message
    (found.run_dir / names.KEY_CODE).write_bytes(archive.data)
    brought = bring_code(found, Scripted({}))
    assert brought == Brought(str(found.scratch / "code"))
    assert (found.scratch / "code" / "net.py").read_text() == "WIDTH = 1\n"
    (found.run_dir / names.KEY_CODE).write_bytes(archive.data + b"x")
    changed = bring_code(found, Scripted({}))
    assert isinstance(changed, ExitMessage)
    assert (changed.failure_class, changed.pod) == (FailureClass.CODE_ERROR, "digits-3-w-1")


def test_stored_code_comes_by_a_child(
    environment: dict[str, str], job: TrainingJob, archive: Archive, tmp_path: Path
) -> None:
    (tmp_path / "a.tar.gz").write_bytes(archive.data)
    stored = {"uri": str(tmp_path / "a.tar.gz"), "sha256": archive.sha256}
    found = pod(environment, job, {"stored": stored})
    assert bring_code(found, Children()) == Brought(str(found.scratch / "code"))
    (tmp_path / "a.tar.gz").unlink()
    failure = bring_code(found, Children())
    assert isinstance(failure, ExitMessage)
    assert failure.failure_class is FailureClass.CODE_ERROR
    assert "submit the job again, which uploads it" in failure.message


def test_a_pod_that_is_told_to_end_doesnt_wait(environment: dict[str, str], job: TrainingJob) -> None:
    class Told(Scripted):
        def start(self, *_: object) -> int:  # type: ignore[override]
            return 7

        def end(self, pid: int, seconds: float) -> None:
            self.exits[pid] = -9

    told = Told({}, stop=True)
    message = bring_code(pod(environment, job, {"git": {"url": "https://git.example/x", "commit": "0" * 40}}), told)
    assert isinstance(message, ExitMessage)
    assert message.outcome is Outcome.STOPPED
    assert told.exits == {7: -9}


def test_a_child_that_dies_may_pass(
    environment: dict[str, str], job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher_code, "_MODULE", "no.such.module")
    message = bring_code(
        pod(environment, job, {"git": {"url": "https://git.example/x", "commit": "0" * 40}}), Children()
    )
    assert isinstance(message, ExitMessage)
    assert message.failure_class is FailureClass.CODE_UNAVAILABLE
    assert "ended with status 1" in message.message
    assert any("no.such" in line for line in message.last_lines)


def test_the_driver_is_told_the_folder(environment: dict[str, str], job: TrainingJob) -> None:
    one = pod({**environment, names.ENV_ROLE: "head"}, job, None)
    assert Head(one, Scripted({})).driver_settings().code_dir == ""
    assert Head(replace(one, code_dir="/scratch/code"), Scripted({})).driver_settings().code_dir == "/scratch/code"


def test_the_driver_is_told_what_the_record_needs(environment: dict[str, str], job: TrainingJob) -> None:
    stored = {"stored": {"uri": "s3://bucket/a.tar.gz", "sha256": "0" * 64}}
    head = Head(pod({**environment, names.ENV_ROLE: "head"}, job, stored), Scripted({}))
    told = head.driver_settings()
    assert (told.code_sha256, told.git_file) == ("0" * 64, "")
    (head.pod.run_dir / names.KEY_GIT).write_text("state")
    assert head.driver_settings().git_file == str(head.pod.run_dir / "git-state")
    assert head.driver_settings().code_file == ""
    (head.pod.run_dir / names.KEY_CODE).write_bytes(b"archive")
    assert head.driver_settings().code_file == str(head.pod.run_dir / "code.tar.gz")


def test_a_lock_file_is_installed_on_workers(
    environment: dict[str, str], job: TrainingJob, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src" / "lock.txt").write_text(wheel(tmp_path / "src" / "wheels", "tinyone", "1.0"))
    where = {"image": str(tmp_path / "src"), "requirements": "lock.txt", "wheels": "wheels"}
    own = {**environment, "TRAINMASTER_CACHE": str(tmp_path / "cache")}
    found = bring_code(pod(own, job, where), Children())
    assert isinstance(found, Brought)
    assert found.code_dir == str(tmp_path / "src")
    assert Path(found.packages_dir, "tinyone.py").exists()
    assert found.held is not None
    assert found.held.path == Path(found.packages_dir).parent, "nothing removes them while the pod is there"
    worker = replace(pod(own, job, where), packages_dir=found.packages_dir)
    assert worker.child_environment()[names.ENV_PACKAGES] == found.packages_dir
    assert names.ENV_PACKAGES not in pod(own, job, where).child_environment()
    remove(tmp_path / "cache")  # read-only folders
    held: list[Path] = []

    def removed_meanwhile(packages: Path) -> Entry | None:
        held.append(packages)
        if len(held) == 1:
            remove(packages.parent)
        return hold(packages)

    monkeypatch.setattr(code_installed, "hold", removed_meanwhile)
    again = bring_code(pod(own, job, where), Children())
    assert isinstance(again, Brought)
    assert len(held) == 2, "another job has removed them before they were held: they are installed again"
    assert again.held is not None
    assert Path(again.packages_dir, "tinyone.py").exists()
    remove(tmp_path / "cache")
    head = bring_code(pod({**own, names.ENV_ROLE: "head"}, job, where), Children())
    assert head == Brought(str(tmp_path / "src")), "no rank runs there"
    (tmp_path / "src" / "lock.txt").write_text("-e .\n")
    failure = bring_code(pod(own, job, where), Children())
    assert isinstance(failure, ExitMessage)
    assert failure.failure_class is FailureClass.CODE_ERROR
    assert "line 1: `-e .` is an editable install" in failure.message
