"""Files of a data source: a path on disk or an s3:// address, read by the same store as checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainmaster_api.address import AddressError, parse
from trainmaster_api.spec.storage import Storage

from trainmaster_trainer.errors import DataError
from trainmaster_trainer.storage.store import Store, open_store

IMAGE_ENDINGS = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
_SYSTEM = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


def is_hidden(name: str) -> bool:
    """Return whether a viewer or a file manager made a file: `.ipynb_checkpoints/`, `._x.png`, `__MACOSX/`."""
    return any(part.startswith(".") or part in _SYSTEM for part in name.split("/"))


@dataclass(frozen=True)
class Files:
    """A directory that is read from.

    Attributes:
        store: Rooted at the directory (for one file: at its parent).
        name: File's name, empty for a directory.
        shown: The address as the user wrote it.
    """

    store: Store
    name: str
    shown: str

    @classmethod
    def open(cls, address: str, storage: Storage, base_dir: Path, env: Mapping[str, str]) -> Files:
        """Open the files at an address of `data.source`; s3:// uses the endpoint and keys of `spec.storage`."""
        try:  # resolved, because `..` after a symbolic link depends on the file system
            place = parse(address, relative_to=str(base_dir.resolve()))
        except AddressError as error:
            raise DataError(f'data.source "{address}" {error}') from None
        is_file = PurePosixPath(place.path).suffix.lower() in {".csv", ".parquet"}
        folder, name = (place.parent, place.name) if is_file else (place, "")
        if place.is_s3:
            return cls(open_store(str(folder), storage.endpoint, storage.region, env), name, address)
        if not Path(place.path).exists():
            raise DataError(f"data.source {address}: no such {'file' if is_file else 'folder'} ({place})")
        return cls(Store(str(folder)), name, address)

    def read(self, name: str | None = None) -> bytes:
        """Return the content of a file; default: the one file of the source.

        Raises:
            DataError: The file doesn't exist.
        """
        path = self.name if name is None else name
        found = self.store.get(path)
        if found is None:
            raise DataError(f"data.source {self.shown}: no such file: {path}")
        return found
