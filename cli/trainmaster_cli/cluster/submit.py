"""`trainmaster submit`: from a folder on this machine to a job in the cluster, in one command."""

from __future__ import annotations

import argparse
import base64
import contextlib
import copy
import os
import queue
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from trainmaster_api import git_state, names
from trainmaster_api.address import parse
from trainmaster_api.archive import Archive, ArchiveError
from trainmaster_api.layout import code_path
from trainmaster_api.packing import pack
from trainmaster_api.spec.code import INLINE_LIMIT
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.validation.validate import validate

from trainmaster_cli.errors import UserError
from trainmaster_cli.files import check_file, print_problems

from . import commands
from .api import Api, Exists, NotFound, Object, connect, jobs_path
from .changed_code import changed_files
from .forward import reachable
from .jobs import holds, is_finished, watch_job
from .watching import Changed, Watcher

_PATIENCE_SECONDS = 8.0
_MOST_LINES = 10
_MOST_NAMED = 5


@dataclass(frozen=True)
class Prepared:
    """A file that is ready to be sent.

    Attributes:
        job: What it holds, valid.
        document: The object that is applied; of code, what a pod can read.
        archive: The code, packed; None: it doesn't travel from here.
    """

    job: TrainingJob
    document: Object
    archive: Archive | None

    @property
    def is_inline(self) -> bool:
        """Whether the code travels inside the job."""
        return self.archive is not None and len(self.archive.data) <= INLINE_LIMIT


class Submission:
    """One `trainmaster submit`."""

    def __init__(self, options: argparse.Namespace, api: Api | None = None) -> None:
        """Take the command line: file, namespace, context, watch, replace, dry_run, detach."""
        self.options = options
        self._api = api

    def run(self) -> int:
        """Submit, and follow; return the exit code.

        Raises:
            UserError: It can't be submitted.
        """
        prepared = prepare(self.options.file, self.options.namespace)
        if prepared is None:
            return 2
        if self.options.dry_run:
            _say(prepared)
            print(yaml.safe_dump(prepared.document, sort_keys=False, width=120, allow_unicode=True), end="")
            return 0
        api = self._connected(prepared)
        _say(prepared)
        job = self._send(api, prepared, replacing=self.options.replace)
        if self.options.watch:
            return self._watch(api, prepared, job)
        if self.options.detach:
            return _detached(api, job)
        try:
            commands.show(api, job, queue.SimpleQueue())
        except KeyboardInterrupt:
            return _detached(api, job)
        return _exit_code(api, job)

    def _connected(self, prepared: Prepared) -> Api:
        meta = prepared.document["metadata"]
        if self._api is None:
            self._api = connect(self.options.context, self.options.namespace or meta.get("namespace"))
        meta["namespace"] = self._api.namespace
        _place(prepared, self._api.namespace)
        return self._api

    def _send(self, api: Api, prepared: Prepared, *, replacing: bool) -> Object:
        """Bring the job into the cluster, or find that it is there; return it."""
        path, name = jobs_path(api.namespace), prepared.job.metadata.name
        if prepared.archive is not None and not prepared.is_inline:
            upload(api, prepared)
        try:
            existing = api.get(f"{path}/{name}")
        except NotFound:
            return self._create(api, prepared)
        different = differences(existing, prepared.document)
        if not different and not replacing:
            state = "it has finished; --replace runs it again" if is_finished(existing) else "following it"
            print(f"{api.namespace}/{name} is in the cluster already, with the same spec and code: {state}", flush=True)
            return existing
        if not replacing:
            files = changed_files(existing, prepared.archive, lambda uri: _stored(api, prepared, uri))
            lines = "\n".join([*(f"  {line}" for line in different), *(f"    {line}" for line in files)])
            raise UserError(
                f"there is a TrainingJob {name} in namespace {api.namespace} already, which differs:\n{lines}\n"
                "--replace deletes it and submits this one (its results in storage stay); or give this one another "
                "metadata.name"
            )
        print(f"{api.namespace}/{name} is replaced", flush=True)
        _delete(api, existing)
        return self._create(api, prepared)

    def _create(self, api: Api, prepared: Prepared) -> Object:
        name = prepared.job.metadata.name
        try:
            job = api.create(jobs_path(api.namespace), prepared.document)
        except Exists:
            raise UserError(
                f"a TrainingJob {name} was created at the same time; submit again to see how it differs"
            ) from None
        print(f"{api.namespace}/{name} is submitted", flush=True)
        return job

    # -- watching -----------------------------------------------------------------------------------------------
    def _watch(self, api: Api, prepared: Prepared, job: Object) -> int:
        """Follow the job, and replace it whenever what it was made from changes; return the exit code."""
        with Watcher(_watched(self.options.file, prepared)) as watcher:
            print("watching for changes; Ctrl-C leaves the job running", flush=True)
            while True:
                seen = watcher.fresh()
                try:
                    if not is_finished(job):
                        commands.show(api, job, seen)
                    print("waiting for a change; Ctrl-C ends this", flush=True)
                    watcher.wait(seen)
                except Changed:
                    prepared, job = self._again(api, prepared, job)
                except KeyboardInterrupt:
                    return _detached(api, job)

    def _again(self, api: Api, before: Prepared, job: Object) -> tuple[Prepared, Object]:
        """Submit what has changed; a mistake in it is said and leaves the job as it is."""
        try:
            after = prepare(self.options.file, self.options.namespace)
            if after is None:
                return before, _now(api, job)
            self._connected(after)
            if _without_git(after.document) == _without_git(before.document):  # a commit alone changes nothing
                return before, _now(api, job)
            _say(after)
            return after, self._send(api, after, replacing=True)
        except UserError as error:
            print(f"trainmaster: {error}", file=sys.stderr, flush=True)
            return before, _now(api, job)


