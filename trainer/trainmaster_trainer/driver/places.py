"""Where `trainmaster run` writes: results, locks, local trackers, and a scratch folder short enough for sockets."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trainmaster_api.address import Address, AddressError, local, parse
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.cluster.commands import LONGEST_TMPDIR

from .identity import Refused

RUNS = "trainmaster-runs"
LOCKS = ".locks"
# A Unix socket's path has at most 103 bytes on macOS and 107 on Linux, and Ray puts
# `/tm-xxxxxxxx/ray/session_<date>_<pid>/sockets/plasma_store` below this.
_SHORT = LONGEST_TMPDIR


def storage_address(asked: str | None, job: TrainingJob) -> Address:
    """Return where results go.

    Args:
        asked: `--storage`: an address, `spec` for the file's `spec.storage.uri`, None for a folder here.
        job: Content of the file.

    Raises:
        Refused: It is not an address.
    """
    if asked == "spec":
        if job.spec.storage.uri is None:
            raise Refused("--storage spec: the file has no spec.storage.uri; add one, or leave --storage out")
        return parse(job.spec.storage.uri)
    here = _working_directory()
    if asked is None:
        return _readable_by_the_driver(local(f"{here}/{RUNS}"))
    try:
        return _readable_by_the_driver(parse(asked, relative_to=here))
    except AddressError as error:
        raise Refused(f'--storage "{asked}" {error}') from None


def folder_beside(storage: Address) -> Path:
    """Return the folder for locks and local trackers: in local storage, else among this user's own files.

    Never the working directory, unless results go there: it may be read-only, or a repository.
    """
    if not storage.is_s3:
        return Path(storage.path)
    state = os.environ.get("XDG_STATE_HOME")
    with contextlib.suppress(RuntimeError):  # no HOME, and no entry in the list of users
        return (Path(state) if state else Path.home() / ".local" / "state") / "trainmaster"
    return Path(tempfile.gettempdir()) / f"trainmaster-{os.getuid()}"


def folder_of(file: str) -> Path:
    """Return the folder of the job's file, from which the workers read relative paths and the user's code.

    Raises:
        Refused: Its path isn't UTF-8, so no message or file of ours could name it.
    """
    folder = Path(file).absolute().parent
    if not _is_unicode(str(folder)):
        shown = str(folder).encode(errors="backslashreplace").decode()
        raise Refused(f"the folder {shown} has a name that isn't valid UTF-8; rename it or copy the job elsewhere")
    return folder


def short_scratch() -> Path:
    """Make a private folder whose path is short, whatever TMPDIR says.

    Raises:
        Refused: No such folder can be made.
    """
    candidates = [os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp", os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"]
    reasons = []
    for candidate in candidates:
        if candidate and len(os.fsencode(candidate)) <= _SHORT and _is_unicode(candidate):
            try:
                return Path(tempfile.mkdtemp(prefix="tm-", dir=candidate))
            except OSError as error:
                reasons.append(f"{candidate}: {(error.strerror or str(error)).lower()}")
    raise Refused(
        f"there is no folder for temporary files whose path has at most {_SHORT} characters, as sockets need it "
        f"({'; '.join(reasons) or 'none'}); set TMPDIR to one"
    )


@contextlib.contextmanager
def only_one(folder: Path, job: TrainingJob) -> Iterator[None]:
    """Refuse a second process on the same run: the two would fence each other off."""
    meta = job.metadata
    locks = folder / LOCKS
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / f"{meta.namespace}-{meta.name}-{meta.uid}").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Refused(
                f"{meta.name} is already running in process {lock.read().strip() or '?'}; wait for it, stop it, "
                f"or give this job another name"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def near(path: str) -> str:
    """Return a path below the working directory as a relative one, others as they are."""
    with contextlib.suppress(ValueError, OSError):
        return str(Path(path).relative_to(Path.cwd())) if path.startswith("/") else path
    return path


def _is_unicode(path: str) -> bool:
    """Return whether a path has no bytes that Python could only read as surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        raise Refused("the working directory doesn't exist; change to another one") from None


def _readable_by_the_driver(address: Address) -> Address:
    """Return the address, or refuse it if the driver couldn't parse it, as with some directory names."""
    try:
        parse(str(address))
    except AddressError as error:
        raise Refused(f'results would go to "{address}", which {error}; choose another place with --storage') from None
    return address
