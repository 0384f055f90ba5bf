"""From an exception to a class of the published list, a sentence and the lines that help. Pure: no Ray, no torch."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, field

from trainmaster_api.reasons import FailureClass

from .errors import TrainingError

_LINES = 12
_NOT_OURS = re.compile(r"/site-packages/(ray|torch)/|/lib/python3[^/]*/(threading|concurrent|runpy)")
# What the other ranks see when one has died: gloo, NCCL and TCPStore say it in these words.
_PEER_GONE = re.compile(
    r"connection (reset|closed|refused)|closed by peer|broken pipe|socket (timeout|closed)|gloo|"
    r"timed out .*(wait|store)|ncclremoteerror|ncclsystemerror|nccl (communicator|error)|process group",
    re.IGNORECASE,
)
_GPU_FAULT = re.compile(r"\bXid\b|uncorrectable ECC|CUDA error: (unspecified launch failure|an illegal|unknown)", re.I)


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


@dataclass(frozen=True)
class Failure:
    """What happened to a group of workers.

    Attributes:
        failure_class: Entry of the published list.
        message: A sentence.
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
    """What a rank says of `error`: classed, with the lines that a user can use."""
    lines = last_lines(error)
    if isinstance(error, TrainingError):
        # its sentence says it all; where it was raised in our code helps nobody
        return RankError(error.message, error.failure_class, rank, pod, [], peer=False)
    text = _one_line(error)
    name = type(error).__name__
    if isinstance(error, MemoryError):
        message = f"rank {rank} got no more memory: {text}; raise cluster.workers.memory"
        return RankError(message, FailureClass.HOST_OUT_OF_MEMORY, rank, pod, lines, peer=False)
    if name == "OutOfMemoryError":
        message = f"rank {rank}: {text}"
        return RankError(message, FailureClass.GPU_OUT_OF_MEMORY, rank, pod, lines, peer=False)
    if _GPU_FAULT.search(text):
        return RankError(f"rank {rank}: {text}", FailureClass.GPU_FAULT, rank, pod, lines, peer=False)
    foreign = isinstance(error, RuntimeError | ConnectionError | OSError) and _PEER_GONE.search(text)
    if foreign:
        message = f"rank {rank} lost its connection to another rank: {text}"
        return RankError(message, FailureClass.WORKER_LOST, rank, pod, lines, peer=True)
    return RankError(f"rank {rank}: {name}: {text}", FailureClass.INTERNAL_ERROR, rank, pod, lines, peer=False)


def last_lines(error: BaseException) -> list[str]:
    """The end of a traceback that a user can use: frames of Ray and torch are left out."""
    frames = traceback.extract_tb(error.__traceback__)
    kept = [frame for frame in frames if not _NOT_OURS.search(frame.filename)] or list(frames)
    lines = "".join(traceback.format_list(kept)).splitlines()
    lines += "".join(traceback.format_exception_only(error)).splitlines()
    return [line.rstrip() for line in lines][-_LINES:]


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
