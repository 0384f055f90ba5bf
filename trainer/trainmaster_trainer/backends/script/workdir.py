"""The directory that the user's program runs in: its code, and the checkpoint files of the newest set."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from trainmaster_api.layout import OBJECTS, File, Manifest
from trainmaster_api.spec.own import Script

from trainmaster_trainer.checkpoint import protocol
from trainmaster_trainer.checkpoint.protocol import Position, Torn
from trainmaster_trainer.context import Context, StoredFile
from trainmaster_trainer.errors import TrainingError
from trainmaster_trainer.storage.store import Store

from .folders import OURS, TRIALS, enter

# What makes a folder one of checkpoints where `script.checkpoints` doesn't say which they are.
ENDINGS = (
    ".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".pkl", ".pickle", ".joblib", ".npz", ".npy", ".h5", ".keras",
    ".msgpack", ".skops", ".onnx", ".ubj", ".model", ".distcp",
)  # fmt: skip
_INDEX = ".metadata"
"""In a sharded checkpoint of torch: which shard is in which file."""
_SKIPPED_FOLDERS = {OURS, "__pycache__", ".git", ".ipynb_checkpoints", "mlruns", "wandb", "trainmaster-runs", ".work"}
_BLOCK = 8 << 20


class Folders:
    """Which files of the working directory are checkpoints.

    Those in `script.checkpoints`. Where that is empty: every file with the ending of one, and what lies beside it in a
    sub-folder, such as `config.json`, or in a folder with such an ending; but nothing that the code brought along.
    """

    def __init__(self, root: Path, script: Script, code: Iterable[str] = ()) -> None:
        self.root = root
        self._declared = [root / folder for folder in script.checkpoints]
        self._code = frozenset(code)

    @property
    def watched(self) -> list[Path]:
        """The folders to watch, all of them and what is below."""
        return self._declared or [self.root]

    def places(self) -> list[Path]:
        """Return every folder that may have checkpoint files."""
        return [place for folder in self.watched for place, _ in _walk(folder)]

    def files(self) -> dict[str, Path]:
        """Return every checkpoint file by its path relative to the working directory, links included."""
        found: dict[str, Path] = {}
        for folder in self.watched:
            for place, names in _walk(folder):
                named = [*names, place.name]
                inside = bool(self._declared) or (place != self.root and any(_is_checkpoint(name) for name in named))
                for name in names:
                    path = str((place / name).relative_to(self.root))
                    if (inside or _is_checkpoint(name)) and not _is_partial(name) and path not in self._code:
                        found[path] = place / name
        return found

    def concerns(self, path: Path) -> bool:
        """Return whether a change of a file is one of a checkpoint."""
        if not path.is_relative_to(self.root):
            return False
        relative = path.relative_to(self.root)
        if _is_log(path.name):
            return False  # it is kept with the others, but not waited for: it stays open
        if set(relative.parts) & _SKIPPED_FOLDERS or str(relative) in self._code:
            return False
        return bool(self._declared) or _is_checkpoint(path.name) or len(relative.parts) > 1


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if each not in _SKIPPED_FOLDERS)
        links = [each for each in folders if (Path(place) / each).is_symlink()]  # `latest` is often one to a folder
        folders[:] = [each for each in folders if each not in links]
        yield Path(place), sorted([*names, *links])


def _is_checkpoint(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


def _is_log(name: str) -> bool:
    """Return whether a file is TensorBoard's, which is written as long as the program runs."""
    return name.startswith("events.out.tfevents.")


def _is_partial(name: str) -> bool:
    return (name.startswith(".") and name != _INDEX) or name.endswith((".tmp", ".part", "~"))


