"""Messages of the trainer to the operator: the exit message of a container, the progress message of the driver."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, ValidationError

from .reasons import FailureClass
from .spec.tracking import MAX_TRACKERS
from .types import Model

EXIT_MESSAGE_LIMIT = 4096  # the kubelet cuts a termination message here
PROGRESS_LIMIT = 64 * 1024
PROGRESS_INTERVAL_SECONDS = 5.0
IMAGES_LIMIT = 8  # of an attempt, whose pods all name the same image: others are of a tag that was moved
_IMAGE_LENGTH = 512
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")
WAITING_LIMIT = 512  # characters of `ProgressMessage.waiting`


class Outcome(StrEnum):
    """How a container of an attempt ended."""

    COMPLETE = "Complete"
    STOPPED = "Stopped"  # asked to stop (suspend, drain): saved, then ended
    FAILED = "Failed"


class ExitCode:
    """Exit codes of the launcher; everything else comes from the system (137: killed)."""

    COMPLETE = 0
    FAILED = 1
    STOPPED = 75  # EX_TEMPFAIL: resume later


class Resume(StrEnum):
    """How exactly a run resumes, as far as what it runs can promise."""

    EXACT = "Exact"  # the same weights, to the bit, as without an interruption
    LOADER = "AsItsLoader"  # exact if the state of the user's stream is
    SCRIPT = "AsTheScript"  # from what the program itself has saved


RESUME_MEANINGS = {
    Resume.EXACT: "exact",
    Resume.LOADER: "as exact as its loader",
    Resume.SCRIPT: "as the script does",
}

_EXIT_CODES = {
    Outcome.COMPLETE: ExitCode.COMPLETE,
    Outcome.STOPPED: ExitCode.STOPPED,
    Outcome.FAILED: ExitCode.FAILED,
}


class CheckpointRef(Model):
    """A committed checkpoint."""

    step: int
    """Optimizer step."""
    attempt: int
    """Attempt that wrote it."""
    uri: str
    """Its directory."""
    time: str
    """When its manifest was written, RFC 3339."""


class TrackerRef(Model):
    """The run as a tracker shows it."""

    name: Annotated[str, Field(max_length=253)]
    """Name of the tracker: `mlflow`, or the class of one of the user's own."""
    url: Annotated[str, Field(max_length=2048)] = ""
    """Where a person sees the run; empty: the tracker has no page for it."""
    run_id: Annotated[str, Field(max_length=253)] = ""
    """What the tracker calls the run."""


