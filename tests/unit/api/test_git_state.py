"""What git says about a folder of code, with a real git program and real repositories."""

from __future__ import annotations

import base64
import random
import subprocess
import zlib
from pathlib import Path

import pytest
from trainmaster_api import git_state
from trainmaster_api.git_state import MOST_DIFF, GitState, decode, gather
from trainmaster_api.names import MOST_GIT_STATE
from trainmaster_api.packing import pack


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder of a repository, with a commit."""
    folder = tmp_path / "repo" / "src"
    folder.mkdir(parents=True)
    git(tmp_path / "repo", "init", "--quiet")
    (folder / "net.py").write_text("WIDTH = 1\n")
    (folder / "old.py").write_text("OLD = 1\n")
    (folder / ".env").write_text("TOKEN=before\n")
    (tmp_path / "repo" / "README").write_text("a\n")
    git(tmp_path / "repo", "add", "--force", ".")
    git(tmp_path / "repo", "commit", "--quiet", "-m", "first")
    return folder


def test_clean_folder_is_its_commit(code: Path) -> None:
    assert gather(code) == GitState(commit=git(code, "rev-parse", "HEAD"))
    (code.parent / "README").write_text("b\n")
    assert gather(code) == GitState(commit=git(code, "rev-parse", "HEAD")), "what is outside of the code isn't it"


def test_changes_are_in_the_diff(code: Path) -> None:
    (code / "net.py").write_text("WIDTH = 2\n")
    (code / "new ü.py").write_text("NEW = 1\n")
    (code / "old.py").unlink()
    found = gather(code, pack(code).listing)
    assert found is not None
    assert (found.dirty, found.untracked) == (True, ["new ü.py"])
    assert "-WIDTH = 1\n+WIDTH = 2\n" in found.diff
    assert "deleted file" in found.diff
    assert "OLD = 1" not in found.diff


@pytest.mark.parametrize("with_listing", [True, False])
def test_secrets_stay_here(code: Path, with_listing: bool) -> None:
    (code / ".env").write_text("TOKEN=s3cret\n")
    (code / "id_rsa").write_text("s3cret\n")
    found = gather(code, pack(code).listing if with_listing else None)
    assert found == GitState(commit=git(code, "rev-parse", "HEAD"))
    (code / ".env").unlink()
    again = gather(code, pack(code).listing if with_listing else None)
    assert again is not None
    assert ".env" not in again.diff


def test_long_diff_is_cut_at_a_line(code: Path) -> None:
    numbers = random.Random(1)
    (code / "net.py").write_text("".join(f"X = {numbers.random()}\n" for _ in range(10_000)))
    found = gather(code)
    assert found is not None
    *lines, last = found.diff.splitlines()
    assert all(line.startswith(("+X = 0.", "+X = ")) for line in lines[10:])
    assert last == "# cut here: the diff of 1 files is longer than 64 KiB"
    assert MOST_DIFF - 100 < len(found.diff.encode()) <= MOST_DIFF + 100
    assert decode(found.encode()) == found


def test_no_repository_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert gather(tmp_path / "plain") is None
    git(tmp_path / "plain", "init", "--quiet")
    assert gather(tmp_path / "plain") is None, "there is no commit"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gather(code) is None, "there is no git program"


def test_encoding_drops_a_diff_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = random.Random(1)
    noise = "".join(chr(numbers.randrange(0x4E00, 0x9FA5)) for _ in range(MOST_GIT_STATE))
    state = GitState(commit="a" * 40, dirty=True, diff=noise)
    assert len(state.encode()) <= MOST_GIT_STATE
    assert decode(state.encode()) == GitState(commit="a" * 40, dirty=True)


def test_decode_answers_anything_else_with_nothing() -> None:
    bomb = base64.b64encode(zlib.compress(b'{"commit": "' + b"a" * 50_000_000, 9)).decode()
    for text in ("", "x", "aGVsbG8=", bomb, base64.b64encode(zlib.compress(b'{"commit": "x"}')).decode(), "ü"):
        assert decode(text) is None
    assert git_state.decode(GitState(commit="b" * 40).encode()) == GitState(commit="b" * 40)