def prepare(file: str, namespace: str | None) -> Prepared | None:
    """Validate a file and pack its code; None: it is invalid, which has been printed.

    Raises:
        UserError: It can't be read, or its code can't travel.
    """
    if file == "-":
        raise UserError("`submit` needs a file: the path of the code is relative to it")
    found = check_file(file, imports=True)
    for checked in found:
        if checked.job is None:
            print_problems(file, checked.problems)
    if len(found) != 1:
        raise UserError(f"{file} holds {len(found)} TrainingJobs; `submit` accepts exactly one")
    job = found[0].job
    if job is None:
        return None
    document: Object = yaml.safe_load(Path(file).read_text())
    document.pop("status", None)
    if namespace is not None:
        document["metadata"]["namespace"] = namespace
    code = job.spec.training.code
    if code is None or code.path is None:
        return Prepared(job, document, None)
    own = Path(file).absolute().parent / code.path
    try:
        archive = pack(own, results=job.spec.training.results)
    except ArchiveError as error:
        raise UserError(f"spec.training.code: {error}") from None
    if (git := git_state.gather(own, archive.listing)) is not None:
        annotations = document["metadata"].get("annotations") or {}
        document["metadata"]["annotations"] = {**annotations, names.ANNOTATION_GIT: git.encode()}
    prepared = Prepared(job, document, archive)
    _place(prepared, document["metadata"].get("namespace") or "default")
    return prepared


def _place(prepared: Prepared, namespace: str) -> None:
    """Put into the document what a pod of a namespace can read in place of `code.path`."""
    if prepared.archive is not None:
        training = prepared.document["spec"]["training"]
        lock = {key: value for key, value in training["code"].items() if key in ("requirements", "wheels")}
        training["code"] = {**_carried(prepared, prepared.archive, namespace), **lock}


def _carried(prepared: Prepared, archive: Archive, namespace: str) -> Object:
    uri = prepared.job.spec.storage.uri
    if prepared.is_inline:
        return {"inline": {"sha256": archive.sha256, "data": base64.b64encode(archive.data).decode()}}
    if uri is None:
        raise UserError(
            f"the code is {len(archive.data) >> 10} KiB packed; up to {INLINE_LIMIT >> 10} KiB travel inside the job, "
            "and more through object storage: set spec.storage.uri in the file and the keys in the environment, or "
            f"leave files out in .trainmasterignore; the largest are {_largest(archive)}"
        )
    return {
        "stored": {"uri": str(parse(uri).under(f"{namespace}/{code_path(archive.sha256)}")), "sha256": archive.sha256}
    }


def _largest(archive: Archive) -> str:
    files = sorted(archive.files, key=lambda each: -each.size)[:_MOST_NAMED]
    return ", ".join(f"{each.path} ({each.size >> 10} KiB)" for each in files)


def upload(api: Api, prepared: Prepared) -> None:
    """Store an archive that is too large for the job, unless it is there: the same tree has the same address.

    Raises:
        UserError: Storage can't be written from here.
    """
    from trainmaster_trainer.errors import TrainingError
    from trainmaster_trainer.storage.store import Changed as Taken

    storage, archive = prepared.job.spec.storage, prepared.archive
    assert archive is not None
    address = parse(prepared.document["spec"]["training"]["code"]["stored"]["uri"])
    try:
        store = _store_of(api, prepared, str(address.parent))
        if not store.is_s3 and not Path(parse(str(storage.uri)).path).is_dir():
            raise UserError(
                f"spec.storage.uri {storage.uri} is a directory of the pods, which this machine doesn't have; use "
                "object storage, or leave files out in .trainmasterignore until the code fits into the job"
            )
        if store.stat(address.name) is not None:
            print(f"the code is in storage already: {address}", flush=True)
            return
        with contextlib.suppress(Taken):  # another process has stored the same
            store.put_if(address.name, archive.data, None)
    except TrainingError as error:
        raise UserError(f"the code can't be stored from here: {error.message}") from None
    print(f"the code is stored as {address}", flush=True)


