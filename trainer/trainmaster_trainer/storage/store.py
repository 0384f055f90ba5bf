"""One store for S3 and disk: small, patient, pickle-safe, with the conditional writes that fence and pointers need."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from trainmaster_api.address import Address, AddressError, local, parse

from trainmaster_trainer.errors import ConfigurationError, StorageUnavailable

from .clients import client
from .errors import KEY_ID, SECRET_KEY, SESSION_TOKEN, Kind, failure, read_disk, read_s3
from .waiting import calling

T = TypeVar("T")
_Meta = Mapping[str, Any]
PATIENCE_SECONDS = 120.0  # an outage of a minute passes unnoticed; a longer one ends the attempt
LOCK = ".lock"  # in a store on disk: replaces S3's conditional writes


class Changed(Exception):  # noqa: N818 - an answer, not an error
    """A conditional write found another version than expected."""


@dataclass(frozen=True, order=True)
class Stat:
    """An object without its content.

    Attributes:
        path: Relative to the store.
        size: Bytes.
        version: Its ETag on S3; the time of its last change on disk.
    """

    path: str
    size: int
    version: str


@dataclass(frozen=True)
class Store:
    """A directory on disk or under an S3 bucket; paths are relative to it and use `/`.

    Holds its configuration only and opens the connection lazily, so it can be pickled to other processes.

    Attributes:
        uri: `s3://bucket/prefix` or an absolute path, in the spelling of `trainmaster_api.address`.
        endpoint: S3 endpoint, None for AWS.
        region: S3 region.
        access_key: S3 key id; None: the environment or the machine's identity decides.
        secret_key: S3 secret.
        session_token: Goes with keys that expire.
        patience: Seconds that an outage may last before StorageUnavailable.
    """

    uri: str
    endpoint: str | None = None
    region: str = "us-east-1"
    access_key: str | None = None
    secret_key: str | None = None
    session_token: str | None = None
    patience: float = PATIENCE_SECONDS

    # -- opening ------------------------------------------------------------------------------------------------
    @property
    def address(self) -> Address:
        """The place, parsed."""
        return _parsed(self.uri)

    @property
    def is_s3(self) -> bool:
        """Whether it is S3, else disk."""
        return self.address.is_s3

    @property
    def bucket(self) -> str:
        """Bucket of an S3 store."""
        return self.address.bucket

    @property
    def root(self) -> Path:
        """Directory of a store on disk."""
        return Path(self.address.path)

    @property
    def where(self) -> str:
        """The server or the directory, for messages."""
        return (self.endpoint or f"S3 in {self.region}") if self.is_s3 else self.uri

    def under(self, path: str) -> Store:
        """Return the store rooted at a directory of this one."""
        return replace(self, uri=str(self.address.under(path)))

    # -- reading ------------------------------------------------------------------------------------------------
    def get(self, path: str) -> bytes | None:
        """Return the content of an object, None if it doesn't exist."""
        found = self.get_versioned(path)
        return found[0] if found else None

    def get_versioned(self, path: str) -> tuple[bytes, str] | None:
        """Return content and version, for a later `put_if`."""

        def read() -> tuple[bytes, str] | None:
            try:
                answer = obstore.get(client(self), path)
                content = bytes(answer.bytes())
            except FileNotFoundError as error:
                self._require_bucket(error)
                return None
            # on disk the content is the version: inodes and times are used again, contents are what matters
            return content, str(answer.meta["e_tag"]) if self.is_s3 else hashlib.sha256(content).hexdigest()

        return self._patiently(f"reading {path}", read)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return bytes of an object, fewer where it ends before.

        Raises:
            FileNotFoundError: It doesn't exist.
        """

        def read() -> bytes | None:
            try:
                return bytes(obstore.get_range(client(self), path, start=start, length=length))
            except FileNotFoundError as error:
                self._require_bucket(error)
                return None

        found = self._patiently(f"reading {path}", read, length)
        if found is None:
            raise FileNotFoundError(f"{self.uri}/{path}")
        return found

    def directories(self, prefix: str) -> list[str]:
        """Return the names of the directories directly under a directory; on disk also of empty ones."""

        def read() -> list[str]:
            found = obstore.list_with_delimiter(client(self), prefix=prefix.strip("/"))
            return sorted(path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"])

        return self._patiently(f"listing {prefix}", read)

    def stat_all(self, prefix: str = "") -> list[Stat]:
        """Return every object under a directory, by path."""

        def read() -> list[Stat]:
            try:
                pages = obstore.list(client(self), prefix=prefix.strip("/") or None)
                return sorted(self._stat(meta) for page in pages for meta in page if meta["path"] != LOCK)
            except FileNotFoundError as error:
                self._require_bucket(error)
                return []

        return self._patiently(f"listing {prefix or 'the files'}", read)

    def list(self, prefix: str = "") -> list[tuple[str, int]]:
        """Return (path, bytes) of every object under a directory."""
        return [(found.path, found.size) for found in self.stat_all(prefix)]

    def stat(self, path: str) -> Stat | None:
        """Return an object without its content, None if it doesn't exist."""

        def read() -> Stat | None:
            try:
                return self._stat(obstore.head(client(self), path))
            except FileNotFoundError as error:
                self._require_bucket(error)
                return None

        return self._patiently(f"reading {path}", read)

    def _stat(self, meta: _Meta) -> Stat:
        # on disk the library's ETag has the inode, which a copy back from a backup changes
        version = str(meta["e_tag"] or "").strip('"') if self.is_s3 else ""
        return Stat(meta["path"], meta["size"], version or meta["last_modified"].isoformat())

    def download(self, path: str, target: Path) -> None:
        """Copy an object to a file."""
        data = self.get(path)
        if data is None:
            raise FileNotFoundError(f"{self.uri}/{path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    # -- writing ------------------------------------------------------------------------------------------------
    def put(self, path: str, data: bytes) -> None:
        """Write an object whole: readers see the old one or the new one."""
        self._patiently(f"writing {path}", lambda: obstore.put(client(self), path, data), len(data))

    def put_file(self, path: str, source: Path) -> None:
        """Write an object from a file, in parts where it is large."""
        size = source.stat().st_size
        self._patiently(f"writing {path}", lambda: obstore.put(client(self), path, source), size)

    def copy(self, path: str, target: str) -> None:
        """Copy an object within the store; on S3 its content doesn't move through this machine."""
        if self.is_s3:
            self._patiently(f"copying {path}", lambda: obstore.copy(client(self), path, target))
        else:  # the library links files, and leaves `NAME#0` behind where the target is such a link already
            self._patiently(f"copying {path}", lambda: obstore.put(client(self), target, self.root / path))

    def download_file(self, path: str, target: Path) -> None:
        """Copy an object to a file as a stream; the file exists only once it is complete.

        Raises:
            FileNotFoundError: The object doesn't exist.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.part")

        def read() -> bool:
            try:
                with partial.open("wb") as out:
                    for chunk in obstore.get(client(self), path).stream(min_chunk_size=8 << 20):
                        out.write(chunk)
            except FileNotFoundError as error:
                self._require_bucket(error)
                return False
            return True

        if not self._patiently(f"reading {path}", read):
            partial.unlink(missing_ok=True)
            raise FileNotFoundError(f"{self.uri}/{path}")
        partial.replace(target)

    def put_if(self, path: str, data: bytes, version: str | None) -> None:
        """Write only if the object still has this version (None: only if there is none).

        Raises:
            Changed: Another process wrote in between. After an outage it may have been our own write whose response
                was lost: callers read again and compare.
        """
        swap = self._swap_on_s3 if self.is_s3 else self._swap_on_disk
        self._patiently(f"writing {path}", lambda: swap(path, data, version))

    def _swap_on_s3(self, path: str, data: bytes, version: str | None) -> None:
        mode: Any = "create" if version is None else {"e_tag": version}
        try:
            obstore.put(client(self), path, data, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError) as error:
            raise Changed(path) from error

    def _swap_on_disk(self, path: str, data: bytes, version: str | None) -> None:
        with self._locked():
            found = self.get_versioned(path)
            if (found[1] if found else None) != version:
                raise Changed(path)
            obstore.put(client(self), path, data)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / LOCK).open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                yield
            finally:
                # Closing isn't enough: a process that was forked in between, to make batches, has the file open, too.
                fcntl.flock(handle, fcntl.LOCK_UN)

    def delete(self, *paths: str) -> None:
        """Delete objects; a missing object is not an error."""
        for path in paths:
            self._patiently(f"deleting {path}", lambda path=path: self._delete(path))  # type: ignore[misc]

    def _delete(self, path: str) -> None:
        try:
            obstore.delete(client(self), path)
        except FileNotFoundError:
            return

    def delete_directory(self, prefix: str) -> None:
        """Delete everything under a directory.

        On disk also what isn't an object: a process that was killed while writing leaves `NAME#1`, which isn't listed.
        """
        if self.is_s3:
            self.delete(*(path for path, _ in self.list(prefix)))
        else:
            self._patiently(f"deleting {prefix}", lambda: _remove(self.root / prefix))

    def check(self) -> None:
        """Write, read and delete a small object, so that a wrong address or key shows before the first step.

        Raises:
            StorageDenied: No such bucket, wrong key, or no permission.
            StorageUnavailable: No answer for longer than the patience.
        """
        path = f".probe-{os.getpid()}-{time.monotonic_ns()}"
        self.put(path, b"probe")
        if self.get(path) != b"probe":
            raise StorageUnavailable(f"{self.uri}: written data can't be read back")
        self.delete(path)

    # -- patience -----------------------------------------------------------------------------------------------
    def _patiently(self, doing: str, call: Callable[[], T], size: int = 0) -> T:
        deadline, pause = time.monotonic() + self.patience, 0.25
        with calling(self.where, doing, size) as note:
            while True:
                try:
                    return call()
                except (BaseError, OSError) as error:
                    fault = read_s3(str(error)) if self.is_s3 else read_disk(error)
                    is_final = fault.kind is not Kind.NO_ANSWER or not self.is_s3
                    if is_final or time.monotonic() + pause > deadline:
                        raise failure(self, fault, doing) from error
                    note.reason = fault.reason
                    time.sleep(pause)  # back-off; there is nothing to wait on but time
                    pause = min(pause * 2, 5.0)

    def _require_bucket(self, error: FileNotFoundError) -> None:
        """Raise if the bucket doesn't exist; a missing object is not an error."""
        if self.is_s3:
            fault = read_s3(str(error))
            if fault.kind is Kind.NO_BUCKET:
                raise failure(self, fault, "reading") from error


def open_store(uri: str, endpoint: str | None, region: str, env: Mapping[str, str]) -> Store:
    """Return the store behind a storage address, with the keys of the environment.

    Args:
        uri: `s3://bucket/prefix`, `file:///path`, an absolute path, or one relative to the working directory.
        endpoint: S3 endpoint; None: that of the environment, as AWS's own tools take it, else AWS.
        region: S3 region.
        env: Environment with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, where needed.

    Raises:
        ConfigurationError: It is not an address.
    """
    try:
        address = parse(uri, relative_to=str(Path.cwd()))
    except AddressError as error:
        raise ConfigurationError(f'storage address "{uri}" {error}') from None
    if not address.is_s3:
        return Store(str(address))
    endpoint = endpoint or env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or None
    key_id, secret, token = (env.get(name) or None for name in (KEY_ID, SECRET_KEY, SESSION_TOKEN))
    return Store(str(address), endpoint, region, key_id, secret, token)


@lru_cache(maxsize=1024)
def _parsed(uri: str) -> Address:
    """Parse an address; a path from the operating system may contain anything."""
    return parse(uri) if uri.startswith("s3://") else local(uri)


def _remove(directory: Path) -> None:
    with suppress(FileNotFoundError):  # deleted concurrently
        shutil.rmtree(directory)
