"""Commit, verify, find, point: the rules of docs/contract.md over a store. No thread and no tensor in here."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

from pydantic import ValidationError
from trainmaster_api.layout import (
    CHECKPOINTS,
    FENCE,
    MANIFEST,
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


class Torn(Exception):  # noqa: N818 - a finding, not an error
    """A checkpoint that doesn't verify."""


def now() -> str:
    """Return the time as a manifest has it."""
    return now_text("seconds")


def directory(attempt: int, step: int) -> str:
    """A checkpoint's directory in the run."""
    return f"{CHECKPOINTS}/{checkpoint_name(attempt, step)}"


def claim(store: Store, attempt: int) -> None:
    """Put the attempt's number into FENCE, before its first write.

    Raises:
        Fenced: A newer attempt has claimed the run.
    """
    while True:
        found = store.get_versioned(FENCE)
        held = _number(found[0]) if found else 0
        if held > attempt:
            raise Fenced(f"attempt {held} of this run writes now; attempt {attempt} stops")
        if held == attempt:
            return
        try:
            store.put_if(FENCE, str(attempt).encode(), found[1] if found else None)
        except Changed:
            continue  # somebody else was first, or our own write came through: look again


def check_fence(store: Store, attempt: int) -> None:
    """Raise Fenced if a newer attempt has claimed the run."""
    held = _number(store.get(FENCE) or b"")
    if held > attempt:
        raise Fenced(f"attempt {held} of this run writes now; attempt {attempt} stops")


def _number(content: bytes) -> int:
    """Content of FENCE; 0 for one that a crash of the machine left empty."""
    return int(content) if content.strip().isdigit() else 0


def commit(
    store: Store, attempt: int, step: int, world_size: int, metrics: dict[str, float], files: dict[str, bytes]
) -> Manifest:
    """Write a checkpoint: its files, then its manifest. What was there under the same name is of no value."""
    place = directory(attempt, step)
    with ThreadPoolExecutor(len(files), thread_name_prefix="checkpoint-file") as threads:
        list(threads.map(lambda name: store.put(f"{place}/{name}", files[name]), files))
    listed = [
        File(path=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    ]
    manifest = Manifest(attempt=attempt, step=step, world_size=world_size, time=now(), metrics=metrics, files=listed)
    check_fence(store, attempt)
    _require_sizes(store, place, manifest)
    store.put(f"{place}/{MANIFEST}", manifest.model_dump_json(by_alias=True).encode())
    return manifest


def _require_sizes(store: Store, place: str, manifest: Manifest) -> None:
    there = dict(store.list(place))
    for file in manifest.files:
        if there.get(f"{place}/{file.path}") != file.size:
            raise TrainingError(f"{store.uri}/{place}/{file.path} was written but isn't there whole")


def advance(store: Store, pointer_name: str, to: Position, *, back: bool = False) -> None:
    """Move a pointer by compare-and-swap. `back`: BEST may go to an earlier step; never to an older attempt's view."""
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
    """Checkpoint directories of the run, newest first, committed or not."""
    return sorted(filter(None, map(parse_checkpoint_name, store.directories(CHECKPOINTS))), reverse=True)


def has_manifest(store: Store, position: Position) -> bool:
    """Whether a checkpoint was committed, readable or not."""
    return store.get(f"{directory(*position)}/{MANIFEST}") is not None


def read_manifest(store: Store, position: Position) -> Manifest | None:
    """Manifest of a checkpoint; None: not committed.

    Raises:
        Torn: There is a manifest, but it isn't one.
    """
    content = store.get(f"{directory(*position)}/{MANIFEST}")
    if content is None:
        return None
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise Torn(f"{checkpoint_name(*position)}: its manifest can't be read") from error


def read_files(store: Store, position: Position, manifest: Manifest) -> dict[str, bytes]:
    """Files of a checkpoint, each verified.

    Raises:
        Torn: One is missing or isn't what the manifest says.
    """
    found = {}
    for file in manifest.files:
        content = store.get(f"{directory(*position)}/{file.path}")
        if content is None:
            raise Torn(f"{checkpoint_name(*position)}: {file.path} is missing")
        if len(content) != file.size or hashlib.sha256(content).hexdigest() != file.sha256:
            raise Torn(f"{checkpoint_name(*position)}: {file.path} isn't what its manifest says")
        found[file.path] = content
    return found


def remove(store: Store, position: Position) -> None:
    """Take a checkpoint away: the manifest first, so that it never exists in part."""
    place = directory(*position)
    store.delete(f"{place}/{MANIFEST}")
    store.delete_directory(place)
