"""Installs the packages of `code.requirements` into a folder of the ranks' own, once for all ranks that see it.

The folder is named by what is in it, built beside and renamed: a process that is killed leaves nothing that another
one would take for complete. `uv` does the work, with checksums and without building anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from trainmaster_api.address import parse
from trainmaster_api.archive import make_read_only, remove
from trainmaster_api.requirements import Pin, normalized, read
from trainmaster_api.spec.code import Code
from trainmaster_api.spec.storage import Storage

from trainmaster_trainer.data.cache_folder import cache_folder, make
from trainmaster_trainer.errors import CodeError, CodeUnavailable

from .packages import installed, wanted
from .uv import PATH, run_uv

FOLDER = "site-packages"  # what a traceback knows as code that isn't the user's


def install(code: Code, folder: Path, storage: Storage, environment: Mapping[str, str]) -> Path | None:
    """Return the folder with the packages of the job's lock file; None: the job has none, or the image has them all.

    Args:
        code: Of the job.
        folder: Where the code is.
        storage: For the credentials of `code.wheels`.
        environment: With the index of packages, the keys of the storage and the folder of caches.

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
    root = cache_folder(environment) / "packages"
    target = root / key_of(pins)
    if not target.is_dir():
        try:
            make(root)
            with _alone(root / f"{target.name}.lock"):
                if not target.is_dir():
                    _build(pins, code, folder, storage, environment, target)
        except OSError as error:
            where = error.filename or root
            raise CodeUnavailable(
                f"{PATH}: the packages can't be written ({where}: {(error.strerror or str(error)).lower()})"
            ) from None
    return target / FOLDER


def key_of(pins: tuple[Pin, ...]) -> str:
    """Return the name of the folder with these packages: it depends on them, on Python and on the platform."""
    what = [sorted(map(str, pins)), sys.implementation.cache_tag, sysconfig.get_platform()]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


def _pins(path: str, folder: Path) -> tuple[Pin, ...]:
    file = folder / path
    if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
        raise CodeError(
            f"{PATH}: there is no file {path} in the code; correct the path, which is relative to the code's folder, "
            "and look whether an ignore file leaves it out"
        )
    pins, problems = read(file.read_bytes())
    if problems:
        raise CodeError("\n  ".join([f"{PATH}: {path} can't be installed:", *problems]))
    found = wanted(pins, installed())
    if found.problems:
        way_out = "lock again with the versions of the image, or without these packages"
        raise CodeError("\n  ".join([f"{PATH}: {path} doesn't fit this image; {way_out}:", *found.problems]))
    return found.install


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Wait until no other process builds the same; the lock ends with the process that has it."""
    with file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(
    pins: tuple[Pin, ...], code: Code, folder: Path, storage: Storage, environment: Mapping[str, str], target: Path
) -> None:
    for left in target.parent.glob(f"{target.name}.*"):  # of a process that was killed: we have the lock
        if left.is_dir():
            remove(left)
    beside = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        print(f"installing {len(pins)} package{'s' * (len(pins) != 1)} of {code.requirements}", flush=True)
        lock = beside / "requirements.txt"
        lock.write_text("".join(f"{pin}\n" for pin in pins))
        links = _wheels(code.wheels, pins, folder, storage, environment, beside / "wheels")
        where = ["--no-index", "--find-links", str(links)] if links is not None else []
        run_uv([*where, "--target", str(beside / FOLDER), "--requirement", str(lock)], pins, environment, code.wheels)
        remove(beside / "wheels")
        (beside / FOLDER).mkdir(exist_ok=True)
        beside.rename(target)
    except BaseException:
        remove(beside)
        raise
    make_read_only(target)


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
