"""Images inside a zip or tar archive, read by an index of its members: nothing is unpacked.

An archive on S3 is read in ranges. Only a compressed tar, which has no random access, is decompressed once to a file
of the cache (`scratch`), as a plain tar.
"""

from __future__ import annotations

import gzip
import hashlib
import posixpath
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from trainmaster_trainer.data.files import IMAGE_ENDINGS, Files, is_hidden
from trainmaster_trainer.data.sentences import first_of
from trainmaster_trainer.data.tables.cache import Progress
from trainmaster_trainer.errors import DataError
from trainmaster_trainer.storage.store import Store

from .blob import Blob
from .errors import UnreadableError
from .folder import Listing, list_images
from .scratch import scratch_file

MOST_BYTES = 256 * 2**20
"""Size of the largest member that is read: a small archive may claim any size."""
MOST_UNPACKED = 100
"""How many times its own size a compressed tar may become; above `LEAST_UNPACKED` bytes."""
LEAST_UNPACKED = 2**30
_STORED, _DEFLATED = 0, 8
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a member: signature, length of the name and of the extra field


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive.

    Attributes:
        offset: Where it begins: in a tar its content, in a zip its header.
        packed: Bytes that it takes in the archive.
        size: Bytes of its content.
        method: How a zip compresses it; None in a tar.
        crc: Its CRC-32 in a zip.
    """

    offset: int
    packed: int
    size: int
    method: int | None = None
    crc: int = 0


class ArchiveContent:
    """Images of an archive.

    Args:
        blob: The archive, or the decompressed tar.
        shown: Its address as the user wrote it.
        origin: Identity of the archive.
        names: Names of the images.
        members: Where they are.
    """

    def __init__(self, blob: Blob, shown: str, origin: str, names: list[str], members: list[Member]) -> None:
        self.blob, self.shown, self.origin, self.names, self.members = blob, shown, origin, names, members

    @property
    def is_remote(self) -> bool:
        """Whether it is on S3."""
        return self.blob.store.is_s3

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """Return the name inside the archive."""
        return self.names[index]

    def where(self, index: int) -> str:
        """Return the name with that of the archive."""
        return f"{self.shown}/{self.names[index]}"

    def read(self, index: int) -> bytes:
        """Return a member's content."""
        member = self.members[index]
        if member.method is None:
            return self._span(member.offset, member.size)
        signature, name, extra = _LOCAL_HEADER.unpack(self._span(member.offset, _LOCAL_HEADER.size))
        if signature != b"PK\x03\x04":
            raise UnreadableError("the archive has no member there: it is damaged")
        content = self._span(member.offset + _LOCAL_HEADER.size + name + extra, member.packed)
        if member.method == _DEFLATED:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, member.size + 1)
            except zlib.error as error:
                raise UnreadableError(f"damaged in the archive ({error})") from None
        if len(content) != member.size or zlib.crc32(content) != member.crc:
            raise UnreadableError("damaged in the archive (wrong checksum)")
        return content

    def header(self, index: int) -> bytes:
        """Return a member's content."""
        return self.read(index)

    def sizes(self) -> npt.NDArray[np.int64]:
        """Return the sizes by the archive's index."""
        return np.array([member.size for member in self.members], dtype=np.int64)

    def identity(self) -> str:
        """Return that of the archive, with the order of its members."""
        order = hashlib.sha256("\n".join(self.names).encode()).hexdigest()
        return f"{self.origin} {order}"

    def _span(self, offset: int, length: int) -> bytes:
        found = self.blob.read_at(offset, length)
        if len(found) != length:
            raise UnreadableError("the archive ends before it: it is incomplete")
        return found


