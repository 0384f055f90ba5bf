"""One commit of a git repository, as files: by the git program, without its history."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from trainmaster_api.archive import check_links, make_read_only, remove
from trainmaster_api.spec.code import GitCode

from trainmaster_trainer.errors import CodeError, CodeUnavailable

_SECONDS = 600
# What git says where another try may pass. It has no codes for it.
_MAY_PASS = re.compile(
    r"could not resolve host|temporary failure|connection (refused|reset|timed out)|timed out|early eof|"
    r"unable to connect|failed to connect|network is unreachable|no route to host|remote end hung up|"
    r"returned error: (429|5\d\d)",
    re.IGNORECASE,
)
# A server that gives only what a branch or a tag points at.
_NO_COMMITS = re.compile(r"not our ref|unadvertised object|couldn't find remote ref", re.IGNORECASE)


def clone(git: GitCode, environment: Mapping[str, str], folder: Path) -> None:
    """Make a folder of a commit's files, read-only.

    Args:
        git: The repository, the commit, and the folder in it.
        environment: Of the git program.
        folder: Where to; what is there is replaced.

    Raises:
        CodeError: No git program, repository, commit or folder, or no access.
        CodeUnavailable: The repository doesn't respond.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _fetch(git, environment, beside)
        remove(beside / ".git")
        found = beside / (git.folder or "")
        if not found.is_dir() or not found.resolve().is_relative_to(beside.resolve()):
            raise CodeError(f"spec.training.code.git.folder: commit {git.commit[:12]} has no folder {git.folder}")
        links = [path for path in found.rglob("*") if path.is_symlink()]
        check_links({path.relative_to(found).parts: os.readlink(path) for path in links})  # noqa: PTH115
        remove(folder)
        found.rename(folder)
    finally:
        remove(beside)
    make_read_only(folder)


def _fetch(git: GitCode, environment: Mapping[str, str], folder: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return _git(environment, folder, *arguments)

    _require(run("init", "--quiet", "--template="), git)
    done = run("fetch", "--quiet", "--depth", "1", "--no-tags", "--", git.url, git.commit)
    if done.returncode and _NO_COMMITS.search(done.stderr):
        done = run("fetch", "--quiet", "--", git.url, "+refs/heads/*:refs/all/heads/*", "+refs/tags/*:refs/all/tags/*")
    _require(done, git)
    if run("cat-file", "-e", f"{git.commit}^{{commit}}").returncode:
        raise CodeError(f"spec.training.code.git: {git.url} has no commit {git.commit}; push it, or correct the hash")
    _require(run("checkout", "--quiet", "--detach", git.commit), git)


def _git(environment: Mapping[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("git", path=environment.get("PATH"))
    if program is None:
        raise CodeError(
            "spec.training.code.git needs the program git, which this image doesn't have; install it in the image, or "
            "use `code: {path: ...}` with `trainmaster submit`"
        )
    # never asks for a password, runs no hook and no filter; the messages are read here, so they are English
    quiet = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
        "LC_ALL": "C",
        "GIT_LFS_SKIP_SMUDGE": "1",
    }
    own = {
        **quiet,
        **{key: value for key, value in environment.items() if key not in ("LC_ALL", "GIT_DIR", "GIT_WORK_TREE")},
    }
    try:
        return subprocess.run(
            [program, "-c", "core.hooksPath=/dev/null", *arguments], cwd=folder, env=own, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CodeUnavailable(f"git {arguments[0]} didn't end within {_SECONDS} s; look at the repository") from None


def _require(done: subprocess.CompletedProcess[str], git: GitCode) -> None:
    if done.returncode == 0:
        return
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in said if line.startswith(("fatal:", "error:", "ERROR:"))] or said
    text = f"spec.training.code.git: {git.url} can't be read: {errors[0][:300] if errors else 'git gave no reason'}"
    if _MAY_PASS.search(done.stderr):
        raise CodeUnavailable(f"{text}; check the address and the way from the pods to it")
    raise CodeError(f"{text}; check the address, the commit, and the rights of the pods")
