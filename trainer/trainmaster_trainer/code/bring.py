"""Brings the user's code to where the ranks find it: from the job, from storage, from a repository, or in the image.

Used by the launcher of a pod, before Ray starts, and by `trainmaster run`. Nothing heavy is imported until it is
needed, because most jobs have no code of their own and a launcher must start at once.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

from trainmaster_api.address import parse
from trainmaster_api.archive import MOST_BYTES, ArchiveError, unpack
from trainmaster_api.spec.code import Code, GitCode, StoredCode
from trainmaster_api.spec.storage import Storage

from trainmaster_trainer.errors import CodeError, CodeUnavailable

FOLDER = "code"  # below scratch


def bring(
    code: Code, storage: Storage, environment: Mapping[str, str], scratch: Path, inline: bytes | None = None
) -> Path:
    """Return the folder of the user's code, read-only; what can be wrong with it is found here.

    Args:
        code: Where it is. `path` is packed before, by `trainmaster run` and `trainmaster submit`.
        storage: For the credentials of `code.stored`.
        environment: With the keys of the storage.
        scratch: Folder below which it is unpacked.
        inline: Archive of `code.inline`; None: it is in the job.

    Raises:
        CodeError: It isn't what the job says, or there is none; another attempt would find the same.
        CodeUnavailable: It can't be reached now.
        TrainingError: Storage refuses access, or doesn't respond.
    """
    folder = scratch / FOLDER
    try:
        if code.image is not None:
            folder = _in_image(code.image)
        elif code.git is not None:
            _clone(code.git, environment, folder)
        elif code.stored is not None:
            unpack(_download(code.stored, storage, environment), code.stored.sha256, folder)
        elif code.inline is not None:
            unpack(inline if inline is not None else decoded(code.inline.data), code.inline.sha256, folder)
        else:
            raise CodeError(
                f"spec.training.code.path {code.path!r} is a folder on a laptop, which a pod "
                "can't read; `trainmaster submit FILE` packs it"
            )
    except ArchiveError as error:
        raise CodeError(f"spec.training.code: {error}") from None
    except OSError as error:
        raise CodeUnavailable(
            f"the code can't be unpacked into {folder}: {(error.strerror or str(error)).lower()}"
        ) from None
    return folder


def decoded(data: str) -> bytes:
    """Return the archive of `code.inline.data`. Raises CodeError for text that isn't base64."""
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise CodeError(
            f"spec.training.code.inline.data isn't base64 ({error}); write it with `trainmaster submit`"
        ) from None


def _in_image(image: str) -> Path:
    folder = Path(image)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise CodeError(f"spec.training.code.image: {image} {what} in this image; correct the path, or cluster.image")
    return folder


def _download(stored: StoredCode, storage: Storage, environment: Mapping[str, str]) -> bytes:
    from trainmaster_trainer.storage.store import open_store

    address = parse(stored.uri)
    store = open_store(str(address.parent), storage.endpoint, storage.region, environment)
    found = store.stat(address.name)
    if found is None:
        raise CodeError(f"spec.training.code.stored: there is no {address}; submit the job again, which uploads it")
    if found.size > MOST_BYTES:
        raise CodeError(
            f"spec.training.code.stored: {address} has {found.size >> 20} MiB; code may have {MOST_BYTES >> 20} MiB"
        )
    return store.get(address.name) or b""


def _clone(git: GitCode, environment: Mapping[str, str], folder: Path) -> None:
    from .git import clone

    clone(git, environment, folder)