def open_archive(
    files: Files, say: Callable[[str], None] = lambda _: None, *, nested: bool
) -> tuple[ArchiveContent, Listing]:
    """Return the images of an archive, in the order and with the classes that its folder would have.

    A folder that holds all images and no class of its own is the archive's root: `zip -r pictures.zip pictures`.

    Args:
        files: The archive.
        say: Takes a sentence on how far decompressing it is, every few seconds.
        nested: Whether images in deeper folders belong to the class of their first folder.

    Raises:
        DataError: It can't be read, has names that lead out of it, or what a folder is refused for.
    """
    found = _Index(files).read(say)
    root = _root([name for name in found.members if name.lower().endswith(IMAGE_ENDINGS) and not is_hidden(name)])
    inside = {name.removeprefix(root): member for name, member in found.members.items() if name.startswith(root)}
    outside = [name for name in found.members if not name.startswith(root)]
    named = f"data.{files.field} images:{files.shown}"
    # of links only their folder counts: a class of nothing but links has no images
    folders = [*found.folders, *(name.rpartition("/")[0] for name in found.links)]
    below = [name.removeprefix(root) for name in folders if f"{name}/" != root and name.startswith(root)]
    tops = {name.partition("/")[0] for name in below if name}
    listing = list_images(named, inside, tops, outside, nested=nested)
    _require_usable(named, [(root + path, inside[path]) for path in listing.paths], found.unusable)
    notes = list(listing.notes)
    if root:
        notes.append(f"{files.shown}: the folder {root} holds all images, so its sub-folders are the classes")
    if found.links:
        links = f"{len(found.links):,} link{'' if len(found.links) == 1 else 's'}"
        notes.append(f"{links} passed over, such as {found.links[0]}")
    if found.again:
        twice = f"{len(found.again):,} name{'' if len(found.again) == 1 else 's'}"
        notes.append(f"{twice} again in the archive, such as {found.again[0]}: the last one counts, as when unpacked")
    members = [inside[path] for path in listing.paths]
    names = [root + path for path in listing.paths]
    return ArchiveContent(found.blob, files.shown, found.origin, names, members), Listing(
        listing.paths, listing.classes, listing.labels, tuple(notes), (*listing.warnings, *found.warnings)
    )


@dataclass(frozen=True)
class _Found:
    """What an archive has, by name.

    Attributes:
        origin: Identity of the archive, of which `blob` may be the decompressed tar.
        unusable: Why a member can't be read.
        links: Names of symbolic links and of what is neither a file nor a folder.
        folders: Names of folders that it lists.
        again: Names that it has more than once.
        warnings: What is probably a mistake, a sentence each.
    """

    blob: Blob
    origin: str
    members: dict[str, Member]
    unusable: dict[str, str]
    links: list[str]
    folders: list[str]
    again: list[str]
    warnings: list[str]


class _Index:
    def __init__(self, files: Files) -> None:
        self.files, self.named = files, f"data.{files.field} images:{files.shown}"
        self.folders: list[str] = []
        self.again: list[str] = []
        self.warnings: list[str] = []
        self.members: dict[str, Member] = {}
        self.unusable: dict[str, str] = {}
        self.links: list[str] = []
        self.unsafe: list[str] = []

    def read(self, say: Callable[[str], None]) -> _Found:
        packed = Blob.open(self.files.store, self.files.name)
        if packed is None:
            raise DataError(f"{self.named}: no such file")
        is_compressed = self.files.name.lower().endswith((".gz", ".tgz"))
        blob = (
            _decompressed(packed, self.named, Progress(say, f"decompressing {self.files.shown}"))
            if is_compressed
            else packed
        )
        kind = "zip" if self.files.name.lower().endswith(".zip") else "tar"
        try:
            with blob.file() as file:
                for name, member in _zip(file, self) if kind == "zip" else _tar(file, self):
                    if name in self.members:
                        self.again.append(name)
                    self.members[name] = member  # the last one of a name counts, as it would when unpacked
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, ValueError, struct.error) as error:
            raise DataError(f"{self.named} can't be read as a {kind} archive: {error}") from error
        if self.unsafe:
            raise DataError(
                f"{self.named} has names that lead out of the archive: "
                f"{first_of([repr(name) for name in self.unsafe])}; pack it with names relative to its folder"
            )
        return _Found(
            blob, packed.identity, self.members, self.unusable, self.links, self.folders, self.again, self.warnings
        )

    def link(self, name: str) -> None:
        """Pass a link over, and what its name stood for before it, as it would be when unpacked."""
        self.links.append(name)
        if self.members.pop(name, None) is not None:
            self.again.append(name)

    def clean(self, name: str) -> str:
        """Return a name without `./`; one that leads out of the archive is noted."""
        found = posixpath.normpath(name)
        if found.startswith("/") or found.split("/")[0] == "..":
            self.unsafe.append(name)
        return found


