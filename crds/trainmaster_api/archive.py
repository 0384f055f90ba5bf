"""The archive that a user's code travels in, on the side that receives it: verified, unpacked, made read-only.

`packing.py` makes one. An archive may come from anybody who can write to the storage or create a job, so nothing in it
is trusted: the checksum comes first, every size is counted while reading, and no link or name leads out of the folder.
The standard library alone.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MOST_BYTES = 50 * 2**20
"""Bytes of an archive, compressed."""
MOST_FILES = 50_000
"""Members of an archive."""
MOST_UNPACKED = 2**30
"""Bytes of all files together."""
_MOST_HEADER = 2**20  # of one member, a long name included
_MOST_LINKS = 40  # in a row, as Linux follows them
_CHUNK = 2**20
_MOST_NAMED = 10


class ArchiveError(Exception):
    """An archive, or a folder to be packed, that is refused; the message is a sentence with the path."""


class ArchiveMismatch(ArchiveError):  # noqa: N818 - a kind of it
    """The content isn't what its address says."""


@dataclass(frozen=True)
class Member:
    """A file or link of an archive.

    Attributes:
        path: Relative to the code's folder, with `/`.
        size: Bytes.
        digest: What a change shows in: SHA-256 of the content, with `+x` if it is executable; of a link its target.
    """

    path: str
    size: int
    digest: str


@dataclass(frozen=True)
class Archive:
    """A folder, packed.

    Attributes:
        data: The .tar.gz.
        sha256: SHA-256 of `data`.
        files: What is in it, by path.
        skipped: Paths of files that look like secrets and were left out.
        results: Folders of other runs' checkpoints that were left out.
    """

    data: bytes
    sha256: str
    files: tuple[Member, ...]
    skipped: tuple[str, ...] = ()
    results: tuple[str, ...] = ()

    @property
    def left_out(self) -> list[str]:
        """Sentences about what is there and doesn't travel."""
        some = ", ".join(self.skipped[:_MOST_NAMED]) + (", ..." if len(self.skipped) > _MOST_NAMED else "")
        whys = {some: "because of names that secrets have", ", ".join(self.results): "as the checkpoints of other runs"}
        return [
            f"not part of the code, {why}: {what}; `!NAME` in .trainmasterignore brings one in"
            for what, why in whys.items()
            if what
        ]

    @property
    def listing(self) -> dict[str, str]:
        """Path -> digest."""
        return {each.path: each.digest for each in self.files}

    @property
    def tree(self) -> str:
        """Checksum of the listing: the same for the same tree, also where another zlib compresses it differently."""
        return tree_of(self.listing)


def tree_of(listing: Mapping[str, str]) -> str:
    """Return the checksum of a listing, path -> digest."""
    return checksum(json.dumps(listing, sort_keys=True, separators=(",", ":")).encode())


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return which files differ, one line each, the first ten."""
    words = []
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        what = "added" if old is None else "removed" if new is None else "changed"
        is_mode = what == "changed" and str(old).removesuffix("+x") == str(new).removesuffix("+x")
        words.append(f"{path}: {'executable or not' if is_mode else what}")
    more = len(words) - _MOST_NAMED
    return [*words[:_MOST_NAMED], *([f"{more} more"] if more > 0 else [])]


def checksum(data: bytes) -> str:
    """Return the SHA-256 of an archive."""
    return hashlib.sha256(data).hexdigest()


def verify(data: bytes, sha256: str) -> None:
    """Compare an archive with the checksum that the job has. Raises ArchiveMismatch."""
    found = checksum(data)
    if found != sha256:
        raise ArchiveMismatch(
            f"the archive of the code has the SHA-256 {found[:12]}..., and the job says {sha256[:12]}...: it was "
            "changed or damaged; submit the job again"
        )


def unpack(data: bytes, sha256: str, folder: Path) -> None:
    """Unpack an archive into a folder, which is then read-only. Nothing of a refused archive is left.

    Args:
        data: The .tar.gz.
        sha256: The checksum that it must have; verified before anything is written.
        folder: Where to; what is there is replaced.

    Raises:
        ArchiveMismatch: It has another checksum.
        ArchiveError: It is damaged, or has something in it that could do harm.
    """
    verify(data, sha256)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _extract(data, beside)
        remove(folder)
        beside.rename(folder)
    except BaseException:
        remove(beside)
        raise
    make_read_only(folder)


def make_read_only(folder: Path) -> None:
    """Take the right to write from a folder and everything in it; what is executable stays so."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            file = Path(place, name)
            if not file.is_symlink():
                file.chmod(0o555 if file.stat().st_mode & 0o100 else 0o444)
        Path(place).chmod(0o555)


def remove(folder: Path) -> None:
    """Delete a folder of read-only folders; a missing one is not an error."""
    for place, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            Path(place).chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)


def safe_path(name: str) -> tuple[str, ...]:
    """Return the parts of a member's path. Raises ArchiveError for one that isn't below the folder."""
    shown = _shown(name)
    if not name or "\x00" in name:
        raise ArchiveError(f"the archive has the name {shown}, which no file can have")
    if name.startswith(("/", "\\")) or (len(name) > 1 and name[1] == ":"):
        raise ArchiveError(f"{shown} in the archive is an absolute path; only paths below the code are unpacked")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise ArchiveError(f"{shown} in the archive leads out of the code's folder by `..`")
    return parts


