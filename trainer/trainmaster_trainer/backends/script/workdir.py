"""The directory that the user's program runs in: its code, and the checkpoint files of the newest set."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
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
_WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors", ".keras", ".distcp")
"""Those of `ENDINGS` that data sets rarely have."""
_INDEX = ".metadata"
"""In a sharded checkpoint of torch: which shard is in which file."""
_SKIPPED_FOLDERS = {OURS, "__pycache__", ".git", ".ipynb_checkpoints", "mlruns", "wandb", "trainmaster-runs", ".work"}
_BLOCK = 8 << 20
INCOMPLETE = f"{OURS}/incomplete"
"""Where files are moved that a program must not take for complete ones."""


class Folders:
    """Which files of the working directory are checkpoints.

    Those in `script.checkpoints`. Where that is empty: every file with the ending of one, and what lies beside it in a
    sub-folder, such as `config.json`, or in a folder with such an ending; but of what the code brought along only what
    the program has changed.

    Args:
        root: The working directory.
        script: The program.
        code: Path -> `stamp_of` each file that the code brought along.
    """

    def __init__(self, root: Path, script: Script, code: Mapping[str, str] | None = None) -> None:
        self.root = root
        self._declared = [root / folder for folder in script.checkpoints]
        self._code = code or {}

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
                    if not (inside or _is_checkpoint(name)) or _is_partial(name):
                        continue
                    if self._declared or not self.is_unchanged_code(path):
                        found[path] = place / name
        return found

    def is_unchanged_code(self, path: str) -> bool:
        """Return whether a file came with the code and is as it was."""
        return path in self._code and self._code[path] == stamp_of(self.root / path)

    def may_be_of_another_run(self, path: str) -> bool:
        """Return whether a file came with the code and has the name of a checkpoint."""
        return not self._declared and path in self._code and path.lower().endswith(_WEIGHTS)

    def concerns(self, path: Path) -> bool:
        """Return whether a change of a file is one of a checkpoint."""
        if not path.is_relative_to(self.root):
            return False
        relative = path.relative_to(self.root)
        if _is_log(path.name):
            return False  # it is kept with the others, but not waited for: it stays open
        if set(relative.parts) & _SKIPPED_FOLDERS:
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


def stamp_of(file: Path) -> str:
    """Return what changes when a file is written; empty where there is none."""
    try:
        status = file.lstat()
    except OSError:
        return ""
    return f"{status.st_mtime_ns} {status.st_size}"


def prepare(context: Context) -> dict[str, str]:
    """Fill the working directory with a copy of the code, once per node and run; return the code's paths and stamps.

    The code itself is read-only and may be shared; programs write beside their files.
    """
    work, code = context.work_dir, context.code_dir
    ours = work / OURS
    if context.is_trial:
        enter(work)
        if context.job.spec.training.code is None:
            return {}  # nothing of it is needed there
    else:
        shutil.rmtree(ours / TRIALS, ignore_errors=True)  # the search is over
    if work == code:
        return {}  # a laptop without `code`: the program runs where it is
    ours.mkdir(parents=True, exist_ok=True)
    listing = ours / "code.json"
    with (ours / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several ranks of a node
        if not listing.exists():
            stamps = {}
            for place, names in _walk(code):
                target = work / place.relative_to(code)
                target.mkdir(parents=True, exist_ok=True)
                for name in names:
                    _copy(place / name, target / name)
                    stamps[str((place / name).relative_to(code))] = stamp_of(target / name)
            listing.write_text(json.dumps(stamps))
        found: dict[str, str] = json.loads(listing.read_text())
        return found


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
    aside = [
        path
        for path, file in folders.files().items()
        if path not in wanted and not file.is_symlink() and file.stat().st_mtime > _written(manifest)
    ]
    _move_aside(context, aside, f"{manifest.attempt}-{manifest.step}")
    for path, entry in wanted.items():
        _put_back(context.run, context.work_dir / path, entry)
    return sorted(wanted), sorted(aside)


def begin_clean(context: Context, folders: Folders) -> tuple[list[str], list[str]]:
    """Make the checkpoint files of this node those that a run begins with, of which no set has been stored.

    What an earlier process of the run has left may be torn, and nothing says which step it is of. In a laptop's own
    folder, what came between two attempts may be the user's: there it is what former ranks of this attempt have left.

    Returns:
        Paths of files that were there before, and of those that were moved aside.
    """
    there = folders.files()
    if context.work_dir == context.code_dir:
        began = _begin_of_attempt(context)
        aside = sorted(path for path, file in there.items() if not file.is_symlink() and file.stat().st_mtime > began)
    else:
        aside = sorted(path for path in there if not folders.is_unchanged_code(path))
    _move_aside(context, aside, f"{context.attempt}-0")
    for path in aside:
        if context.work_dir != context.code_dir and (context.code_dir / path).exists():
            _copy(context.code_dir / path, context.work_dir / path)
    return sorted(there.keys() - set(aside)), aside


def _begin_of_attempt(context: Context) -> float:
    """Return when the first ranks of this attempt began here; infinite: these are the first."""
    mark = context.work_dir / OURS / f"began-{context.job.metadata.uid}-{context.attempt}"
    if mark.exists():
        return mark.stat().st_mtime
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return math.inf


def _move_aside(context: Context, paths: list[str], name: str) -> None:
    for path in paths:
        target = context.work_dir / INCOMPLETE / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(context.work_dir / path, target)


def left_text(left: list[str]) -> str:
    """Return the warning about files that were there before the run."""
    return (
        f"{', '.join(left[:5])} {'was' if len(left) == 1 else 'were'} there before this run began: a program that "
        "reads such files continues another run; move them away if it shouldn't"
    )


def aside_text(aside: list[str]) -> str:
    """Return the warning about files that were moved aside."""
    return f"{len(aside)} files are of no complete set and were moved to {INCOMPLETE}: {', '.join(aside[:5])}"


def brought_text(brought: list[str]) -> str:
    """Return the warning about files of the code that may be checkpoints, which the program has read."""
    return (
        f"the program read {', '.join(brought[:3])}, which came with the code: if that is a checkpoint, this run "
        "continues another one; leave it out in .trainmasterignore if it shouldn't"
    )


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
