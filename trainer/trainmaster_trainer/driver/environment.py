"""Keeps `environment.json`: what each attempt of a run was made with, and how that differs from the attempt before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError
from trainmaster_api import git_state
from trainmaster_api.git_state import GitState
from trainmaster_api.layout import CODE_DIFF, ENVIRONMENT
from trainmaster_api.record import AttemptRecord, CodeRecord, EnvironmentRecord
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.text import now_text

from trainmaster_trainer.errors import TrainingError
from trainmaster_trainer.ipc.messages import Surroundings
from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.storage.store import Changed, Store
from trainmaster_trainer.surroundings import of_this_process

_LAST_SECONDS = 10.0
_MOST_NAMED = 10


@dataclass
class Environment:
    """The record of one attempt, written once it has begun and again when all ranks have said what they run on.

    Attributes:
        settings: Of the driver.
        job: The resolved job.
        run: Store of the run.
        warn: Called with a sentence for the user, in a thread of this class.
    """

    settings: DriverSettings
    job: TrainingJob
    run: Store
    warn: Callable[[str], None]
    _began: str = field(default_factory=now_text)
    _ranks: dict[int, Surroundings] = field(default_factory=dict)
    _images: tuple[str, ...] = ()
    _is_complete: bool = False
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None
    _warned: set[str] = field(default_factory=set)

    def begin(self) -> None:
        """Write what is known before a rank runs, in a thread of its own."""
        self._thread = threading.Thread(target=self._write, name="environment", daemon=True)
        self._thread.start()

    def take(self, rank: int, said: Surroundings) -> None:
        """Take what a rank or its agent says; what it doesn't say is as before. Called in one thread only."""
        known = self._ranks.get(rank, Surroundings())
        self._ranks[rank] = known.model_copy(update=said.model_dump(exclude_defaults=True, by_alias=False))
        count = sum(bool(each.packages) for each in self._ranks.values())
        if not self._is_complete and count == self.job.spec.cluster.workers.count:
            self._is_complete = True
            self.begin()

    def take_images(self, images: Sequence[str]) -> None:
        """Take what the pods of this attempt run; pods that are gone have run it too. Any one thread may call it."""
        known = tuple(sorted({*self._images, *images}))
        if known != self._images:
            self._images = known  # first, so that a record that is begun meanwhile has it
            if self._thread is not None:
                self.begin()

    def finish(self) -> None:
        """Write what is known at the end; of an attempt that ended early the packages are this process's."""
        if not self._is_complete and self._ranks:
            first = self._ranks.setdefault(0, Surroundings())
            if not first.packages:
                own = of_this_process().model_copy(update={"device": first.device})
                self._ranks[0] = own
            self.begin()
        if self._thread is not None:
            self._thread.join(_LAST_SECONDS)

    def _write(self) -> None:
        with self._writing:
            try:
                self._append()
            except (TrainingError, OSError) as error:  # storage that is away ends the run elsewhere, with its class
                print(f"{ENVIRONMENT} can't be written: {error}", flush=True)

    def _append(self) -> None:
        git = _git(self.settings.git_file)
        diff = self._keep_diff(git)
        while True:
            found = self.run.get_versioned(ENVIRONMENT)
            known = _parsed(found[0] if found else None)
            now = of_attempt(self.settings, self.job, self._began, git, diff, dict(self._ranks), self._images)
            record, changes = appended(known, now)
            try:
                self.run.put_if(ENVIRONMENT, _content(record), found[1] if found else None)
            except Changed:  # another attempt, or our own write of which the answer was lost
                continue
            break
        for sentence in [*changes, *unequal(now)]:
            if sentence not in self._warned:
                self._warned.add(sentence)
                self.warn(sentence)

    def _keep_diff(self, git: GitState | None) -> str | None:
        """Store the diff and return its path; that of the first attempt, and what differs from it, are kept."""
        if git is None or not git.diff:
            return None
        content = git.diff.encode(errors="replace")
        for path in (CODE_DIFF, f"a{self.settings.attempt}-{CODE_DIFF}"):
            kept = self.run.get(path)
            if kept is None:
                self.run.put(path, content)
            if kept is None or kept == content:
                return path
        return None