class ExitMessage(Model):
    """Termination message of the head (the attempt's result) or of a worker (why it ended)."""

    outcome: Outcome
    """How it ended."""
    failure_class: FailureClass | None = None
    """Why, when it failed."""
    message: str = ""
    """Human-readable message, one or two sentences."""
    rank: int | None = None
    """First failing rank."""
    pod: str | None = None
    """Pod of that rank."""
    step: int | None = None
    """Last finished step."""
    checkpoint: CheckpointRef | None = None
    """Newest committed checkpoint."""
    test_metrics: dict[str, float] = {}
    """Metrics on the test split, when complete."""
    model_uri: str = ""
    """The trained model, when complete."""
    data_fingerprint: Annotated[str, Field(max_length=64)] = ""
    """What identifies the data, shortened as it is shown; empty: nothing does, or it isn't known yet."""
    trackers: list[TrackerRef] = []
    """Where the run is shown."""
    last_lines: list[str] = []
    """Last lines of the failing process, newest last."""

    @property
    def exit_code(self) -> int:
        """Exit code of the container that leaves this message."""
        return _EXIT_CODES[self.outcome]

    def encode(self) -> str:
        """Return JSON of at most 4,096 bytes: last lines go first, then the trackers, then the message's end."""
        lines, message, trackers = list(self.last_lines), self.message, list(self.trackers)
        while True:
            update = {"last_lines": lines, "message": message, "trackers": trackers}
            data = self.model_copy(update=update).wire()
            text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
            if len(text) <= EXIT_MESSAGE_LIMIT:
                return text
            if lines:
                lines = lines[1:]
            elif trackers:
                trackers = trackers[:-1]
            elif len(message) > 64:
                message = message[: len(message) * 3 // 4] + "…"
            else:
                return json.dumps(ExitMessage(outcome=self.outcome, failure_class=self.failure_class).wire())

    @classmethod
    def decode(cls, text: str) -> ExitMessage | None:
        """Return the message of a termination message; None if it isn't one of ours (empty, truncated, foreign)."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None


class TrainerState(StrEnum):
    """What the trainer is doing."""

    STARTING = "Starting"
    TRAINING = "Training"
    RECOVERING = "Recovering"
    STOPPING = "Stopping"
    FINISHING = "Finishing"


def gpu_hours_text(used: float, saved: float) -> str:
    """Return what a search has cost: `3.2 GPU-hours, 7.1 saved by pruning`."""
    return f"{used:.3g} GPU-hours" + (f", {saved:.3g} saved by pruning" if saved else "")


class TuningProgress(Model):
    """How far a search is."""

    total: Annotated[int, Field(ge=0)]
    """Trials that there will be."""
    running: Annotated[int, Field(ge=0)] = 0
    """Trials that were begun and haven't ended."""
    complete: Annotated[int, Field(ge=0)] = 0
    """Trials that had all their validations."""
    pruned: Annotated[int, Field(ge=0)] = 0
    """Trials that were stopped because others are better, that diverged, or that need more memory than there is."""
    failed: Annotated[int, Field(ge=0)] = 0
    """Trials that failed."""
    best: float | None = None
    """Best value of the objective; absent: none yet, or several objectives."""
    best_trial: int | None = None
    """Its trial."""
    metric: Annotated[str, Field(max_length=64)] = ""
    """The objective's metric."""
    gpu_hours: Annotated[float, Field(ge=0)] | None = None
    """GPU-hours that its trials have used; absent: they have no GPUs."""
    gpu_hours_saved: Annotated[float, Field(ge=0)] | None = None
    """GPU-hours that pruned trials would have used had they run to the end at their own pace."""
    is_over: bool = False
    """Whether the search has ended; the winner is trained then."""

    @property
    def ended(self) -> int:
        """Trials that have ended."""
        return self.complete + self.pruned + self.failed

    @property
    def text(self) -> str:
        """The counters for the printed column."""
        return f"{self.ended}/{self.total} trials"

    @property
    def gpu_text(self) -> str:
        """The GPU-hours in one clause; empty: there are none."""
        return "" if self.gpu_hours is None else gpu_hours_text(self.gpu_hours, self.gpu_hours_saved or 0.0)

    @property
    def summary(self) -> str:
        """Counters, best and GPU-hours in one line."""
        return ", ".join(part for part in (self.text, self.best_text, self.gpu_text) if part)

    @property
    def best_text(self) -> str:
        """The best for the printed column; empty: none yet."""
        return "" if self.best is None else f"best {self.metric}={self.best:.4g}"[:64]


def images_text(images: Iterable[str]) -> str:
    """Return the value of `IMAGES_HEADER`: the images of pods, each once; those that aren't known yet are left out."""
    found = sorted({each for each in images if len(each) <= _IMAGE_LENGTH and _IMAGE.fullmatch(each)})
    return ",".join(found[:IMAGES_LIMIT])


def read_images(text: str) -> tuple[str, ...]:
    """Return the images of such a value; empty where it says nothing."""
    return tuple(each for each in text.split(",")[:IMAGES_LIMIT] if _IMAGE.fullmatch(each))


class ProgressMessage(Model):
    """Pushed by the driver with POST, at most once per 5 s and at every transition. Every field is the newest value."""

    namespace: Annotated[str, Field(max_length=63)]
    """Namespace of the job."""
    name: Annotated[str, Field(max_length=63)]
    """Name of the job."""
    uid: Annotated[str, Field(max_length=64)]
    """UID of the job."""
    attempt: Annotated[int, Field(ge=1)]
    """Attempt of the sender."""
    state: TrainerState
    """What it is doing."""
    step: Annotated[int, Field(ge=0)] = 0
    """Last finished optimizer step."""
    step_time: str | None = None
    """When that step was finished, RFC 3339, by the clock that `time` is of; absent: unknown."""
    waiting: Annotated[str, Field(max_length=WAITING_LIMIT)] = ""
    """What training waits for, a clause that doesn't change while the cause is the same, such as `storage has not
    responded since 2026-01-01T12:03:04Z`."""
    total_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of the whole run."""
    epoch: Annotated[int, Field(ge=0)] = 0
    """Epoch of that step, from 0."""
    eta_seconds: Annotated[float, Field(ge=0)] | None = None
    """Seconds to the end at the present pace."""
    metric: Annotated[str, Field(max_length=64)] = ""
    """Name of the metric for the printed column."""
    metrics: Annotated[dict[str, float], Field(max_length=64)] = {}
    """Latest value of each metric; non-finite values are left out."""
    checkpoint: CheckpointRef | None = None
    """Newest committed checkpoint."""
    resumed_from_step: int | None = None
    """Step that this attempt began with; absent: from the start."""
    recoveries: Annotated[int, Field(ge=0)] = 0
    """Workers lost and replaced within this attempt."""
    lost_steps: Annotated[int, Field(ge=0)] = 0
    """Steps done twice because of those."""
    ray_ready_time: str | None = None
    """When all workers had joined, RFC 3339."""
    loaded_time: str | None = None
    """When data and model were loaded in every worker, RFC 3339."""
    first_step_time: str | None = None
    """When the attempt's first step was done, RFC 3339."""
    data_fingerprint: Annotated[str, Field(max_length=64)] = ""
    """What identifies the data, shortened as it is shown; empty: nothing does, or it isn't known yet."""
    resume: Resume | None = None
    """How exactly the run resumes; absent: not known yet."""
    read: Annotated[str, Field(max_length=WAITING_LIMIT)] = ""
    """What a program of the user's own has read of its checkpoint after a restart, a clause; empty: nothing to say."""
    began_again: bool = False
    """Whether such a program has read no checkpoint although there is one, and began from its start."""
    trackers: Annotated[list[TrackerRef], Field(max_length=MAX_TRACKERS)] = []
    """Where the run is shown."""
    tuning: TuningProgress | None = None
    """How far the job's search is; absent: it has none, or hasn't begun."""
    time: str
    """When it was sent, RFC 3339."""

    @classmethod
    def decode(cls, body: bytes) -> ProgressMessage:
        """Return the message of a request's body; raises ValueError with a one-sentence message if it is invalid."""
        if len(body) > PROGRESS_LIMIT:
            raise ValueError(f"{len(body)} bytes; at most {PROGRESS_LIMIT} are accepted")
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            first: Any = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
