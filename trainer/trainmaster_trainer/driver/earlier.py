"""Reads what is known before a search: journals of other runs, and experiments."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.tracking import Tracker as Entry
from trainmaster_api.spec.tuning import EarlierTrials, Objective
from trainmaster_api.tuning.space import Axis

from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.reporting.trackers.base import finished_runs
from trainmaster_trainer.storage.store import open_store
from trainmaster_trainer.tuning.earlier import Known, search_of, taken
from trainmaster_trainer.tuning.trials import is_higher, reduced


def earlier_trials(
    settings: DriverSettings, job: TrainingJob, axes: Sequence[Axis], say: Callable[[str], None]
) -> list[Known]:
    """Return the trials that a job's search begins with, source by source.

    Args:
        settings: Of the driver.
        job: With a search.
        axes: Its parameters.
        say: Takes a sentence for each source: what is taken and what is left out.

    Raises:
        TrainingError: A source isn't there, or has other objectives.
    """
    tuning = job.spec.tuning
    assert tuning is not None
    higher, found = [is_higher(each) for each in tuning.objectives], list[Known]()
    for index, source in enumerate(tuning.warm_start.earlier):
        try:
            known = _read(settings, job, source, axes)
        except ConfigurationError as error:
            raise ConfigurationError(f"spec.tuning.warmStart.from[{index}]: {error.message}") from None
        result = taken(known, axes, higher, source.top_k)
        say(result.sentence(f"experiment {source.experiment[1]}" if source.experiment else str(source.run)))
        found += result.trials
    return found


def _read(settings: DriverSettings, job: TrainingJob, source: EarlierTrials, axes: Sequence[Axis]) -> list[Known]:
    tuning, storage = job.spec.tuning, job.spec.storage
    assert tuning is not None
    if source.run is not None:
        return search_of(open_store(source.run, storage.endpoint, storage.region, os.environ), tuning.objectives)
    assert source.experiment is not None
    kind, experiment = source.experiment
    entry = next((each for each in map(Entry.model_validate, settings.tracking) if each.kind == kind), None)
    if entry is None:
        raise ConfigurationError(f"experiment {experiment} can't be read: tracking is switched off for this run")
    runs = finished_runs(entry, experiment, [each.metric for each in tuning.objectives])
    paths = {axis.path: axis.name for axis in axes}
    return [
        Known(
            name,
            {paths[path]: text for path, text in params.items() if path in paths},
            tuple(_result(objective, history) for objective, history in zip(tuning.objectives, histories, strict=True)),
        )
        for name, params, histories in runs
    ]


def _result(objective: Objective, history: Sequence[float]) -> float:
    value = reduced(history, objective.reduce, is_higher(objective)) if history else None
    return float("nan") if value is None else value
