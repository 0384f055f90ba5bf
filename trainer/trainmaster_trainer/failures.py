"""Classifies exceptions: failure class, message, and the lines that help. Imports neither Ray nor torch."""

from __future__ import annotations

import re
import site
import sys
import sysconfig
import traceback
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from types import FrameType

from trainmaster_api.reasons import FailureClass

from .errors import TrainingError
from .references import USER_PACKAGES, is_in_job_folder

_LINES = 12
_NOT_OURS = re.compile(r"/site-packages/(ray|torch)/|/lib/python3[^/]*/(threading|concurrent|runpy)")
# What the other ranks see when one has died: gloo, NCCL and TCPStore say it in these words.
_PEER_GONE = re.compile(
    r"connection (reset|closed|refused)|closed by peer|broken pipe|socket (timeout|closed)|gloo|"
    r"timed out .*(wait|store)|ncclremoteerror|ncclsystemerror|nccl (communicator|error)|process group",
    re.IGNORECASE,
)
_GPU_FAULT = re.compile(r"\bXid\b|uncorrectable ECC|CUDA error: (unspecified launch failure|an illegal|unknown)", re.I)

# What is in Python while torch waits for other ranks in C: a collective, and a backward that makes some.
_WAITS_FOR_PEERS = ("torch.distributed", "torch.autograd", "torch.nn.parallel", "torch._tensor")

_DATA_WORKER = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:is killed by signal: (?P<signal>[^.]+)|exited unexpectedly)"
)


class RankError(TrainingError):
    """A failure of one rank, as it is told to the driver.

    Attributes:
        rank: The failing process.
        pod: Its pod; empty on a laptop.
        last_lines: Where it happened, the innermost call last; nothing of Ray's.
        peer: Whether this rank only noticed that another one is gone.
    """

    def __init__(
        self, message: str, failure_class: FailureClass, rank: int, pod: str, last_lines: list[str], peer: bool
    ) -> None:
        super().__init__(message, failure_class)
        self.rank = rank
        self.pod = pod
        self.last_lines = last_lines
        self.peer = peer

    def __reduce__(self) -> tuple[type[RankError], tuple[object, ...]]:
        """Survive pickling: a process that makes batches returns it to its rank."""
        return RankError, (self.message, self.failure_class, self.rank, self.pod, self.last_lines, self.peer)


@dataclass(frozen=True)
class Failure:
    """What happened to a group of workers.

    Attributes:
        failure_class: Entry of the published list.
        message: One sentence.
        rank: First failing rank, where one is known.
        pod: Its pod.
        last_lines: Where it happened.
        recoverable: Whether another group of workers, from the newest checkpoint, may get further.
    """

    failure_class: FailureClass
    message: str
    rank: int | None = None
    pod: str | None = None
    last_lines: list[str] = field(default_factory=list)
    recoverable: bool = False


def rank_error(error: BaseException, rank: int, pod: str) -> RankError:
    """Return a rank's report of `error`: its class, and the lines that help a user."""
    if isinstance(error, RankError):  # of a process that makes batches for this rank
        return error
    lines = last_lines(error)
    if isinstance(error, TrainingError):
        # its message is complete; where it was raised in our code doesn't help a user
        return RankError(error.message, error.failure_class, rank, pod, error.last_lines, peer=False)
    text = _one_line(error)
    name = type(error).__name__
    if isinstance(error, MemoryError):
        message = f"rank {rank} ran out of memory: {text}; raise cluster.workers.memory"
        return RankError(message, FailureClass.HOST_OUT_OF_MEMORY, rank, pod, lines, peer=False)
    if name == "OutOfMemoryError":
        message = f"rank {rank}: {text}"
        return RankError(message, FailureClass.GPU_OUT_OF_MEMORY, rank, pod, lines, peer=False)
    # torch says which signal it was in the cause, where it noticed the end of the process while it waited for a batch
    died = _DATA_WORKER.search(f"{error.__cause__} {error}")
    if died:
        return _data_worker_error(died, rank, pod)
    if _GPU_FAULT.search(text):
        return RankError(f"rank {rank}: {text}", FailureClass.GPU_FAULT, rank, pod, lines, peer=False)
    whose = _blame(error)
    foreign = isinstance(error, RuntimeError | ConnectionError | OSError) and _PEER_GONE.search(text)
    if foreign and not whose.is_final:
        message = f"rank {rank} lost its connection to another rank: {text}"
        return RankError(message, FailureClass.WORKER_LOST, rank, pod, lines, peer=True)
    if whose.is_users:
        at = f" ({whose.place})" if whose.place else ""
        shown = _users_lines(error, whose) if whose.frames else lines
        message = f"rank {rank}: {name}: {text}{at}"
        return RankError(message, FailureClass.USER_CODE_ERROR, rank, pod, shown, peer=False)
    return RankError(f"rank {rank}: {name}: {text}", FailureClass.INTERNAL_ERROR, rank, pod, lines, peer=False)


