"""What the runtime gives to the training loop, and what it gets back: the loop knows no Ray, Kubernetes or tracker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import ConfigDict
from trainmaster_api.messages import CheckpointRef, Outcome
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.types import Model

if TYPE_CHECKING:  # the driver and the launcher use this module too, and must not pay for torch
    import torch

    from .storage.store import Store


class Signal(StrEnum):
    """What rank 0 is told at a control point."""

    CONTINUE = "Continue"
    STOP = "Stop"


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


class Result(_Data):
    """How training ended."""

    outcome: Outcome
    step: int
    total_steps: int
    checkpoint: CheckpointRef | None = None
    test_metrics: dict[str, float] = {}
    model_uri: str = ""


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
        control: Asked by rank 0.
        report: Called on rank 0 only; must not block.
    """

    job: TrainingJob
    rank: int
    world_size: int
    device: torch.device
    attempt: int
    run: Store
    run_uri: str
    base_dir: Path
    control: Control
    report: Callable[[Report], None]
