"""Code on its way into a pod: what arrives, and with which class and sentence an attempt ends where it doesn't."""

from __future__ import annotations

import base64
import io
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.archive import Archive, checksum
from trainmaster_api.packing import pack
from trainmaster_api.reasons import FAILURE_RULES, Retry
from trainmaster_api.spec.code import Code
from trainmaster_api.spec.storage import Storage
from trainmaster_trainer.code import bring as bringing
from trainmaster_trainer.code.bring import bring
from trainmaster_trainer.errors import CodeError, CodeUnavailable, TrainingError

STORAGE = Storage()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "net.py").write_text("WIDTH = 1\n")
    (tmp_path / "src" / "lock.txt").write_text("")
    return pack(tmp_path / "src")


def brought(tmp_path: Path, given: dict[str, Any], inline: bytes | None = None) -> Path:
    return bring(Code.model_validate(given), STORAGE, {"PATH": "/usr/bin:/bin"}, tmp_path / "scratch", inline)


def inline_of(archive: Archive, **more: str) -> dict[str, Any]:
    return {"inline": {"sha256": archive.sha256, "data": base64.b64encode(archive.data).decode(), **more}}


def test_inline_code_arrives(tmp_path: Path, archive: Archive) -> None:
    for given, data in ((inline_of(archive), None), (inline_of(archive, data=""), archive.data)):
        folder = brought(tmp_path, given, data)
        assert folder == tmp_path / "scratch" / "code"
        assert (folder / "net.py").read_text() == "WIDTH = 1\n"
        assert (folder / "net.py").stat().st_mode & 0o777 == 0o444


def test_stored_code_arrives(tmp_path: Path, archive: Archive) -> None:
    (tmp_path / "a.tar.gz").write_bytes(archive.data)
    stored = {"stored": {"uri": str(tmp_path / "a.tar.gz"), "sha256": archive.sha256}}
    assert (brought(tmp_path, stored) / "net.py").read_text() == "WIDTH = 1\n"


def test_image_code_is_used_as_it_is(tmp_path: Path, archive: Archive) -> None:
    assert brought(tmp_path, {"image": str(tmp_path / "src")}) == tmp_path / "src"
    (tmp_path / "src" / "new.py").write_text("")


def hostile() -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../evil"))
    return output.getvalue()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "hash": ({"inline": {"sha256": "0" * 64, "data": "AAAA"}}, "has the SHA-256 .* it was changed or damaged"),
    "base64": ({"inline": {"sha256": "0" * 64, "data": "AAA"}}, "isn't base64"),
    "hostile": (
        {"inline": {"sha256": checksum(hostile()), "data": base64.b64encode(hostile()).decode()}},
        r"'\.\./evil' in the archive leads out",
    ),
    "no folder": ({"image": "/nowhere/at/all"}, "/nowhere/at/all does not exist in this image"),
    "path": ({"path": "src"}, "`trainmaster submit FILE` packs it"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_code_is_final(case: str, tmp_path: Path) -> None:
    given, sentence = BAD[case]
    with pytest.raises(CodeError, match=sentence) as error:
        brought(tmp_path, given)
    assert FAILURE_RULES[error.value.failure_class].retry is Retry.NEVER
    assert not list(tmp_path.glob("**/evil"))


def test_missing_or_large_archives_are_final(tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = {"stored": {"uri": str(tmp_path / "a.tar.gz"), "sha256": archive.sha256}}
    with pytest.raises(CodeError, match=r"there is no /.*a\.tar\.gz; submit the job again"):
        brought(tmp_path, stored)
    (tmp_path / "a.tar.gz").write_bytes(archive.data)
    monkeypatch.setattr(bringing, "MOST_BYTES", 10)
    with pytest.raises(CodeError, match="code may have"):
        brought(tmp_path, stored)


def test_a_full_disk_may_pass(tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bringing, "unpack", full)
    with pytest.raises(CodeUnavailable, match="no space left on device") as error:
        brought(tmp_path, inline_of(archive))
    assert FAILURE_RULES[error.value.failure_class].retry is Retry.COUNTED


# -- git ------------------------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "src").mkdir(parents=True)
    git(folder, "init", "--quiet")
    (folder / "src" / "net.py").write_text("WIDTH = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "one")
    (folder / "src" / "net.py").write_text("WIDTH = 2\n")
    git(folder, "commit", "--quiet", "-a", "-m", "two")
    return folder


def git_code(repository: Path, revision: str = "HEAD", **more: str) -> dict[str, Any]:
    return {"git": {"url": f"file://{repository}", "commit": git(repository, "rev-parse", revision), **more}}


@pytest.mark.parametrize(("revision", "width"), [("HEAD", 2), ("HEAD~1", 1)])
def test_a_commit_arrives_without_its_history(revision: str, width: int, repository: Path, tmp_path: Path) -> None:
    folder = brought(tmp_path, git_code(repository, revision))
    assert (folder / "src" / "net.py").read_text() == f"WIDTH = {width}\n"
    assert [each.name for each in folder.iterdir()] == ["src"]
    assert [each.name for each in folder.parent.iterdir()] == ["code"]
    inner = brought(tmp_path, git_code(repository, revision, folder="src"))
    assert [each.name for each in inner.iterdir()] == ["net.py"]
    assert inner.stat().st_mode & 0o777 == 0o555


def test_a_server_that_gives_only_branches(repository: Path, tmp_path: Path) -> None:
    git(repository, "config", "protocol.version", "0")
    code = git_code(repository, "HEAD~1")
    environment = {"PATH": "/usr/bin:/bin", "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.version"}
    old = {**environment, "GIT_CONFIG_VALUE_0": "0"}
    folder = bring(Code.model_validate(code), STORAGE, old, tmp_path / "scratch")
    assert (folder / "src" / "net.py").read_text() == "WIDTH = 1\n"


def test_git_says_what_is_missing(repository: Path, tmp_path: Path) -> None:
    code = git_code(repository)
    none = {"git": {**code["git"], "commit": "0" * 39 + "1"}}
    with pytest.raises(CodeError, match=r"has no commit|can't be read"):
        brought(tmp_path, none)
    with pytest.raises(CodeError, match="has no folder other"):
        brought(tmp_path, git_code(repository, folder="other"))
    with pytest.raises(CodeError, match=r"can't be read: fatal: .*check the address, the commit"):
        brought(tmp_path, {"git": {**code["git"], "url": f"file://{tmp_path}/nowhere"}})
    with pytest.raises(CodeError, match="needs the program git, which this image doesn't have"):
        bring(Code.model_validate(code), STORAGE, {"PATH": str(tmp_path)}, tmp_path / "scratch")
    assert not list((tmp_path / "scratch").iterdir())


def test_a_repository_that_doesnt_respond_may_pass(repository: Path, tmp_path: Path) -> None:
    code = git_code(repository)
    with pytest.raises(CodeUnavailable, match="check the address and the way from the pods to it"):
        brought(tmp_path, {"git": {**code["git"], "url": "http://127.0.0.1:1/x.git"}})


def test_a_repository_s_links_stay_in_it(repository: Path, tmp_path: Path) -> None:
    (repository / "out").symlink_to("../../etc")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "three")
    with pytest.raises(CodeError, match="'out' is a link out of the code's folder"):
        brought(tmp_path, git_code(repository))


def test_storage_s_own_failures_come_through(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    stored = {"stored": {"uri": str(tmp_path / "file" / "a.tar.gz"), "sha256": "0" * 64}}
    with pytest.raises(TrainingError) as error:
        brought(tmp_path, stored)
    assert error.value.failure_class == "StorageDenied"