def _data_worker_error(died: re.Match[str], rank: int, pod: str) -> RankError:
    """Return the report of a process of `data.loading.workers` that has died; what torch says of it leaves the how."""
    how = died["signal"] or ""
    if how.startswith("Bus error"):
        message = "no room in /dev/shm for the batches that are made ahead; lower data.loading.prefetch or workers, or "
        return RankError(
            f"rank {rank}: {message}raise cluster.workers.memory", FailureClass.HOST_OUT_OF_MEMORY, rank, pod, [], False
        )
    message = f"rank {rank}: a process that makes batches (data.loading.workers) died{f' by {how}' if how else ''}"
    if how == "Killed":
        message += ", as it does when memory runs out; raise cluster.workers.memory or lower data.loading.workers"
    return RankError(
        message, FailureClass.HOST_OUT_OF_MEMORY if how == "Killed" else FailureClass.WORKER_LOST, rank, pod, [], False
    )


@dataclass(frozen=True)
class Standing:
    """Where a thread is.

    Attributes:
        place: The user's frame nearest to the innermost call: file, line, function; empty: there is none.
        lines: That frame first, then the others from the innermost outwards; nothing of ours where there is one.
        waits: Whether it is in a call of torch's that may wait for other ranks.
    """

    place: str
    lines: list[str]
    waits: bool


def standing(frame: FrameType) -> Standing:
    """Return where the thread is whose innermost frame is given."""
    frames = list(traceback.walk_stack(frame))
    owners = [_owner(each) for each, _ in frames]
    summaries = list(traceback.StackSummary.extract(iter(frames)))
    waits = str(frame.f_globals.get("__name__", "")).startswith(_WAITS_FOR_PEERS)
    if _Owner.USER not in owners:
        return Standing("", _formatted(summaries), waits)
    nearest = owners.index(_Owner.USER)
    kept = [each for each, owner in enumerate(owners) if owner is not _Owner.OURS and each != nearest]
    at, number = frames[nearest]
    place = f"{_shown(at.f_code.co_filename)}:{number} in {at.f_code.co_name}"
    return Standing(place, _formatted([summaries[each] for each in (nearest, *kept)]), waits)


def _formatted(frames: list[traceback.FrameSummary]) -> list[str]:
    return [line.rstrip() for line in "".join(traceback.format_list(frames)).splitlines()]


def users_frames(error: BaseException) -> list[str]:
    """Return the lines of the user's frames in a traceback, the one nearest to the exception first."""
    return _formatted(list(_blame(error).frames))


def _users_lines(error: BaseException, whose: _Blame) -> list[str]:
    """Return the user's own line first, what led to it in their code, and the exception; nothing of ours or torch's."""
    end = "".join(traceback.format_exception_only(error)).splitlines()
    shown = "".join(traceback.format_list(list(whose.frames))).splitlines()
    return [line.rstrip() for line in [*shown[: max(2, _LINES - len(end))], *end[-(_LINES - 2) :]]]


class _Owner(Enum):
    """Whose code a frame runs."""

    OURS = auto()
    TORCH = auto()
    LIBRARY = auto()
    USER = auto()


@dataclass(frozen=True)
class _Blame:
    """Whose an exception is.

    Attributes:
        is_users: The user's code raised it, or called what raised it.
        is_final: It can't be a lost peer: what the user's code called isn't torch.
        place: The user's frame nearest to the exception: file, line, function.
        frames: That frame, then the others of the user's, from the outermost inwards.
    """

    is_users: bool
    is_final: bool = False
    place: str = ""
    frames: tuple[traceback.FrameSummary, ...] = ()


