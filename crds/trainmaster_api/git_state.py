"""What git says about a folder of code: commit, whether it was changed since, and how. It travels beside the code.

It is no part of the code's identity: the same tree is the same code at another commit. So it isn't in the archive but
in an annotation of the job, which the operator hands on to the head pod.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from .names import MOST_GIT_STATE
from .packing import is_secret_path
from .types import Model

MOST_DIFF = 64 * 1024
"""Bytes of a diff; what comes after them is left out."""
_MOST_JSON = 8 * MOST_DIFF
_MOST_NAMES = 100
_AT_ONCE = 200
_SECONDS = 10


class GitState(Model):
    """The state of the repository that a folder of code is in."""

    commit: Annotated[str, Field(pattern="^[0-9a-f]{40,64}$", max_length=64)]
    """What is checked out."""
    dirty: bool = False
    """Whether the folder differs from the commit."""
    untracked: Annotated[list[str], Field(max_length=_MOST_NAMES)] = []
    """Files that git doesn't know, the first 100; their content is in the archive alone."""
    diff: str = ""
    """The changes since the commit, as `git diff` prints them. Of a deleted file only that it was deleted."""

    def encode(self) -> str:
        """Return it as text for an annotation or a file; without the diff where that would be too long for one."""
        text = base64.b64encode(zlib.compress(self.model_dump_json(by_alias=True).encode(), 9)).decode()
        return text if len(text) <= MOST_GIT_STATE else self.model_copy(update={"diff": ""}).encode()


def decode(text: str) -> GitState | None:
    """Return what `encode` made; None for anything else, which an annotation may be."""
    try:
        unpacked = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _MOST_JSON)
        return GitState.model_validate_json(unpacked)
    except (ValueError, zlib.error):  # what base64, JSON and pydantic raise are ValueErrors
        return None


def gather(folder: Path, listing: Collection[str] | None = None) -> GitState | None:
    """Return what the git program says about a folder; None: there is no program, no repository or no commit.

    Args:
        folder: The code.
        listing: Paths of the files that travel: of others nothing is said. None: all but those named like secrets.
    """
    program = shutil.which("git")
    if program is None or not folder.is_dir():
        return None
    git = _Git(program, folder)
    commit = git.run("rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return None
    tracked = list(git.names("diff", "--name-only", "-z", "--relative", "--no-renames", "HEAD", "--", "."))
    changed = [name for name in tracked if _travels(name, folder, listing)]
    others = git.names("ls-files", "--others", "--exclude-standard", "-z", "--", ".")
    untracked = sorted(name for name in others if _travels(name, folder, listing))
    return GitState(
        commit=commit.decode().strip(),
        dirty=bool(changed or untracked),
        untracked=untracked[:_MOST_NAMES],
        diff=_diff(git, sorted(changed)),
    )


class _Git:
    """The git program in one folder; it takes no locks, and runs nothing that the repository configures."""

    def __init__(self, program: str, folder: Path) -> None:
        options = ["--no-optional-locks", "--literal-pathspecs", "-c", "core.fsmonitor=false", "-c", "core.quotePath=0"]
        self._command = [program, "-C", str(folder), *options]
        away = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_EXTERNAL_DIFF")
        self._environment = {key: value for key, value in os.environ.items() if key not in away} | {"LC_ALL": "C"}

    def run(self, *arguments: str) -> bytes:
        """Return what it prints; nothing where it fails."""
        try:
            done = subprocess.run(
                [*self._command, *arguments], env=self._environment, stdin=subprocess.DEVNULL, capture_output=True,
                timeout=_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return b""
        return done.stdout if done.returncode == 0 else b""

    def names(self, *arguments: str) -> Iterator[str]:
        """Yield the names that it prints, each ended by a NUL."""
        yield from (name.decode(errors="replace") for name in self.run(*arguments).split(b"\0") if name)


def _travels(name: str, folder: Path, listing: Collection[str] | None) -> bool:
    if listing is not None and name in listing:
        return True
    was_deleted = not os.path.lexists(folder / name)
    return (listing is None or was_deleted) and not is_secret_path(name)


def _diff(git: _Git, names: list[str]) -> str:
    options = ["--relative", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--irreversible-delete"]
    found = b""
    for start in range(0, len(names), _AT_ONCE):
        found += git.run("diff", *options, "HEAD", "--", *names[start : start + _AT_ONCE])
        if len(found) > MOST_DIFF:
            shown = found[: found.rfind(b"\n", 0, MOST_DIFF) + 1].decode(errors="replace")
            return f"{shown}# cut here: the diff of {len(names)} files is longer than {MOST_DIFF >> 10} KiB\n"
    return found.decode(errors="replace")