def of_attempt(
    settings: DriverSettings,
    job: TrainingJob,
    began: str,
    git: GitState | None,
    diff: str | None,
    ranks: Mapping[int, Surroundings],
    images: Sequence[str] = (),
) -> AttemptRecord:
    """Return the record of an attempt.

    Args:
        settings: Of the driver.
        job: The resolved job.
        began: When the attempt began.
        git: What git says about the code; None: nothing.
        diff: Path of the diff in the run's directory.
        ranks: What is known of each rank.
        images: What the pods run, as far as the operator has said.
    """
    own = job.spec.training.code
    at = own.git.commit if own is not None and own.git is not None else None
    code = CodeRecord(
        sha256=settings.code_sha256 or None,
        commit=git.commit if git is not None else at,
        dirty=git.dirty if git is not None else False if at else None,
        untracked=git.untracked if git is not None else [],
        diff=diff,
        image_folder=own.image if own is not None else None,
    )
    image = job.spec.cluster.image if settings.ray_address else None
    first = ranks.get(0, Surroundings())
    return AttemptRecord(
        attempt=settings.attempt,
        time=began,
        code=code,
        image=image,
        image_digest=_digest(image, images) if image else None,
        image_ids=list(images),
        python=first.python,
        platform=first.platform,
        world_size=job.spec.cluster.workers.count,
        devices=[ranks[rank].device for rank in sorted(ranks)],
        packages=first.packages or None,
        other_packages={
            str(rank): others
            for rank, each in sorted(ranks.items())
            if first.packages and each.packages and (others := _differing(first.packages, each.packages))
        },
    )


def appended(known: EnvironmentRecord, now: AttemptRecord) -> tuple[EnvironmentRecord, list[str]]:
    """Return the record of a run with an attempt, and sentences if image or packages aren't those of the one before.

    An attempt that is in the record already is replaced. Packages are written where they have changed.
    """
    before = [each for each in known.attempts if each.attempt < now.attempt]
    after = [each for each in known.attempts if each.attempt > now.attempt]
    last = next((each for each in reversed(before) if each.packages), None)
    placed = next((each for each in reversed(before) if each.image_ids), None)
    changes = _moved(placed, now) if placed is not None else []
    if now.packages is not None and last is not None and last.packages is not None:
        words = _changes(last.packages, now.packages)
        if words:
            changes.append(
                f"attempt {now.attempt} has other packages than attempt {last.attempt}: {words}; the run may not "
                "continue as it would have"
            )
        else:
            now = now.model_copy(update={"packages": None})
    return EnvironmentRecord(attempts=[*before, now, *after]), changes


def unequal(now: AttemptRecord) -> list[str]:
    """Return sentences if pods run different images, or ranks have different packages."""
    found = []
    for kind in _kinds(now.image_ids):
        if len(kind) > 1:
            found = [
                f"the pods of attempt {now.attempt} run different images as {now.image}: {' and '.join(sorted(kind))}; "
                "name the image by its digest (NAME@sha256:...)"
            ]
    for rank, others in now.other_packages.items():
        words = _changes({name: (now.packages or {}).get(name, "") for name in others}, others)
        return [*found, f"rank {rank} has other packages than rank 0: {words}; use one image for all workers"]
    return found


def _digest(image: str, images: Sequence[str]) -> str | None:
    """Return the one digest of an image in its registry: by its name, or as all pods have it."""
    named = image.partition("@")[2]
    digests = {each.partition("@")[2] for each in images}
    return named or (next(iter(digests)) if len(digests) == 1 else None) or None


def _kinds(images: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return digests in registries and checksums of configurations: one image has both, which are never equal."""
    digests = frozenset(each.partition("@")[2] for each in images if "@" in each)
    return digests, frozenset(each for each in images if "@" not in each)


def _moved(last: AttemptRecord, now: AttemptRecord) -> list[str]:
    """Return a sentence if pods run another image than those of the attempt before, under the same name."""
    for before, after in zip(_kinds(last.image_ids), _kinds(now.image_ids), strict=True):
        new = sorted(after - before)
        if last.image == now.image and before and new:
            return [
                f"attempt {now.attempt} runs another image as {now.image} than attempt {last.attempt}: "
                f"{' and '.join(new)}, not {' and '.join(sorted(before))}; the run may not continue as it would have: "
                "name the image by its digest (NAME@sha256:...)"
            ]
    return []


def _differing(first: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    every = sorted({*first, *other})
    return {name: other.get(name, "") for name in every if first.get(name, "") != other.get(name, "")}


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Return how packages differ: `numpy 2.4.0 -> 2.4.1, rich none -> 14.0`."""
    words = [
        f"{name} {before.get(name) or 'none'} -> {after.get(name) or 'none'}"
        for name in sorted({*before, *after}, key=str.lower)
        if before.get(name, "") != after.get(name, "")
    ]
    more = len(words) - _MOST_NAMED
    return ", ".join([*words[:_MOST_NAMED], *([f"{more} more"] if more > 0 else [])])


def _git(file: str) -> GitState | None:
    try:
        return git_state.decode(Path(file).read_text()) if file else None
    except (OSError, UnicodeDecodeError):
        return None


def _parsed(content: bytes | None) -> EnvironmentRecord:
    try:
        return EnvironmentRecord.model_validate_json(content) if content else EnvironmentRecord()
    except ValidationError:  # of another version
        return EnvironmentRecord()


def _content(record: EnvironmentRecord) -> bytes:
    return record.model_dump_json(by_alias=True, indent=1).encode()