# Where our own code runs the user's without a frame of theirs in between: backward of their model, a call that torch
# refuses (DDP that waits for unused parameters), a constructor that is written in C.
_RUNS_USER_CODE = (
    "trainmaster_trainer.backends.torch.loop",
    "trainmaster_trainer.backends.torch.evaluate",
    "trainmaster_trainer.backends.torch.optim",
    "trainmaster_trainer.backends.lightning",
    "trainmaster_trainer.sample",
    "trainmaster_trainer.references",
    "trainmaster_trainer.tasks",
    "trainmaster_api.references",
)
_STANDARD = tuple(
    str(Path(folder).resolve()) for key in ("stdlib", "platstdlib") if (folder := sysconfig.get_paths().get(key))
)
_INSTALLED = tuple(str(Path(each).resolve()) for each in {*site.getsitepackages(), sysconfig.get_paths()["purelib"]})


def _blame(error: BaseException) -> _Blame:
    """Decide by the traceback: the deepest frame of the user's code, if there is one, has called what failed."""
    if isinstance(error, SyntaxError) and error.filename and is_in_job_folder(error.filename):
        at = traceback.FrameSummary(error.filename, error.lineno, "<module>")
        return _Blame(True, True, frames=(at,))  # its text has the place
    frames = list(traceback.walk_tb(error.__traceback__))
    owners = [_owner(frame) for frame, _ in frames]
    first = owners.index(_Owner.OURS) if _Owner.OURS in owners else 0  # our callers are not to blame
    for index in range(len(frames) - 1, first - 1, -1):
        if owners[index] is _Owner.USER:
            below = owners[index + 1 :]
            # An operation of torch's that waits for a peer may be written in C and have no frame. It raises a
            # RuntimeError; a socket of the user's own, to a database perhaps, raises an OSError.
            is_final = _Owner.TORCH not in below and (bool(below) or isinstance(error, OSError))
            summaries = traceback.extract_tb(error.__traceback__)
            others = [summaries[i] for i in range(first, index) if owners[i] is _Owner.USER]
            frame, number = frames[index]
            place = f"{_shown(frame.f_code.co_filename)}:{number} in {frame.f_code.co_name}"
            return _Blame(True, is_final, place, (summaries[index], *others))
    ours = [index for index, owner in enumerate(owners) if owner is _Owner.OURS]
    if not USER_PACKAGES or not ours:
        return _Blame(False)
    caller = str(frames[ours[-1]][0].f_globals.get("__name__", ""))
    if (
        ours[-1] == len(frames) - 1
    ):  # raised in our own line, or in C called from it: only `call` calls the user's there
        return _Blame(caller == "trainmaster_trainer.references")
    return _Blame(caller.startswith(_RUNS_USER_CODE))


def _owner(frame: FrameType) -> _Owner:
    name, file = str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename
    top = name.partition(".")[0]
    if top in ("trainmaster_trainer", "trainmaster_api"):
        return _Owner.OURS
    if name == "trainmaster":  # what programs call: their line is the one to look at
        return _Owner.LIBRARY
    if is_in_job_folder(file):
        return _Owner.USER
    if top == "torch":  # also where a reference names it: a frame of torch's alone doesn't tell whose fault it is
        return _Owner.TORCH
    if top in USER_PACKAGES:
        return _Owner.USER
    if file.startswith("<") or top in sys.stdlib_module_names:
        return _Owner.LIBRARY
    resolved = str(Path(file).resolve())
    return _Owner.LIBRARY if resolved.startswith((*_STANDARD, *_INSTALLED)) else _Owner.USER


def _shown(filename: str) -> str:
    """Return a file as its module is found: relative to the entry of sys.path that it is in."""
    roots = sorted((each for each in sys.path if each and filename.startswith(f"{each}/")), key=len)
    return filename[len(roots[-1]) + 1 :] if roots else filename


def last_lines(error: BaseException) -> list[str]:
    """Return the end of a traceback without the frames of Ray and torch."""
    frames = traceback.extract_tb(error.__traceback__)
    kept = [frame for frame in frames if not _NOT_OURS.search(frame.filename)] or list(frames)
    lines = "".join(traceback.format_list(kept)).splitlines()
    lines += "".join(traceback.format_exception_only(error)).splitlines()
    return [line.rstrip() for line in lines][-_LINES:]


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