def _zip(file: BinaryIO, index: _Index) -> Iterator[tuple[str, Member]]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            windows = info.create_system == 0  # which some programs for it write with its own separator
            name = index.clean(info.filename.replace("\\", "/") if windows else info.filename)
            if info.is_dir():
                index.folders.append(name)
                continue
            if not windows and stat.S_ISLNK(info.external_attr >> 16):
                index.link(name)
                continue
            if info.flag_bits & 1:
                index.unusable[name] = "encrypted"
            elif info.compress_type not in (_STORED, _DEFLATED):
                index.unusable[name] = f"compressed by method {info.compress_type}; use stored or deflated"
            yield name, Member(info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC)


def _tar(file: BinaryIO, index: _Index) -> Iterator[tuple[str, Member]]:
    with tarfile.open(fileobj=file, mode="r:", errors="backslashreplace") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # else each is kept
            name = index.clean(info.name)
            if info.isdir():
                index.folders.append(name)
            elif info.islnk() and (same := index.members.get(index.clean(info.linkname))) is not None:
                yield name, same
            elif not info.isreg():
                index.link(name)
            else:
                if info.issparse():
                    index.unusable[name] = "a sparse file; pack it without --sparse"
                yield name, Member(info.offset_data, info.size, info.size)
        _require_end(file, archive.offset, index)


def _require_end(file: BinaryIO, end: int, index: _Index) -> None:
    """Look at what follows the last member: an archive that was cut off, or another one, has images that aren't read.

    Raises:
        DataError: There is something behind the end.
    """
    file.seek(end)
    found = file.read(tarfile.BLOCKSIZE)
    if not found:
        index.warnings.append(
            f"{index.named} has no mark at its end, so it may be incomplete: compare its size with that of the original"
        )
    while found:
        if found.strip(b"\0"):
            raise DataError(
                f"{index.named} has more behind its end, as if two archives were written one after the other: "
                "their images would be missing. Make one archive of all files"
            )
        found = file.read(2**20)


def _decompressed(blob: Blob, named: str, progress: Progress) -> Blob:
    """Return the tar inside a compressed one, as a file of the cache."""
    most = max(blob.size * MOST_UNPACKED, LEAST_UNPACKED)

    def write(target: BinaryIO) -> None:
        total = 0
        with blob.file() as packed, gzip.open(packed) as source:
            while chunk := source.read(2**20):
                total += len(chunk)
                if total > most:
                    raise DataError(
                        f"{named} becomes more than {most:,} bytes when it is decompressed, "
                        f"{blob.size:,} bytes as it is; if it is no mistake, decompress it to a .tar"
                    )
                target.write(chunk)
                progress.at(packed.tell(), blob.size)

    try:
        path = scratch_file("archives", f"{blob.identity} tar", write)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{named} can't be decompressed: {error}") from error
    except OSError as error:
        raise DataError(
            f"{named} can't be decompressed to the cache: {error}; a .tar or .zip needs no cache, "
            "and TRAINMASTER_CACHE names another folder for it"
        ) from error
    found = Blob.open(Store(str(path.parent)), path.name)
    assert found is not None
    return found


def _root(images: list[str]) -> str:
    """Return the folder, with a slash, that is above all classes; empty if the classes are at the top.

    Most of its images are in its sub-folders; those beside them are passed over, as in any other folder.
    """
    root = ""
    while images:
        first = images[0][len(root) :].partition("/")[0]
        below = f"{root}{first}/"
        deeper = sum("/" in name[len(below) :] for name in images)
        if not all(name.startswith(below) for name in images) or 2 * deeper <= len(images):
            break
        root = below
    return root


def _require_usable(named: str, used: list[tuple[str, Member]], unusable: dict[str, str]) -> None:
    problems = [f"{name}: {unusable[name]}" for name, _ in used if name in unusable]
    problems += [
        f"{name}: says to have {member.size:,} bytes, of {MOST_BYTES:,} at most"
        for name, member in used
        if member.size > MOST_BYTES
    ]
    if problems:
        raise DataError(f"{named} has images that can't be read: {first_of(problems)}")
