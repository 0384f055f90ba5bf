"""What the runtime gives to the training loop, and what it gets back: the loop knows no Ray, Kubernetes or tracker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import ConfigDict
from trainmaster_api.messages import CheckpointRef, Outcome, Resume
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.types import Model

if TYPE_CHECKING:  # the driver and the launcher use this module too, and must not pay for torch
    import torch

    from .storage.store import Store


class Signal(StrEnum):
    """What rank 0 is told at a control point."""

    CONTINUE = "Continue"
    STOP = "Stop"


class Verdict(StrEnum):
    """What a trial of a search is told after a validation."""

    CONTINUE = "Continue"
    STOP = "Stop"  # at once, without a save: nothing will continue it


class Control(Protocol):
    """Asked by rank 0 at control points, about twice a second; must not block."""

    def poll(self) -> Signal:
        """Return whether to continue or to save and stop."""
        ...


class ReportKind(StrEnum):
    """What a report is about."""

    RESUMED = "Resumed"  # step: where the run resumes; 0: from the start
    READING = "Reading"  # message: how far reading the data is, every few seconds where it takes long
    DATA = "Data"  # message: what was read, left out and noticed, one sentence per line
    LOADED = "Loaded"
    FIRST_STEP = "FirstStep"
    STEP = "Step"
    VALIDATION = "Validation"
    CHECKPOINT = "Checkpoint"
    WARNING = "Warning"
    WAITING = "Waiting"  # message: what a save waits for while training continues; empty: no longer
    DONE = "Done"


TRAINS = (ReportKind.FIRST_STEP, ReportKind.STEP, ReportKind.VALIDATION)
"""Reports of a run that makes steps."""


class _Data(Model):
    # metrics of a run that diverges are NaN, and travel as what they are
    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")


class Report(_Data):
    """A message of rank 0; numbers are plain Python numbers."""

    kind: ReportKind
    step: int
    total_steps: int
    epoch: int
    eta_seconds: float | None = None
    metrics: dict[str, float] = {}
    checkpoint: CheckpointRef | None = None
    message: str = ""
    fingerprint: str = ""  # of the data, shortened as it is shown; with RESUMED, once the run has accepted the data
    resume: Resume | None = None  # how exactly the run resumes; None: as said before
    reads: str = ""  # with RESUMED: what the user's program has read of its checkpoint, a clause
    began_again: bool = False  # with RESUMED: it has read none although there is one


class Result(_Data):
    """How training ended."""

    outcome: Outcome
    step: int
    total_steps: int
    checkpoint: CheckpointRef | None = None
    test_metrics: dict[str, float] = {}
    model_uri: str = ""
    is_paused: bool = False  # with STOPPED: at the end of its segment


class Segment(_Data):
    """The part of a trial between two rounds of its population; it is a run of its own."""

    until: int
    """Validations after which the trial saves and ends."""
    origin: str = ""
    """Directory below the job's run: without a checkpoint of its own, it begins with the newest of that run."""
    is_other: bool = False
    """Whether that is the run of another trial, with other values."""


class StoredFile(_Data):
    """A file of a user's own program whose content is in the run's storage, under `objects/<sha256>`."""

    path: str
    """Relative to the working directory."""
    size: int
    sha256: str
    modified: float
    """Time of its last change, seconds since the epoch: programs look for the newest of several files."""
    link: str = ""
    """What a symbolic link points to; it has no content."""


class Part(_Data):
    """The checkpoint files of one node, all of them at one time."""

    node: int
    files: list[StoredFile] = []
    step: int = 0
    is_complete: bool = True
    """Whether all of them are closed and stored; False: the program is writing, so what was sent before is stale."""


def _ignore(part: Part) -> None:
    """Do nothing: a backend whose checkpoints are its own has no parts."""


@dataclass(frozen=True)
class Context:
    """Everything that a rank needs. The process group is up when `world_size` > 1.

    Attributes:
        job: The resolved TrainingJob.
        rank: This process among `world_size`.
        world_size: Number of training processes.
        device: Where tensors live.
        attempt: Number of the attempt, from 1.
        run: Store rooted at the run's directory.
        run_uri: Address of the run's directory, for messages.
        base_dir: Directory that relative data paths are relative to.
        code_dir: Folder of the user's code; base_dir where the job has no `code`.
        control: Asked by rank 0.
        report: Called on rank 0 only; must not block.
        work_dir: Directory that a program of the user's own runs in; the same path in every attempt.
        local_rank: This process among those of its node.
        node: Number of its node among `nodes`.
        nodes: Number of nodes.
        share: Takes the checkpoint files of a node, from local rank 0 of each; must not block.
        is_trial: Whether this is one of many trials of a search: it is neither tested nor packaged.
        gate: Called by rank 0 after each validation, with the report and how many validations that makes; waits for the
            verdict. None: there is no search.
        objectives: Metrics of the search; what reports the first of them is a validation.
        segment: Of a trial of a population; None: there is no population.
        origin: Store of the run that the segment begins with; None: it begins at the start.
        end: Sends the result and ends this process, from any thread: the user's program has the main one.
        fail: The same with a failure.
    """

    job: TrainingJob
    rank: int
    world_size: int
    device: torch.device
    attempt: int
    run: Store
    run_uri: str
    base_dir: Path
    code_dir: Path
    control: Control
    report: Callable[[Report], None]
    work_dir: Path = Path()
    local_rank: int = 0
    node: int = 0
    nodes: int = 1
    is_trial: bool = False
    gate: Callable[[Report, int], Verdict] | None = None
    objectives: tuple[str, ...] = ()
    segment: Segment | None = None
    origin: Store | None = None
    share: Callable[[Part], None] = _ignore
    end: Callable[[Result], None] = lambda result: None
    fail: Callable[[BaseException], None] = lambda error: None