def check_links(links: Mapping[tuple[str, ...], str]) -> None:
    """Refuse links that lead out of the tree, also through other links.

    Args:
        links: Parts of a link's path -> what it says.

    Raises:
        ArchiveError: One leads out of the tree, or in circles.
    """
    for path, target in links.items():
        _follow(path, target, links)


def _follow(path: tuple[str, ...], target: str, links: Mapping[tuple[str, ...], str]) -> None:
    name, hops = "/".join(path), 0
    at, todo = list(path[:-1]), target.split("/")[::-1]
    if target.startswith(("/", "\\")):
        raise ArchiveError(f"{_shown(name)} is a link to the absolute path {_shown(target)}; links stay in the code")
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not at:
                raise ArchiveError(f"{_shown(name)} is a link out of the code's folder, to {_shown(target)}")
            at.pop()
            continue
        at.append(part)
        further = links.get(tuple(at))
        if further is None:
            continue
        hops += 1
        if hops > _MOST_LINKS:
            raise ArchiveError(f"{_shown(name)} is a link that leads in circles, by {_shown(target)}")
        at.pop()
        todo += further.split("/")[::-1]


class _Counted:
    """Reads an unpacked archive and ends where it becomes larger than is allowed; headers may lie about sizes."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.left = _MOST_HEADER

    def read(self, size: int) -> bytes:
        found = self._source.read(size)
        self.left -= len(found)
        if self.left < 0:
            raise ArchiveError(
                f"the archive unpacks to more than {MOST_UNPACKED >> 20} MiB, or has a header of more than "
                f"{_MOST_HEADER >> 20} MiB; code must be smaller"
            )
        return found


def _extract(data: bytes, folder: Path) -> None:
    """Write every file, then the links, so that nothing is ever written through a link."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as unpacked:
            counted = _Counted(unpacked)  # type: ignore[arg-type]  # a reader is all that it has to be
            with tarfile.open(fileobj=counted, mode="r|", encoding="utf-8", errors="strict") as tar:  # type: ignore[call-overload]
                links = _write_files(tar, counted, folder)
            while counted.read(_CHUNK):  # to the end, where gzip compares its own checksum
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError, ValueError) as error:
        raise ArchiveError(
            f"the archive of the code is damaged or no .tar.gz ({error}); submit the job again"
        ) from None
    except OSError as error:
        if error.filename is None:
            raise
        name = str(error.filename).removeprefix(f"{folder}/")
        raise ArchiveError(
            f"{_shown(name)} in the archive can't be unpacked: {(error.strerror or '').lower()}"
        ) from None
    check_links(links)
    _write_links(links, folder)


def _write_files(tar: tarfile.TarFile, counted: _Counted, folder: Path) -> dict[tuple[str, ...], str]:
    seen: set[tuple[str, ...]] = set()
    links: dict[tuple[str, ...], str] = {}
    budget, count = MOST_UNPACKED, 0
    while True:
        counted.left = _MOST_HEADER
        member = tar.next()
        if member is None:
            return links
        count += 1
        if count > MOST_FILES:
            raise ArchiveError(f"the archive has more than {MOST_FILES} files; code must have fewer")
        parts, name = safe_path(member.name), _shown(member.name)
        if member.isdir():
            folder.joinpath(*parts).mkdir(parents=True, exist_ok=True)
            continue
        if not parts or parts in seen:
            raise ArchiveError(f"{name} is in the archive twice")
        seen.add(parts)
        if member.issym():
            links[parts] = member.linkname
        elif member.isreg() and not member.issparse():
            counted.left = budget + _MOST_HEADER
            budget -= _write_file(tar, member, folder.joinpath(*parts))
        else:
            kind = "a hard link" if member.islnk() else "no file, folder or link, but a device or the like"
            raise ArchiveError(f"{name} in the archive is {kind}; only files, folders and links are unpacked")


def _write_file(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    written = 0
    with target.open("xb") as output:
        while source is not None and (block := source.read(_CHUNK)):
            output.write(block)
            written += len(block)
    if written != member.size:
        raise ArchiveError(f"{_shown(member.name)} ends before its end: the archive is truncated")
    if member.mode & 0o100:
        target.chmod(0o755)
    return written


def _write_links(links: Mapping[tuple[str, ...], str], folder: Path) -> None:
    for parts, target in links.items():
        path, name = folder.joinpath(*parts), _shown("/".join(parts))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)
        except FileExistsError:
            raise ArchiveError(f"{name} in the archive is a link and something else, too") from None
    root = folder.resolve()
    for parts in links:  # once more by the file system, which may take `A` and `a` for the same name
        if not _lies_in(folder.joinpath(*parts), root):
            raise ArchiveError(f"{_shown('/'.join(parts))} is a link out of the code's folder")


def _lies_in(path: Path, root: Path) -> bool:
    with contextlib.suppress(OSError, RuntimeError):
        return path.resolve().is_relative_to(root)
    return False


def _shown(name: str) -> str:
    """Return a name as it can be printed."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return repr(text if len(text) <= 200 else f"{text[:197]}...")
