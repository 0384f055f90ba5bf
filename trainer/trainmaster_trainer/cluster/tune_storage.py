"""Where Ray Tune stores its own state: a folder of the driver's, which no other node has to reach.

Tune refuses a folder that isn't shared: each trial's actor looks for a marker in it. Our trials store nothing through
Tune, and its state is never restored, so the marker is the only file that another node is asked for.
"""

from __future__ import annotations

from typing import Any

from pyarrow import fs

_MARKER = ".validate_storage_marker"


class _LocalButForTheMarker(fs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """The disk of each node; the marker exists on every one."""

    def __init__(self) -> None:
        self._disk = fs.LocalFileSystem()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _LocalButForTheMarker)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(_LocalButForTheMarker)

    def __reduce__(self) -> Any:
        return _LocalButForTheMarker, ()

    def get_type_name(self) -> str:
        return "local-but-for-the-marker"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[Any]:
        return [fs.FileInfo(each, fs.FileType.File) if each.endswith(_MARKER) else self._info(each) for each in paths]

    def _info(self, path: str) -> Any:
        return self._disk.get_file_info(path)

    def get_file_info_selector(self, selector: Any) -> list[Any]:
        return list(self._disk.get_file_info(selector))

    def create_dir(self, path: str, recursive: bool) -> None:
        self._disk.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        self._disk.delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self._disk.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        raise PermissionError("the root folder is not deleted")

    def delete_file(self, path: str) -> None:
        self._disk.delete_file(path)

    def move(self, src: str, dest: str) -> None:
        self._disk.move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        self._disk.copy_file(src, dest)

    def open_input_stream(self, path: str) -> Any:
        return self._disk.open_input_stream(path)

    def open_input_file(self, path: str) -> Any:
        return self._disk.open_input_file(path)

    def open_output_stream(self, path: str, metadata: Any = None) -> Any:
        return self._disk.open_output_stream(path)

    def open_append_stream(self, path: str, metadata: Any = None) -> Any:
        return self._disk.open_append_stream(path)


def local_storage() -> Any:
    """Return the file system."""
    return fs.PyFileSystem(_LocalButForTheMarker())
