"""What a tracker is, and how one is found by the entry of `spec.tracking` that asks for it.

A tracker of our own is a module of this package that is named like its field in `spec.tracking` and has a `create`.
A user's own is any class with the methods of `Tracker`; see docs/extending.md.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trainmaster_api.messages import Outcome
from trainmaster_api.spec.tracking import Tracker as Entry

from trainmaster_trainer.errors import ConfigurationError


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told about the run when it starts.

    Attributes:
        namespace: Namespace of the job.
        job: Name of the job.
        uid: Unique id of the run.
        attempt: Number of the attempt, from 1.
        uri: Where the run's files are.
        params: The specification as dotted names: `optimizer.lr` -> `0.001`.
        kept: What `start` returned in an earlier attempt of this run; empty the first time.
    """

    namespace: str
    job: str
    uid: str
    attempt: int
    uri: str
    params: Mapping[str, str]
    kept: Mapping[str, str]


@dataclass(frozen=True)
class TrackedValidation:
    """A validation of a trial that runs.

    Attributes:
        number: Number of the trial, from 0.
        step: Optimizer step.
        metrics: Its finite metrics.
        params: Parameters of the trial; empty where they change while it is trained.
        began: When the trial began, in seconds since 1970.
        time: When it was validated.
    """

    number: int
    step: int
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    began: float
    time: float


@dataclass(frozen=True)
class TrackedTrial:
    """A trial of a search that has ended.

    Attributes:
        number: Number of the trial, from 0.
        state: How it ended: `Complete`, `Pruned`, `Diverged`, `OutOfMemory` or `Failed`.
        params: Its parameters.
        objectives: Its finite values of the objectives.
        metrics: These, `seconds` and `validations`.
        began: When it was first suggested, in seconds since 1970.
        ended: When it ended.
        is_best: Whether it is the best trial so far.
    """

    number: int
    state: str
    params: Mapping[str, str]
    objectives: Mapping[str, float]
    metrics: Mapping[str, float]
    began: float
    ended: float
    is_best: bool


class Tracker(Protocol):
    """Shows a run somewhere. All methods are called in one thread that belongs to the tracker.

    Any of them may raise or block: the call is repeated later, a first failure costs the run one warning, and at the
    end everything is given up after `finish_seconds`.
    """

    finish_seconds: float = 30.0
    """How long the end of the run waits for what is still to be sent."""

    def start(self, run: TrackedRun) -> dict[str, str]:
        """Create the run, or continue that of `run.kept`.

        Returns:
            What is needed to continue it after a resume. It is kept in the run's storage. `run_id` and `view` have a
            meaning: the name of the run there, and a command that shows it on this machine.
        """
        ...

    @property
    def url(self) -> str:
        """Where a person sees the run, once it has started; empty: nowhere."""
        ...

    def log(self, metrics: Mapping[str, float], step: int, time: float) -> None:
        """Take finite metrics of a step. What it returned from isn't given again; what it raised for is.

        Args:
            metrics: Name -> value, as in `train/loss` or `val/accuracy`.
            step: Optimizer step.
            time: When they were measured, in seconds since 1970.
        """
        ...

    def log_validation(self, validation: TrackedValidation) -> None:
        """Take a validation of a trial, which `log_trial` will have when it has ended.

        A trial that was interrupted repeats those that it had after its checkpoint, also in another attempt: a step
        that is known already is to be passed over.
        """
        return

    def log_trial(self, trial: TrackedTrial) -> None:
        """Take a trial of a search that has ended, as a run below this one.

        Every attempt is given all trials once: one that is known already, by its number, is to be passed over.
        """
        return

    def flush(self) -> None:
        """Send what `log` and `log_validation` only collected. Called every 2 s, and again when it raised."""
        return

    def log_artifacts(self, folder: Path, name: str) -> None:
        """Record the files of a local folder under a name such as `model`."""
        ...

    def finish(self, outcome: Outcome) -> None:
        """Close the run; everything logged before has to be sent when this returns."""
        ...


Factory = Callable[[], Tracker]


def factory(entry: Entry, base_dir: Path) -> Factory:
    """Return what makes the tracker that an entry of `spec.tracking` asks for.

    Args:
        entry: The entry.
        base_dir: Directory of the job's file, where a class of the user's own is looked for, after everything that is
            installed.

    Raises:
        ConfigurationError: The class doesn't exist, or doesn't accept these arguments. The message names the field.
    """
    if entry.reference is None:
        create: Callable[[Any], Tracker] = _shipped(entry.kind).create
        return lambda: create(entry.settings)
    made = _imported(entry.reference, base_dir)
    arguments = dict(entry.args or {})
    return lambda: made(**arguments)


def finished_runs(
    entry: Entry, experiment: str, metrics: Sequence[str]
) -> list[tuple[str, dict[str, str], list[list[float]]]]:
    """Return the finished runs of an experiment, oldest first: id, parameters, and the history of each metric.

    Args:
        entry: A tracker that we ship, with its address.
        experiment: Name there.
        metrics: Whose histories are needed.

    Raises:
        TrainingError: There is no such experiment, or it can't be read.
    """
    found: list[tuple[str, dict[str, str], list[list[float]]]] = _shipped(entry.kind).finished_runs(
        entry.settings, experiment, metrics
    )
    return found


def local_entry(entry: Entry, folder: Path) -> Entry:
    """Return an entry whose tracker keeps everything on this machine, for `trainmaster run`.

    Args:
        entry: The entry of the job's file, whose addresses are the cluster's.
        folder: Where the tracker may write.
    """
    if entry.reference is not None:
        return entry
    return entry.model_copy(update={entry.kind: _shipped(entry.kind).local(entry.settings, folder)})


def flatten(data: Any, prefix: str = "") -> dict[str, str]:
    """Return nested data as dotted names: `{"optimizer": {"lr": 0.001}}` -> `{"optimizer.lr": "0.001"}`."""
    if isinstance(data, dict):
        found: dict[str, str] = {}
        for key, value in data.items():
            found |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return found
    return {prefix: str(data)}


def _shipped(kind: str) -> Any:
    return importlib.import_module(f"{__package__}.{kind}")


def _imported(reference: str, base_dir: Path) -> Any:
    module, _, name = reference.partition(":")
    if str(base_dir) not in sys.path:
        sys.path.append(str(base_dir))  # last, so that a user's `queue.py` doesn't take the place of Python's
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f'spec.tracking class "{reference}": module {error.name} was not found; '
            "install it, or put it next to the job's file"
        ) from None
    except AttributeError:
        raise ConfigurationError(f'spec.tracking class "{reference}": module {module} has no {name}') from None
