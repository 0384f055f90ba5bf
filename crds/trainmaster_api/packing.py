"""Packs a folder of code: the same tree gives the same archive on every machine.

Files that git ignores are left out, and so is what is never code: repositories, environments, caches. A file that looks
like a secret is left out, too, which is said. `.trainmasterignore` has the syntax of `.gitignore` and the last word.
"""

from __future__ import annotations

import errno
import fnmatch
import gzip
import hashlib
import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import archive
from .archive import Archive, ArchiveError, Member, check_links, checksum, remove, unpack

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILES = (".gitignore", ".trainmasterignore")
NEVER = (
    ".git", ".hg", ".svn", "__pycache__", "node_modules", ".ipynb_checkpoints", "trainmaster-runs",
    "*.pyc", "*.pyo", ".DS_Store",
)  # fmt: skip
"""Names that are never packed, whatever an ignore file says."""
ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")
"""What a folder has in it that is an environment of Python's or conda's."""
SECRETS = (
    ".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "id_rsa*", "id_dsa*", "id_ecdsa*",
    "id_ed25519*", "credentials*", ".git-credentials", ".netrc", "_netrc", ".pypirc", ".htpasswd", "kubeconfig*",
    ".aws", ".azure", ".ssh", ".kube", ".gnupg", ".docker", "gcloud",
)  # fmt: skip
"""Names that are left out unless `.trainmasterignore` has `!name`; a folder with all that is in it."""
_NO_SECRETS = (".env.example", ".env.sample", ".env.template")
_LARGEST = 10


@dataclass
class _Found:
    """What is in a folder."""

    files: dict[str, os.stat_result] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Rules:
    """The ignore files of one folder."""

    folder: Path
    both: GitIgnoreSpec
    ours: GitIgnoreSpec

    def asks(self, path: Path, is_folder: bool, *, ours: bool = False) -> bool | None:
        """Return whether a path is ignored; None: these files say nothing about it."""
        name = path.relative_to(self.folder).as_posix() + ("/" if is_folder else "")
        return (self.ours if ours else self.both).check_file(name).include


def pack(folder: Path, leave_out: Collection[Path] = (), results: Collection[str] = ()) -> Archive:
    """Return the archive of a folder.

    Args:
        folder: The code.
        leave_out: Folders that aren't code, such as one for the runs of a laptop.
        results: Folders, relative to `folder`, that the program writes its checkpoints to. What is there now is of
            another run, which this one must not continue without a word.

    Raises:
        ArchiveError: It can't be read, has something in it that can't travel, or is too large.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        what = "is a file; name its folder" if folder.exists() else "does not exist"
        raise ArchiveError(f"the folder of the code, {folder}, {what}")
    found = _Found()
    left_out = {path.resolve(): False for path in leave_out} | {(folder / path).resolve(): True for path in results}
    _walk(folder, folder, _rules_above(folder), left_out, found)
    if not found.files and not found.links:
        raise ArchiveError(f"there is no code in {folder}: it is empty, or an ignore file leaves out everything in it")
    check_links({tuple(path.split("/")): target for path, target in found.links.items()})
    sizes = {path: status.st_size for path, status in found.files.items()}
    _require_size(folder, sizes, sum(sizes.values()), archive.MOST_UNPACKED, "unpacked")
    count = len(sizes) + len(found.links)
    if count > archive.MOST_FILES:
        raise ArchiveError(f"{folder} has {count:,} files, and at most {archive.MOST_FILES:,} can travel; {_ADVICE}")
    data, members = _compress(folder, found)
    _require_size(folder, sizes, len(data), archive.MOST_BYTES, "compressed")
    return Archive(data, checksum(data), members, tuple(sorted(found.skipped)), tuple(sorted(found.results)))


_ADVICE = "leave out what isn't code in .trainmasterignore (data belongs beside the job's file or in object storage)"


def listing_of(data: bytes, sha256: str) -> dict[str, str]:
    """Return path -> digest of an archive that was packed before.

    Raises:
        ArchiveError: It has another checksum, is damaged, or has something in it that could do harm.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "code"
        unpack(data, sha256, folder)
        try:
            return pack(folder).listing
        finally:
            remove(folder)


def _require_size(folder: Path, sizes: dict[str, int], size: int, limit: int, how: str) -> None:
    if size <= limit:
        return
    largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:_LARGEST]
    lines = "".join(f"\n  {_size(each):>9}  {path}" for path, each in largest)
    raise ArchiveError(
        f"the code in {folder} is {_size(size)} {how}, and at most {_size(limit)} can travel; {_ADVICE}. "
        f"The largest files:{lines}"
    )


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


# --- which files ---------------------------------------------------------------------------------------------------