def prepare(context: Context) -> frozenset[str]:
    """Fill the working directory with a copy of the code, once per node and run; return the paths of the code.

    The code itself is read-only and may be shared; programs write beside their files.
    """
    work, code = context.work_dir, context.code_dir
    ours = work / OURS
    if context.is_trial:
        enter(work)
        if context.job.spec.training.code is None:
            return frozenset()  # nothing of it is needed there
    else:
        shutil.rmtree(ours / TRIALS, ignore_errors=True)  # the search is over
    if work == code:
        return frozenset()  # a laptop without `code`: the program runs where it is
    ours.mkdir(parents=True, exist_ok=True)
    listing = ours / "code"
    with (ours / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several ranks of a node
        if not listing.exists():
            paths = []
            for place, names in _walk(code):
                target = work / place.relative_to(code)
                target.mkdir(parents=True, exist_ok=True)
                for name in names:
                    _copy(place / name, target / name)
                    paths.append(str((place / name).relative_to(code)))
            listing.write_text("\n".join(paths))
        return frozenset(listing.read_text().splitlines())


def _copy(source: Path, target: Path) -> None:
    if source.is_symlink():
        target.unlink(missing_ok=True)
        target.symlink_to(source.readlink())
        return
    shutil.copyfile(source, target)
    target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def newest_set(store: Store, warn: Callable[[str], None]) -> tuple[Position, Manifest] | None:
    """Return the newest committed set of files; one whose manifest can't be read is skipped with a warning."""
    for position in protocol.positions(store):
        try:
            manifest = protocol.read_manifest(store, position)
        except Torn as torn:
            warn(f"{torn}; skipping it")
            continue
        if manifest is not None and manifest.objects:
            return position, manifest
    return None


def put_back(context: Context, folders: Folders, manifest: Manifest) -> tuple[list[str], list[str]]:
    """Make the checkpoint files of this node those of a set; by local rank 0 of each node.

    Files of other nodes are put back too: a program that ran on one disk finds the files of all ranks. Where two nodes
    have different files of one name, this node's own is taken, else that of the lowest.

    Returns:
        Paths that are there now, and paths of files that are newer than the set and were moved aside: a program that
        was killed while it wrote them must not take them for complete.
    """
    wanted = files_of(manifest, context.node)
    there = folders.files()
    aside = []
    for path, file in there.items():
        if path not in wanted and not file.is_symlink() and file.stat().st_mtime > _written(manifest):
            _move_aside(context, path, file, f"{manifest.attempt}-{manifest.step}")
            aside.append(path)
    for path, entry in wanted.items():
        _put_back(context.run, context.work_dir / path, entry)
    return sorted(wanted), sorted(aside)


def leave_behind(context: Context, folders: Folders) -> tuple[list[str], list[str]]:
    """Move aside the checkpoint files of former ranks of this attempt, where no set was ever complete; by local rank 0.

    They were killed in their first save, perhaps: what is torn must not be taken for complete. What came between two
    attempts may be the user's.

    Returns:
        Paths that were moved, and paths of files that are older than the attempt.
    """
    began_at = f"began-{context.job.metadata.uid}-{context.attempt}"
    mark, there = context.work_dir / OURS / began_at, folders.files()
    if not mark.exists():
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        return [], sorted(there)
    began = mark.stat().st_mtime
    mine = [path for path, file in there.items() if not file.is_symlink() and file.stat().st_mtime > began]
    for path in mine:
        _move_aside(context, path, there[path], f"{context.attempt}-0")
    return sorted(mine), sorted(there.keys() - set(mine))


def _move_aside(context: Context, path: str, file: Path, name: str) -> None:
    target = context.work_dir / OURS / "incomplete" / name / path
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(file, target)


def files_of(manifest: Manifest, node: int) -> dict[str, File]:
    """Return the files of a set as a node gets them, by path."""
    found: dict[str, File] = {}
    for entry in sorted(manifest.files, key=lambda file: _node(file.path)):
        own, _, path = entry.path.partition("/")
        if path not in found or own == f"node-{node}":
            found[path] = entry
    return found


def stored(manifest: Manifest, node: int) -> tuple[dict[str, StoredFile], set[str]]:
    """Return the files of a set as a node gets them, by path, and the paths of those that are another node's."""
    files = files_of(manifest, node)
    known = {
        path: StoredFile(path=path, size=file.size, sha256=file.sha256, modified=file.modified or 0.0, link=file.link)
        for path, file in files.items()
    }
    return known, {path for path, file in files.items() if not file.path.startswith(f"node-{node}/")}


def _node(path: str) -> int:
    return int(path.partition("/")[0].removeprefix("node-"))


def _written(manifest: Manifest) -> float:
    return max((file.modified or 0.0 for file in manifest.files), default=0.0)


def _put_back(store: Store, target: Path, entry: File) -> None:
    if entry.link:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_symlink() or str(target.readlink()) != entry.link:
            if target.is_symlink() or target.is_file():
                target.unlink()
            target.symlink_to(entry.link)
        return
    if target.is_symlink() or (target.exists() and not _is_same(target, entry)):
        target.unlink()
    if not target.exists():
        try:
            store.download_file(f"{OBJECTS}/{entry.sha256}", target)
        except FileNotFoundError:
            raise TrainingError(
                f"{store.uri}/{OBJECTS}/{entry.sha256}, the content of {entry.path}, is missing"
            ) from None
        if not _is_same(target, entry, check_time=False):
            raise TrainingError(f"{store.uri}/{OBJECTS}/{entry.sha256} does not match its checksum")
    if entry.modified is not None:
        os.utime(target, (entry.modified, entry.modified))


def _is_same(file: Path, entry: File, *, check_time: bool = True) -> bool:
    found = file.stat()
    if found.st_size != entry.size:
        return False
    if check_time and entry.modified is not None and abs(found.st_mtime - entry.modified) < 1e-6:
        return True
    return sha256_of(file) == entry.sha256


def sha256_of(file: Path) -> str:
    """Return the checksum of a file, read in blocks."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
