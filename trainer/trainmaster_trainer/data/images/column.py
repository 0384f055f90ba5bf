"""The images of a column of a table: paths of files, or the files themselves. Imports no framework."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from trainmaster_api.address import parse
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.storage import Storage

from trainmaster_trainer.data.files import Files
from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.data.tables.table import Column, ColumnType, Table
from trainmaster_trainer.errors import DataError
from trainmaster_trainer.storage.store import Store, open_store

from .content import file_header, file_sizes, files_identity, read_file
from .errors import UnreadableError


@dataclass(frozen=True)
class Place:
    """Where the paths of a column start.

    Attributes:
        files: The bucket, or the root of the disk: a path may lead above the folder that it starts in.
        folder: That folder, below it.
        said: What determines the folder, for messages.
    """

    files: Files
    folder: str
    said: str = "data.images.root"

    @classmethod
    def of(cls, table: Files, data: Data, storage: Storage, base_dir: Path, env: Mapping[str, str]) -> Place:
        """Return the folder that a job names, or that of its table: of a folder of files, that folder.

        Raises:
            DataError: There is no such folder.
        """
        if data.images.root is not None:
            address = parse(data.images.root, relative_to=str(base_dir.resolve()))
            if not address.is_s3 and not Path(address.path).is_dir():
                raise DataError(f"data.images.root {data.images.root}: no such folder ({address})")
        else:
            address = table.store.address
            is_folder = not table.store.is_s3 and (table.store.root / table.name).is_dir()
            address = address.under(table.name) if is_folder else address
        top = f"s3://{address.bucket}"
        store = open_store(top, storage.endpoint, storage.region, env) if address.is_s3 else Store("/")
        said = "data.images.root" if data.images.root is not None else f"the folder of data.{table.field}"
        return cls(Files(store, "", str(address)), address.path, said)

    def path(self, cell: str) -> str:
        """Return the path of an image, below `files`.

        Raises:
            UnreadableError: It can't be below it.
        """
        if not cell:
            raise UnreadableError("is empty")
        if self.files.store.is_s3:
            start, _, key = cell.removeprefix("s3://").partition("/")
            if cell.startswith("s3://") and start != self.files.store.bucket:
                raise UnreadableError(
                    f"is in another bucket than {self.files.shown} ({self.said}); set data.images.root"
                )
            if cell.startswith("/"):
                raise UnreadableError(
                    f"is an absolute path, and images are looked for below {self.files.shown} ({self.said})"
                )
            found = posixpath.normpath(key if cell.startswith("s3://") else posixpath.join(self.folder, cell))
            if found.split("/")[0] == "..":
                raise UnreadableError("leads out of the bucket")
            return found
        if "://" in cell:
            raise UnreadableError(
                f"is an address, and images are looked for below {self.files.shown} ({self.said}): set data.images.root"
            )
        # `..` behind a symbolic link is the system's business
        return posixpath.join(self.folder, cell).lstrip("/")

    def read(self, cell: str) -> bytes:
        """Return the file of an image."""
        return read_file(self.files, self.path(cell))

    def header(self, cell: str) -> bytes | Path:
        """Return what its header can be read from."""
        return file_header(self.files, self.path(cell))


class ColumnContent:
    """Images of a column.

    Args:
        table: The table, for messages.
        column: Of text or bytes.
        kept: Rows of the table that are rows here.
        place: Where paths start.
    """

    def __init__(self, table: Table, column: Column, kept: Indices, place: Place) -> None:
        self.shown, self.place = table.shown, place
        self._table, self._column, self._kept = replace(table, columns=()), column, kept
        self._starts = np.cumsum([0, *(len(chunk) for chunk in column.values.chunks)])

    @property
    def is_remote(self) -> bool:
        """Whether images are read from S3."""
        return self._column.type is ColumnType.TEXT and self.place.files.store.is_s3

    def __len__(self) -> int:
        return len(self._kept)

    def name(self, index: int) -> str:
        """Return the path, or the row."""
        cell = self._cell(index)
        return cell if isinstance(cell, str) else self._table.where(int(self._kept[index]))

    def where(self, index: int) -> str:
        """Return row, column and path."""
        cell = self._cell(index)
        said = f"{self.shown}: {self._table.where(int(self._kept[index]))}, column {self._column.name}"
        return f"{said}: {cell!r}" if isinstance(cell, str) else said

    def read(self, index: int) -> bytes:
        """Return the file."""
        cell = self._cell(index)
        return self.place.read(cell) if isinstance(cell, str) else cell

    def header(self, index: int) -> bytes | Path:
        """Return the file, or its path on disk."""
        cell = self._cell(index)
        return self.place.header(cell) if isinstance(cell, str) else cell

    def sizes(self) -> npt.NDArray[np.int64]:
        """Return the sizes of the files behind the paths, or of the bytes."""
        cells = [self._cell(index) for index in range(len(self))]
        if self._column.type is ColumnType.TEXT:
            return file_sizes(self.place.files, [self.place.path(str(cell)) for cell in cells])
        return np.array([len(cell) for cell in cells], dtype=np.int64)

    def identity(self) -> str:
        """Return a checksum of the bytes, or of the files behind the paths."""
        if self._column.type is ColumnType.TEXT:
            cells = [str(self._cell(index)) for index in range(len(self))]
            return files_identity(self.place.files, [self.place.path(cell) for cell in cells])
        digest = hashlib.sha256()
        for index in range(len(self)):
            cell = self._cell(index)
            digest.update(len(cell).to_bytes(8, "little"))
            digest.update(cell if isinstance(cell, bytes) else cell.encode())
        return digest.hexdigest()

    def _cell(self, index: int) -> str | bytes:
        row = int(self._kept[index])
        chunk = int(np.searchsorted(self._starts, row, "right")) - 1  # by hand, as Arrow looks at every chunk
        found = self._column.values.chunk(chunk)[row - int(self._starts[chunk])].as_py()
        return found if isinstance(found, str | bytes) else ""


def image_cells(table: Table, name: str) -> Column | None:
    """Return the column of images as paths or files; None: there is none, or of another type, which its role says.

    A struct of `bytes` and `path`, as Hugging Face's `datasets` writes images, is its bytes, or its paths if there are
    no bytes at all.

    Raises:
        DataError: Some rows have bytes and others only a path.
    """
    column = next((column for column in table.columns if column.name == name), None)
    if column is None or column.type in (ColumnType.TEXT, ColumnType.BYTES):
        return column
    if not pa.types.is_struct(column.values.type):
        return None
    fields = {field.name: field.type for field in column.values.type}
    found: dict[str, pa.ChunkedArray] = {}
    for key in ("bytes", "path"):
        if key in fields:
            values = pc.struct_field(column.values, key)
            if not pa.types.is_null(values.type) and values.null_count < len(values):
                found[key] = values
    if not found:
        return None
    if "bytes" in found and "path" in found:
        only_path = pc.and_(pc.is_null(found["bytes"]), pc.is_valid(found["path"]))
        if pc.any(only_path).as_py():
            row = int(np.flatnonzero(only_path.to_numpy())[0])
            raise DataError(
                f"{table.shown}: {table.where(row)}, column {name}: has a path and no bytes, and other rows have "
                "bytes; write all images in the same way"
            )
    key = "bytes" if "bytes" in found else "path"
    kind, arrow = (ColumnType.BYTES, pa.large_binary()) if key == "bytes" else (ColumnType.TEXT, pa.large_string())
    return Column(name, kind, found[key].cast(arrow), column.notes)


def with_cells(table: Table, cells: Column | None) -> Table:
    """Return a table whose column of images can be compared, and takes no more room than it has to: paths, or hashes.

    Args:
        table: As it was read.
        cells: `image_cells` of its column.
    """
    if cells is None:
        return table
    column = cells
    if cells.type is ColumnType.BYTES:
        chunks = [
            pa.array([None if each is None else hashlib.sha256(each.as_buffer()).digest() for each in _scalars(chunk)])
            if len(chunk)
            else pa.array([], pa.binary())
            for chunk in cells.values.chunks
        ]
        column = replace(cells, values=pa.chunked_array([chunk.cast(pa.large_binary()) for chunk in chunks]))
    return replace(table, columns=tuple(column if each.name == cells.name else each for each in table.columns))


def _scalars(chunk: pa.Array) -> list[pa.LargeBinaryScalar | None]:
    return [each if each.is_valid else None for each in chunk]