def _walk(root: Path, folder: Path, rules: tuple[_Rules, ...], left_out: dict[Path, bool], found: _Found) -> None:
    """Collect what travels. `left_out`: folder -> whether it is left out with a word, and may be asked for."""
    rules = (*rules, *_rules_in(folder))
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        raise ArchiveError(f"{folder} can't be read: {(error.strerror or '').lower()}") from None
    for entry in entries:
        path = Path(entry.path)
        if _is_one_of(entry.name, NEVER) or left_out.get(path.resolve()) is False:
            continue
        _require_unicode(path)
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and any((path / mark).exists() for mark in ENVIRONMENT_MARKS):
            continue
        if _is_ignored(path, is_folder, rules):
            continue
        name = path.relative_to(root).as_posix()
        if _is_secret(entry.name) and _is_ignored(path, is_folder, rules, ours=True) is not False:
            found.skipped.append(f"{name}/" if is_folder else name)
        elif path.resolve() in left_out and _is_ignored(path, is_folder, rules, ours=True) is not False:
            found.results += [f"{name}/"] if not is_folder or any(path.iterdir()) else []
        elif is_folder:
            _walk(root, path, rules, left_out, found)
        elif entry.is_symlink():
            found.links[name] = _target(path)
        elif entry.is_file(follow_symlinks=False):
            found.files[name] = entry.stat(follow_symlinks=False)
        else:
            raise ArchiveError(f"{path} is {_kind(entry)}, which can't travel; leave it out in .trainmasterignore")


def _is_one_of(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def is_secret_path(path: str) -> bool:
    """Return whether a file, or a folder that it is in, has a name that secrets have."""
    return any(_is_secret(part) for part in path.split("/"))


def _is_secret(name: str) -> bool:
    return _is_one_of(name.lower(), SECRETS) and not _is_one_of(name.lower(), _NO_SECRETS)


def _is_ignored(path: Path, is_folder: bool, rules: tuple[_Rules, ...], *, ours: bool = False) -> bool | None:
    """Return what the nearest ignore file that says something about a path says of it, as git does."""
    for each in reversed(rules):
        answer = each.asks(path, is_folder, ours=ours)
        if answer is not None:
            return answer
    return None


def _rules_in(folder: Path) -> Iterator[_Rules]:
    lines = [_lines(folder / name) for name in IGNORE_FILES]
    if any(lines):
        try:
            from pathspec import GitIgnoreSpec
        except ImportError:
            raise ArchiveError(
                f"{folder} has an ignore file, and reading it needs the package pathspec: pip install pathspec"
            ) from None
        yield _Rules(folder, GitIgnoreSpec.from_lines([*lines[0], *lines[1]]), GitIgnoreSpec.from_lines(lines[1]))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
            return []
        raise ArchiveError(f"{file} can't be read: {(error.strerror or '').lower()}") from None
    except UnicodeDecodeError:
        raise ArchiveError(f"{file} is not UTF-8 text") from None


def _rules_above(folder: Path) -> tuple[_Rules, ...]:
    """Return the ignore files of the folders above, up to the top of the repository; none outside of one."""
    above = []
    for place in (folder, *folder.parents):
        if place != folder:
            above.append(place)
        if (place / ".git").exists():
            return tuple(rules for each in reversed(above) for rules in _rules_in(each))
    return ()


def _require_unicode(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise ArchiveError(f"{shown} has a name that isn't valid UTF-8; rename it") from None


def _target(path: Path) -> str:
    target = os.readlink(path)  # noqa: PTH115 - the text itself: a Path would drop a `./`
    _require_unicode(path.parent / target)
    return target


def _kind(entry: os.DirEntry[str]) -> str:
    mode = entry.stat(follow_symlinks=False).st_mode
    kinds = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a named pipe"}
    return kinds.get(stat.S_IFMT(mode), "a device")


# --- the archive ---------------------------------------------------------------------------------------------------


def _compress(folder: Path, found: _Found) -> tuple[bytes, tuple[Member, ...]]:
    output, members = io.BytesIO(), []
    # GzipFile writes the same header everywhere; zlib's own names the operating system
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=output, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar,
    ):
        for path in sorted({*found.files, *found.links}):
            info = tarfile.TarInfo(path)
            if path in found.links:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, found.links[path], 0o777
                tar.addfile(info)
                members.append(Member(path, 0, f"-> {info.linkname}"))
                continue
            content = _content(folder / path)
            is_executable = bool(found.files[path].st_mode & 0o100)
            info.size, info.mode = len(content), 0o755 if is_executable else 0o644
            tar.addfile(info, io.BytesIO(content))
            digest = hashlib.sha256(content).hexdigest() + ("+x" if is_executable else "")
            members.append(Member(path, len(content), digest))
    return output.getvalue(), tuple(members)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArchiveError(
            f"{path} can't be read: {(error.strerror or '').lower()}; correct its permissions, or leave it out in "
            ".trainmasterignore"
        ) from None
