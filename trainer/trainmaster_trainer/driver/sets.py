"""Checkpoints of a program that we didn't write: the files of all nodes, committed as one set under our manifest.

The nodes store contents and say what they have; the set is committed here once all of them are complete. A node that
writes again makes what it said before stale.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from trainmaster_api.layout import LATEST, MANIFEST, MODEL, OBJECTS, File, Manifest
from trainmaster_api.messages import CheckpointRef

from trainmaster_trainer.checkpoint import protocol
from trainmaster_trainer.checkpoint.protocol import Position
from trainmaster_trainer.context import Part
from trainmaster_trainer.storage.store import Store

MODEL_END = f"{MODEL}/data.json"


class Sets:
    """The sets of a run, committed by this attempt.

    Args:
        run: The run's store.
        run_uri: Its address, for messages.
        attempt: Number of the attempt.
        workers: World size, for the manifest.
        keep: Number of sets that are kept.
        on_commit: Called with each committed set, in a thread of ours.
        on_error: Called with what made a commit fail.
    """

    def __init__(
        self,
        run: Store,
        run_uri: str,
        attempt: int,
        workers: int,
        keep: int,
        on_commit: Callable[[CheckpointRef], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._run, self._run_uri, self._attempt = run, run_uri, attempt
        self._workers, self._keep = workers, keep
        self._on_commit, self._on_error = on_commit, on_error
        self._parts: dict[int, Part] = {}
        self._nodes = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sets")
        self._last: Future[None] | None = None
        self._lock = threading.Lock()
        self._committed: dict[Position, Manifest] = {}
        self._newest: Manifest | None = None

    def claim(self) -> None:
        """Claim the run for this attempt, before any node reads or writes.

        Raises:
            Fenced: A newer attempt has.
        """
        protocol.claim(self._run, self._attempt)
        for position in protocol.positions(self._run):
            try:
                manifest = protocol.read_manifest(self._run, position)
            except protocol.Torn:
                continue
            if manifest is not None and manifest.objects:
                self._committed[position] = manifest
                self._newest = self._newest or manifest

    def begin(self, nodes: int) -> None:
        """Forget what the nodes of an older generation said."""
        self._nodes = nodes
        self._parts.clear()

    def take(self, part: Part) -> None:
        """Take what a node says; commit the set once all are complete."""
        self._parts[part.node] = part
        if len(self._parts) == self._nodes and all(each.is_complete for each in self._parts.values()):
            manifest = manifest_of(self._parts, self._attempt, self._workers)
            if manifest.files and not _is_same(manifest, self._newest):
                self._newest = manifest
                self._last = self._thread.submit(self._commit, manifest)

    def finish(self, *, is_complete: bool) -> str:
        """Wait for what is being committed; where the run is complete, copy its files to `model/`.

        Returns:
            Address of the model; empty: the program left no files.
        """
        self._thread.shutdown(wait=True)
        if self._last is not None and (error := self._last.exception()) is not None:
            raise error
        if not is_complete:
            return ""
        manifest = self._newest
        files = manifest.files if manifest else []
        self._run.delete_directory(MODEL)
        for file in files:
            if not file.link:
                self._run.copy(f"{OBJECTS}/{file.sha256}", f"{MODEL}/{_plain(file.path, self._nodes)}")
        plain = [file.model_copy(update={"path": _plain(file.path, self._nodes)}) for file in files]
        step = manifest.step if manifest else 0
        listing = Manifest(attempt=self._attempt, step=step, world_size=self._workers, time=protocol.now(), files=plain)
        protocol.check_fence(self._run, self._attempt)
        self._run.put(MODEL_END, listing.model_dump_json(by_alias=True, indent=1).encode())
        return f"{self._run_uri}/{MODEL}" if files else ""

    def _commit(self, manifest: Manifest) -> None:
        try:
            position = (manifest.attempt, manifest.step)
            place = protocol.directory(*position)
            protocol.check_fence(self._run, self._attempt)
            self._run.put(f"{place}/{MANIFEST}", manifest.model_dump_json(by_alias=True).encode())
            protocol.advance(self._run, LATEST, position)
            replaced = self._committed.get(position)
            self._committed[position] = manifest
            self._on_commit(
                CheckpointRef(
                    step=manifest.step, attempt=manifest.attempt, uri=f"{self._run_uri}/{place}", time=manifest.time
                )
            )
            self._retain(replaced)
        except BaseException as error:
            self._on_error(error)
            raise

    def _retain(self, replaced: Manifest | None) -> None:
        """Remove older sets, and the contents that no set has any more.

        Args:
            replaced: What the newest set has taken the place of: a program may write twice within one step.
        """
        kept = sorted(self._committed, reverse=True)[: self._keep]
        gone = [replaced] if replaced is not None else []
        for position in [each for each in self._committed if each not in kept]:
            protocol.remove(self._run, position)
            gone.append(self._committed.pop(position))
        needed = {file.sha256 for manifest in self._committed.values() for file in manifest.files}
        needed |= {file.sha256 for part in list(self._parts.values()) for file in part.files}  # of the next set
        removed = {file.sha256 for manifest in gone for file in manifest.files if not file.link} - needed
        if removed:
            self._run.delete(*(f"{OBJECTS}/{digest}" for digest in sorted(removed)))


def manifest_of(parts: dict[int, Part], attempt: int, workers: int) -> Manifest:
    """Return the manifest of a set: the files of every node, below `node-<n>/`, at the step of the first."""
    files = [
        File(
            path=f"node-{node}/{file.path}",
            size=file.size,
            sha256=file.sha256,
            modified=file.modified,
            link=file.link,
        )
        for node, part in sorted(parts.items())
        for file in part.files
    ]
    step = parts[min(parts)].step
    return Manifest(attempt=attempt, step=step, world_size=workers, time=protocol.now(), files=files, objects=True)


def _is_same(new: Manifest, old: Manifest | None) -> bool:
    return old is not None and new.files == old.files


def _plain(path: str, nodes: int) -> str:
    return path.partition("/")[2] if nodes == 1 else path