def _store_of(api: Api, prepared: Prepared, folder: str) -> Any:
    """Open a folder of the storage that the file names."""
    from trainmaster_trainer.storage.store import open_store

    storage = prepared.job.spec.storage
    endpoint = reachable(api, storage.endpoint) if storage.endpoint else None
    return replace(open_store(folder, endpoint, storage.region, os.environ), patience=_PATIENCE_SECONDS)


def _stored(api: Api, prepared: Prepared, uri: str) -> bytes | None:
    """Return an archive that was submitted before; None: it can't be read from here."""
    from trainmaster_trainer.errors import TrainingError

    address = parse(uri)
    try:
        found: bytes | None = _store_of(api, prepared, str(address.parent)).get(address.name)
    except TrainingError:
        return None
    return found


def _without_git(document: Object) -> Object:
    annotations = document["metadata"].get("annotations") or {}
    kept = {key: value for key, value in annotations.items() if key != names.ANNOTATION_GIT}
    return {**document, "metadata": {**document["metadata"], "annotations": kept}}


def differences(existing: Object, document: Object) -> list[str]:
    """Return how a job in the cluster differs from one that is to be submitted, one line for each field."""
    before, after = (_flat(_filled(each)) for each in (existing, document))
    lines = []
    for key in sorted({*before, *after}):
        if before.get(key) == after.get(key) or key.endswith("code.inline.data"):
            continue
        old, new = (_short(found.get(key, "absent")) for found in (before, after))
        lines.append(f"{key}: {old} -> {new}")
    more = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], *([f"{more} more"] if more > 0 else [])]


def _filled(document: Object) -> Any:
    """Return a spec with its defaults, as both sides have it; as it is where an older version accepted it."""
    job, _ = validate(copy.deepcopy(document))
    return job.spec.wire() if job is not None else document.get("spec")


def _flat(value: Any, prefix: str = "spec") -> dict[str, str]:
    if not isinstance(value, dict):
        return {prefix: str(value)}
    return {key: text for name, each in value.items() for key, text in _flat(each, f"{prefix}.{name}").items()}


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:12]}..."


def _delete(api: Api, job: Object) -> None:
    try:
        api.delete(f"{jobs_path(api.namespace)}/{job['metadata']['name']}", job["metadata"]["uid"])
        for seen in watch_job(api, job):
            if seen is None:
                return
    except NotFound:
        return


def _say(prepared: Prepared) -> None:
    """Say on standard error what travels and what was left out."""
    archive = prepared.archive
    if archive is None:
        return
    how = "inside the job" if prepared.is_inline else "through storage"
    count = f"{len(archive.files)} file" + "s" * (len(archive.files) != 1)
    text = f"code: {count}, {max(1, len(archive.data) >> 10)} KiB packed, {how}, SHA-256 {archive.sha256[:12]}"
    print(text, file=sys.stderr, flush=True)
    for sentence in archive.left_out:
        print(sentence, file=sys.stderr, flush=True)


def _watched(file: str, prepared: Prepared) -> list[Path]:
    code = prepared.job.spec.training.code
    folder = Path(file).absolute().parent
    return [Path(file).absolute(), *([folder / code.path] if code is not None and code.path is not None else [])]


def _detached(api: Api, job: Object) -> int:
    name, where = job["metadata"]["name"], f"-n {api.namespace}"
    print(
        f"\n{name} continues in the cluster; next:\n"
        f"  trainmaster status {name} {where}\n"
        f"  kubectl get tj {name} {where} -w\n"
        f"  trainmaster logs {name} {where} -f\n"
        f"  trainmaster stop {name} {where}",
        flush=True,
    )
    return 0


def _now(api: Api, job: Object) -> Object:
    """Return a job as it is now; as it was if it is gone."""
    try:
        return api.get(f"{jobs_path(api.namespace)}/{job['metadata']['name']}")
    except NotFound:
        return job


def _exit_code(api: Api, job: Object) -> int:
    name = job["metadata"]["name"]
    try:
        job = api.get(f"{jobs_path(api.namespace)}/{name}")
    except NotFound:
        print(f"trainmaster: {name} was deleted", file=sys.stderr)
        return 1
    return 0 if holds(job, "Complete") else 1
