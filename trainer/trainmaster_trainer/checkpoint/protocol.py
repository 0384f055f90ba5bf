"""The checkpoint protocol of docs/contract.md on a store: fence, commit, verify, pointers. No threads, no tensors.

A checkpoint is committed by writing its manifest, after all its files. So a crash at any moment leaves either a
complete checkpoint or a directory without a manifest, which every reader ignores.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

from pydantic import ValidationError
from trainmaster_api.layout import (
    BEST,
    CHECKPOINTS,
    FENCE,
    LATEST,
    MANIFEST,
    OBJECTS,
    File,
    Manifest,
    Pointer,
    checkpoint_name,
    parse_checkpoint_name,
)
from trainmaster_api.text import now_text

from trainmaster_trainer.errors import Fenced, TrainingError
from trainmaster_trainer.storage.store import Changed, Store

Position = tuple[int, int]  # (attempt, step): the newer attempt wins, then the later step
POINTERS, FOLDERS = (LATEST, BEST), (CHECKPOINTS, OBJECTS)
"""What the checkpoints of a run are, in its directory."""


class Torn(Exception):  # noqa: N818 - a finding, not an error
    """A checkpoint whose files don't match its manifest."""


def now() -> str:
    """Return the time as a manifest has it."""
    return now_text("seconds")


def directory(attempt: int, step: int) -> str:
    """Return a checkpoint's directory in the run."""
    return f"{CHECKPOINTS}/{checkpoint_name(attempt, step)}"


def claim(store: Store, attempt: int) -> None:
    """Put the attempt's number into FENCE, before its first write.

    Raises:
        Fenced: A newer attempt has claimed the run.
    """
    # Read, then write on the condition that nothing has changed since. Two attempts may be here at the same time (the
    # old head is on a node that the control plane lost), and an unconditional write of the older one would undo the
    # claim of the newer one.
    while True:
        found = store.get_versioned(FENCE)
        held = _number(found[0]) if found else 0
        if held > attempt:
            raise Fenced(f"attempt {held} has claimed this run; stopping attempt {attempt}")
        if held == attempt:
            return
        try:
            store.put_if(FENCE, str(attempt).encode(), found[1] if found else None)
        except Changed:
            continue  # another attempt was first, or our own retried write had succeeded: read again


def check_fence(store: Store, attempt: int) -> None:
    """Raise Fenced if a newer attempt has claimed the run."""
    held = _number(store.get(FENCE) or b"")
    if held > attempt:
        raise Fenced(f"attempt {held} has claimed this run; stopping attempt {attempt}")


def _number(content: bytes) -> int:
    """Return the content of FENCE; 0 if a crash of the machine left it empty."""
    return int(content) if content.strip().isdigit() else 0


def commit(
    store: Store, attempt: int, step: int, world_size: int, metrics: dict[str, float], files: dict[str, bytes]
) -> Manifest:
    """Write a checkpoint: its files, then its manifest. Leftovers of the same name are overwritten."""
    # The directory has the attempt's number in its name, so a stale attempt never writes to the files of a newer one.
    place = directory(attempt, step)
    with ThreadPoolExecutor(len(files), thread_name_prefix="checkpoint-file") as threads:
        list(threads.map(lambda name: store.put(f"{place}/{name}", files[name]), files))
    listed = [
        File(path=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    ]
    manifest = Manifest(attempt=attempt, step=step, world_size=world_size, time=now(), metrics=metrics, files=listed)
    # The fence was read when the attempt started, and again before the metrics were flushed. Writing the files may have
    # taken minutes since, in which a newer attempt may have started from the checkpoint before this one: it must not
    # find this one committed later. What remains is the time between this read and the write of the manifest.
    check_fence(store, attempt)
    # The store has acknowledged each file, but a full disk or a proxy may have truncated one: listing is one request.
    _require_sizes(store, place, manifest)
    store.put(f"{place}/{MANIFEST}", manifest.model_dump_json(by_alias=True).encode())
    return manifest


def _require_sizes(store: Store, place: str, manifest: Manifest) -> None:
    there = dict(store.list(place))
    for file in manifest.files:
        if there.get(f"{place}/{file.path}") != file.size:
            raise TrainingError(f"{store.uri}/{place}/{file.path} was written but is missing or truncated")


def advance(store: Store, pointer_name: str, to: Position, *, back: bool = False) -> None:
    """Move a pointer by compare-and-swap. `back`: BEST may move to an earlier step, LATEST never does.

    Pointers are for people and other programs; a resume lists the directories instead, so a stale pointer does no harm.
    """
    while True:
        found = store.get_versioned(pointer_name)
        at = _position(found[0]) if found else None
        if at is not None and (at == to or (not back and at > to)):
            return
        content = Pointer(attempt=to[0], step=to[1]).model_dump_json(by_alias=True).encode()
        try:
            store.put_if(pointer_name, content, found[1] if found else None)
            return
        except Changed:
            continue


def _position(content: bytes) -> Position | None:
    try:
        pointer = Pointer.model_validate_json(content)
    except ValidationError:
        return None
    return pointer.attempt, pointer.step


def positions(store: Store) -> list[Position]:
    """Return the checkpoint directories of the run, newest first, committed or not."""
    return sorted(filter(None, map(parse_checkpoint_name, store.directories(CHECKPOINTS))), reverse=True)


def has_manifest(store: Store, position: Position) -> bool:
    """Return whether a checkpoint was committed, readable or not."""
    return store.get(f"{directory(*position)}/{MANIFEST}") is not None


def read_manifest(store: Store, position: Position) -> Manifest | None:
    """Return the manifest of a checkpoint; None if it was not committed.

    Raises:
        Torn: There is a manifest, but it can't be parsed.
    """
    content = store.get(f"{directory(*position)}/{MANIFEST}")
    if content is None:
        return None
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise Torn(f"{checkpoint_name(*position)}: the manifest can't be parsed") from error


def read_files(store: Store, position: Position, manifest: Manifest) -> dict[str, bytes]:
    """Return the files of a checkpoint, each verified.

    Raises:
        Torn: A file is missing or doesn't match the manifest.
    """
    found = {}
    for file in manifest.files:
        content = store.get(f"{directory(*position)}/{file.path}")
        if content is None:
            raise Torn(f"{checkpoint_name(*position)}: {file.path} is missing")
        if len(content) != file.size or hashlib.sha256(content).hexdigest() != file.sha256:
            raise Torn(f"{checkpoint_name(*position)}: {file.path} does not match its manifest")
        found[file.path] = content
    return found


def remove(store: Store, position: Position) -> None:
    """Delete a checkpoint: the manifest first, so that a partly deleted one is never mistaken for a complete one."""
    place = directory(*position)
    store.delete(f"{place}/{MANIFEST}")
    store.delete_directory(place)


def remove_all(run: Store) -> None:
    """Delete all checkpoints of a run: the pointers first, so that none names what is gone."""
    run.delete(*POINTERS)
    for name in FOLDERS:
        run.delete_directory(name)
