"""Reads a run's logs and files from its storage, with the keys that the job itself has."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trainmaster_cli.errors import UserError

from .api import Api, NotFound, Object, core_path
from .forward import reachable
from .jobs import status_of

_PATIENCE_SECONDS = 8.0


class StoredRun:
    """The run of a job in storage, opened when the first object is read."""

    def __init__(self, api: Api, job: Object) -> None:
        """Take a job; nothing is read yet."""
        self._api, self._job = api, job
        self._store: Any = None

    def lines(self, path: str) -> Iterable[bytes]:
        """Return the lines of an object.

        Raises:
            FileNotFoundError: There is none.
            UserError: Storage can't be read from here; the message says why.
        """
        with _said():
            found: bytes | None = self._opened().get(path)
        if found is None:
            raise FileNotFoundError(path)
        return found.splitlines()

    def files(self, prefix: str) -> dict[str, int]:
        """Return the size of each object by its path.

        Raises:
            UserError: As for `lines`.
        """
        with _said():
            return dict(self._opened().list(prefix))

    def download(self, path: str, target: Path) -> None:
        """Copy an object to a new file, whose folder is made.

        Raises:
            FileNotFoundError: There is none.
            UserError: As for `lines`.
        """
        with _said():
            self._opened().download_file(path, target)

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """Give the store of the run, to read from.

        Raises:
            UserError: As for `lines`.
        """
        with _said():
            yield self._opened()

    def _opened(self) -> Any:
        if self._store is None:
            self._store = self._open()
        return self._store

    def _open(self) -> Any:
        from dataclasses import replace

        from trainmaster_trainer.storage.store import open_store

        name, uri = self._job["metadata"]["name"], status_of(self._job).get("runUri")
        if not uri:
            raise UserError(f"{name} has no storage yet (status.runUri)")
        known = status_of(self._job).get("storage") or (self._job.get("spec") or {}).get("storage") or {}
        endpoint = known.get("endpoint")
        if endpoint:
            endpoint = reachable(self._api, endpoint)
        keys = {**os.environ, **self._keys(known.get("credentialsSecret"))}
        store = open_store(uri, endpoint, known.get("region") or "us-east-1", keys)
        if not store.is_s3 and not store.root.is_dir():
            raise UserError(f"its storage {uri} is a directory of the pods, which this machine doesn't have")
        return replace(store, patience=_PATIENCE_SECONDS)

    def _keys(self, secret: str | None) -> dict[str, str]:
        """Return the keys of the job's Secret; without the right to read it those of the environment serve."""
        if not secret:
            return {}
        with suppress(NotFound, UserError):
            data = self._api.get(core_path(self._api.namespace, "secrets", secret)).get("data") or {}
            return {key: base64.b64decode(value).decode() for key, value in data.items() if key.startswith("AWS_")}
        return {}


@contextmanager
def _said() -> Iterator[None]:
    """Say a failure of storage as the user's environment has caused it."""
    from trainmaster_trainer.errors import TrainingError

    try:
        yield
    except TrainingError as error:
        raise UserError(f"its storage can't be read from here: {error.message}") from None
