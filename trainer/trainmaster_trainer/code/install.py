"""Installs the packages of `code.requirements` into a folder of the ranks' own, once for all ranks that see it.

The folder is named by what is in it, and complete once a file says so: a process that is killed leaves nothing that
another one would take for complete. `uv` does the work, with checksums and without building anything.
"""

from __future__ import annotations

import hashlib
import json
import sys
import sysconfig
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from trainmaster_api.address import parse
from trainmaster_api.archive import make_read_only, remove
from trainmaster_api.requirements import Pin, normalized, read
from trainmaster_api.spec.code import Code
from trainmaster_api.spec.storage import Storage

from trainmaster_trainer.data.entries import Entry, size_of
from trainmaster_trainer.errors import CodeError

from .installed import FOLDER, PackageFolder, package_folder
from .packages import installed, wanted
from .uv import FIELD, run_uv


def install(code: Code, folder: Path, storage: Storage, environment: Mapping[str, str]) -> Entry | None:
    """Return the packages of the job's lock file; None: the job has none, or the image has them all.

    They aren't removed as long as the result is there.

    Args:
        code: Of the job.
        folder: Where the code is.
        storage: For the credentials of `code.wheels`.
        environment: With the index of packages, the keys of the storage, and the folder of caches and its size.

    Raises:
        CodeError: The lock file isn't there, isn't one, contradicts the image, or names what there isn't.
        CodeUnavailable: The index can't be reached, or the disk is full.
        TrainingError: Storage refuses access, or doesn't respond.
    """
    if code.requirements is None:
        return None
    pins = _pins(code.requirements, folder)
    if not pins:
        return None
    cache = package_folder(environment, lambda sentence: print(sentence, flush=True))
    try:
        return cache.entry(key_of(pins), partial(_build, cache, pins, code, folder, storage, environment))
    except OSError as error:
        raise cache.unusable(error) from None


def key_of(pins: tuple[Pin, ...]) -> str:
    """Return the name of the folder with these packages: it depends on them, on Python and on the platform."""
    what = [sorted(map(str, pins)), sys.implementation.cache_tag, sysconfig.get_platform()]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


def _pins(path: str, folder: Path) -> tuple[Pin, ...]:
    file = folder / path
    if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
        raise CodeError(
            f"{FIELD}: there is no file {path} in the code; correct the path, which is relative to the code's folder, "
            "and look whether an ignore file leaves it out"
        )
    pins, problems = read(file.read_bytes())
    if problems:
        raise CodeError("\n  ".join([f"{FIELD}: {path} can't be installed:", *problems]))
    found = wanted(pins, installed())
    if found.problems:
        way_out = "lock again with the versions of the image, or without these packages"
        raise CodeError("\n  ".join([f"{FIELD}: {path} doesn't fit this image; {way_out}:", *found.problems]))
    return found.install


def _build(
    cache: PackageFolder,
    pins: tuple[Pin, ...],
    code: Code,
    folder: Path,
    storage: Storage,
    environment: Mapping[str, str],
    entry: Path,
) -> None:
    scratch, target = entry / "wheels", entry / FOLDER
    for left in (scratch, target):  # of a process that was killed
        remove(left)
    try:
        print(f"installing {len(pins)} package{'s' * (len(pins) != 1)} of {code.requirements}", flush=True)
        lock = entry / "requirements.txt"
        lock.write_text("".join(f"{pin}\n" for pin in pins))
        links = _wheels(code.wheels, pins, folder, storage, environment, scratch)
        where = ["--no-index", "--find-links", str(links)] if links is not None else []
        run_uv([*where, "--target", str(target), "--requirement", str(lock)], pins, environment, code.wheels)
        remove(scratch)
        target.mkdir(exist_ok=True)
        make_read_only(target)
    except BaseException:
        remove(entry)
        raise
    (entry / cache.done).write_text(json.dumps([f"{pin.name}=={pin.version}" for pin in pins]))
    cache.evict(entry, size_of(entry))


def _wheels(
    wheels: str | None,
    pins: tuple[Pin, ...],
    folder: Path,
    storage: Storage,
    environment: Mapping[str, str],
    scratch: Path,
) -> Path | None:
    """Return the folder with the wheels; None: they come from the index. Of a storage only those are fetched."""
    if wheels is None:
        return None
    is_address = "://" in wheels or wheels.startswith("/")
    if is_address and parse(wheels).is_s3:
        from trainmaster_trainer.storage.store import open_store

        store = open_store(wheels, storage.endpoint, storage.region, environment)
        names = {pin.name for pin in pins}
        scratch.mkdir()
        for path, _ in store.list():
            if path.endswith(".whl") and "/" not in path and normalized(path.partition("-")[0]) in names:
                store.download(path, scratch / path)
        return scratch
    found = Path(parse(wheels).path) if is_address else folder / wheels
    if not found.is_dir() or not (is_address or found.resolve().is_relative_to(folder.resolve())):
        where = "here" if is_address else "in the code"
        raise CodeError(f"spec.training.code.wheels: there is no folder {wheels} {where}; correct the path")
    return found
