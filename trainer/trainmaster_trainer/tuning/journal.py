"""The journal of a search: Optuna's own operations as JSON lines in the run's storage.

    tuning/journal-000001-000000000.jsonl  tuning/journal-000001-000001210.jsonl  tuning/journal-000002-000001730.jsonl

S3 can't append: the newest file is written again, whole, by one put, until it is large enough; then the next is begun.
What belongs together, such as an ask and its parameters, is written by one put too, so it is there or it isn't.

A name has the attempt that writes the file, and how many operations come before it. A write of an older attempt may
arrive when the newer one has read what there was: a lost node comes back, and its head tries again. So a file of an
attempt ends where the next one has begun, whatever it has after that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from trainmaster_trainer.checkpoint.protocol import check_fence, claim
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.storage.store import Store

from .trials import FOLDER

_FILE_BYTES = 256 << 10
_NAME = re.compile(r"journal-(\d+)-(\d+)\.jsonl")


class Snapshot(BaseJournalBackend):
    """Operations as they are stored; what is added stays in memory. Whatever writes to the run is left alone."""

    def __init__(self, run: Store) -> None:
        """Read what is stored.

        Args:
            run: Store of the run.

        Raises:
            ConfigurationError: A file is damaged.
        """
        self._run = run
        self._operations: list[dict[str, Any]] = []
        for _, first, name in _files(run):
            if (there := len(self._operations)) < first:
                raise ConfigurationError(
                    f"{run.where}/{name}: the operations {there + 1} to {first} before this file of the search's "
                    "journal are missing; restore them, or start a new search under another metadata.name"
                )
            self._operations[first:] = _read(run, name)

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return the operations from a number on."""
        return self._operations[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Take operations; nothing is stored yet."""
        # as they will be after a replay: JSON has no tuples, and its keys are texts
        self._operations += json.loads(json.dumps(logs))

    def flush(self) -> None:
        """Do nothing."""

    def whole(self) -> bytes:
        """Return all operations as one file, which Optuna's own file backend reads."""
        return b"".join(_line(each) + b"\n" for each in self._operations)


def _files(run: Store) -> list[tuple[int, int, str]]:
    """Return the files in order: the attempt of each, how many operations come before it, and its path."""
    names = [name for name, _ in run.list(FOLDER) if name.rpartition("/")[2].startswith("journal-")]
    found = []
    for name in names:
        match = _NAME.fullmatch(name.rpartition("/")[2])
        if match is None:  # left out, the search would begin again without a word
            raise ConfigurationError(
                f"{run.where}/{name} isn't named as a file of a search's journal is: another version has written it; "
                "continue with that version, or start a new search under another metadata.name"
            )
        found.append((int(match[1]), int(match[2]), name))
    return sorted(found)


def _read(run: Store, name: str) -> list[dict[str, Any]]:
    found = []
    for line, text in enumerate((run.get(name) or b"").splitlines(), 1):
        try:
            found.append(json.loads(text))
        except ValueError:
            raise ConfigurationError(
                f"{run.where}/{name}: line {line} of the search's journal is damaged; restore the file, or "
                "start a new search under another metadata.name"
            ) from None
    return found


def _line(operation: dict[str, Any]) -> bytes:
    return json.dumps(operation, separators=(",", ":")).encode()


class Journal(Snapshot):
    """Operations in memory; `flush` stores those that are new."""

    def __init__(self, run: Store, attempt: int) -> None:
        """Claim the run, and read what is stored.

        Args:
            run: Store of the run.
            attempt: Of the job; the journal of an older one is no longer written.

        Raises:
            ConfigurationError: A file is damaged.
            Fenced: A newer attempt has claimed the run.
        """
        claim(run, attempt)
        super().__init__(run)
        self._attempt = attempt
        self._lines: list[bytes] = []
        self._first = self._stored = len(self._operations)

    def flush(self) -> None:
        """Store what is new. Raises Fenced: a newer attempt has claimed the run, and decides now."""
        new = self._operations[self._stored :]
        if not new:
            return
        check_fence(self._run, self._attempt)
        self._lines += map(_line, new)
        self._run.put(_path(self._attempt, self._first), b"".join(line + b"\n" for line in self._lines))
        self._stored = len(self._operations)
        if sum(map(len, self._lines)) > _FILE_BYTES:
            self._first, self._lines = self._stored, []


def _path(attempt: int, first: int) -> str:
    return f"{FOLDER}/journal-{attempt:06d}-{first:09d}.jsonl"
