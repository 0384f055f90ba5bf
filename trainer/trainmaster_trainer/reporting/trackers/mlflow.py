"""The MLflow tracker."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.tracking import Mlflow

from trainmaster_trainer.errors import ConfigurationError, TrainingError

from .base import TrackedRun, TrackedTrial, TrackedValidation, Tracker

_BATCH = 500
_QUEUE = 20_000  # values; beyond it the oldest are dropped
_PARAM_LENGTH = 500
_SQLITE = "sqlite:///"
_PARENT, _TRIAL, _STATE = "mlflow.parentRunId", "trainmaster.trial", "trainmaster.state"
_RUNNING, _STOPPED = "Running", "Stopped"  # states of trials that haven't ended
_TRIAL_STATUS = {"Complete": "FINISHED", "Pruned": "KILLED"}
_PAGE = 1000
_STATUS = {Outcome.COMPLETE: "FINISHED", Outcome.STOPPED: "KILLED", Outcome.FAILED: "FAILED"}


def create(settings: Mlflow) -> Tracker:
    """Return the tracker for a job's settings, whose `uri` is set."""
    return MlflowTracker(settings)


def local(settings: Mlflow, folder: Path) -> Mlflow:
    """Return settings that record into a sqlite file of a folder of this machine."""
    return settings.model_copy(update={"uri": f"{_SQLITE}{folder / 'mlflow.db'}"})


def finished_runs(
    settings: Mlflow, experiment: str, metrics: Sequence[str]
) -> list[tuple[str, dict[str, str], list[list[float]]]]:
    """Return the finished runs of an experiment, oldest first: id, parameters, and the history of each metric.

    Raises:
        ConfigurationError: There is no such experiment.
        TrainingError: The server doesn't answer.
    """
    client = connect(settings.uri or "")
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            known = ", ".join(sorted(each.name for each in client.search_experiments(max_results=10)))
            raise ConfigurationError(f"{settings.uri} has no experiment {experiment}; there are {known or 'none'}")
        order = ["attributes.start_time ASC", "attributes.run_id ASC"]
        runs = list(_runs(client, found.experiment_id, "attributes.status = 'FINISHED'", order_by=order))
        return [
            (run.info.run_id, dict(run.data.params), [_history(client, run.info.run_id, name) for name in metrics])
            for run in runs
        ]
    except MlflowException as error:
        raise TrainingError(
            f"the runs of experiment {experiment} can't be read from {settings.uri}: {str(error).splitlines()[0]}",
            FailureClass.STORAGE_UNAVAILABLE,
        ) from None


def _runs(client: Any, experiment: str, which: str, **how: Any) -> Iterator[Any]:
    """Yield the runs of an experiment that a filter selects, a page at a time."""
    token: str | None = None
    while True:
        page = client.search_runs([experiment], which, max_results=_PAGE, page_token=token, **how)
        yield from page
        token = page.token
        if not token:
            return


def _history(client: Any, run_id: str, metric: str) -> list[float]:
    found = client.get_metric_history(run_id, metric)
    return [each.value for each in sorted(found, key=lambda each: (each.step, each.timestamp))]


def connect(uri: str) -> Any:
    """Return a client of a server or of a file."""
    # set before the import, because MLflow reads them then; its own limits are minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


@dataclass
class _Nested:
    """The run of a trial.

    Attributes:
        run_id: Its id.
        is_closed: Whether the trial has ended and everything of it is there.
        is_running: Whether the server shows it as running.
        last: Last step that was logged, or will be; -1: none; None: only the server knows.
        values: What isn't sent yet.
    """

    run_id: str
    is_closed: bool = False
    is_running: bool = True
    last: int | None = None
    values: list[tuple[str, float, int, int]] = field(default_factory=list)


class MlflowTracker(Tracker):
    """Records parameters, metrics and the model as one MLflow run, which is continued after a resume."""

    def __init__(self, settings: Mlflow) -> None:
        """Take the settings; nothing is imported yet."""
        self._settings = settings
        self._uri = settings.uri or ""
        # a file can't be away; making its tables takes a while on a slow machine
        self.finish_seconds = 120.0 if self._uri.startswith(_SQLITE) else 30.0
        self._client: Any = None
        self._run_id = self._experiment = ""
        self._trials: dict[int, _Nested] | None = None
        self._url = ""
        self._values: list[tuple[str, float, int, int]] = []

    @property
    def url(self) -> str:
        """Page of the run on the server; for a file, the file."""
        return self._url

    def start(self, run: TrackedRun) -> dict[str, str]:
        """Continue the run of an earlier attempt if it exists on this server, else create one."""
        client = self._connect()
        run_id = self._known_run(client, run) or self._new_run(client, run)
        experiment = client.get_run(run_id).info.experiment_id
        is_server = self._uri.startswith("http")
        self._url = f"{self._uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}" if is_server else self._uri
        self._client, self._run_id, self._experiment = client, run_id, experiment
        record = {"uri": self._uri, "run_id": run_id}
        return record if is_server else {**record, "view": f"mlflow ui --backend-store-uri {shlex.quote(self._uri)}"}

    def log(self, metrics: Mapping[str, float], step: int, time: float) -> None:
        """Collect, because a request per step is slower than many steps."""
        self._values += [(name, value, int(time * 1000), step) for name, value in metrics.items()]
        del self._values[:-_QUEUE]

    def flush(self) -> None:
        """Send what was collected, in as few requests as the server takes."""
        self._send(self._run_id, self._values)
        for trial in (self._trials or {}).values():
            self._send(trial.run_id, trial.values)

    def log_validation(self, validation: TrackedValidation) -> None:
        """Collect, as `log` does, unless the step is there already."""
        trial = self._nested(validation.number)
        if trial is not None and trial.is_closed:
            return
        if trial is None:
            trial = self._new_nested(validation.number, _RUNNING, validation.began)
            self._send(trial.run_id, [], validation.params)
        elif not trial.is_running:
            self._client.set_tag(trial.run_id, _STATE, _RUNNING)
            self._client.update_run(trial.run_id, status="RUNNING")
            trial.is_running = True
        if validation.step <= self._last(trial, validation.metrics):
            return
        trial.last = validation.step
        at = int(validation.time * 1000)
        trial.values += [(name, value, at, validation.step) for name, value in validation.metrics.items()]
        del trial.values[:-_QUEUE]

    def log_trial(self, trial: TrackedTrial) -> None:
        """Close the run of a trial: filled and then closed, so one that isn't closed is filled again.

        What counts of the trial is `objective/<metric>`, beside the metric as it was with each validation.
        """
        nested = self._nested(trial.number)
        if nested is not None and nested.is_closed:
            return
        if nested is None:
            nested = self._new_nested(trial.number, trial.state, trial.began)
        ended = int(trial.ended * 1000)
        found = {name: value for name, value in trial.metrics.items() if name not in trial.objectives}
        found |= {f"objective/{name}": value for name, value in trial.objectives.items()}
        if self._last(nested, trial.objectives) < 0:  # its validations are unknown: others compare runs by the metric
            found |= trial.objectives
        self._send(nested.run_id, nested.values)
        self._send(nested.run_id, [(name, value, ended, 0) for name, value in found.items()], trial.params)
        self._client.set_tag(nested.run_id, _STATE, trial.state)
        if trial.is_best:
            self._client.set_tag(self._run_id, "trainmaster.best_trial", str(trial.number))
        self._client.set_terminated(nested.run_id, status=_TRIAL_STATUS.get(trial.state, "FAILED"), end_time=ended)
        nested.is_closed, nested.is_running = True, False

    def _send(
        self, run_id: str, values: list[tuple[str, float, int, int]], params: Mapping[str, str] | None = None
    ) -> None:
        """Send values, which are removed as they are sent, in as few requests as the server takes."""
        from mlflow.entities import Metric, Param

        if params:
            self._client.log_batch(run_id, params=[Param(key, value[:_PARAM_LENGTH]) for key, value in params.items()])
        while values:
            batch = values[:_BATCH]
            self._client.log_batch(run_id, metrics=[Metric(*each) for each in batch])
            del values[: len(batch)]

    def _nested(self, number: int) -> _Nested | None:
        """Return the run of a trial, if there is one."""
        if self._trials is None:
            self._trials = self._known_trials()
        return self._trials.get(number)

    def _new_nested(self, number: int, state: str, began: float) -> _Nested:
        tags = {_PARENT: self._run_id, _TRIAL: str(number), _STATE: state}
        made = self._client.create_run(
            self._experiment, start_time=int(began * 1000), run_name=f"trial-{number:04d}", tags=tags
        )
        assert self._trials is not None
        self._trials[number] = _Nested(made.info.run_id, last=-1)
        return self._trials[number]

    def _last(self, trial: _Nested, metrics: Iterable[str]) -> int:
        """Return the last step of a trial that was logged for one of its metrics; -1: none."""
        if trial.last is None:
            histories = (self._client.get_metric_history(trial.run_id, name) for name in metrics)
            first: list[Any] = next((history for history in histories if history), [])
            trial.last = max((int(each.step) for each in first), default=-1)
        return trial.last

    def _known_trials(self) -> dict[int, _Nested]:
        """Return the runs of trials that are there, by number."""
        from mlflow.entities import ViewType

        which = f"tags.`{_PARENT}` = '{self._run_id}'"
        found: dict[int, _Nested] = {}
        for each in _runs(self._client, self._experiment, which, run_view_type=ViewType.ALL):
            tags, is_running = each.data.tags, each.info.status == "RUNNING"
            if _TRIAL in tags:  # a person may have nested others
                has_ended = tags.get(_STATE) not in (_RUNNING, _STOPPED) and not is_running
                is_deleted = each.info.lifecycle_stage == "deleted"  # by a person, who doesn't want it
                nested = _Nested(each.info.run_id, is_closed=has_ended or is_deleted, is_running=is_running)
                found[int(tags[_TRIAL])] = nested
        return found

    def log_artifacts(self, folder: Path, name: str) -> None:
        """Send the files of a folder."""
        self._client.log_artifacts(self._run_id, str(folder), name)

    def finish(self, outcome: Outcome) -> None:
        """Send the rest and set the status of the run; trials that haven't ended are continued by the next attempt."""
        self.flush()
        for trial in (self._trials or {}).values():
            if not trial.is_closed and trial.is_running:
                self._client.set_tag(trial.run_id, _STATE, _STOPPED)
                self._client.set_terminated(trial.run_id, status="KILLED")
                trial.is_running = False
        self._client.set_terminated(self._run_id, status=_STATUS[outcome])

    def _connect(self) -> Any:
        return connect(self._uri)

    def _known_run(self, client: Any, run: TrackedRun) -> str | None:
        run_id = run.kept.get("run_id", "")
        if not run_id or run.kept.get("uri") != self._uri:
            return None
        with contextlib.suppress(Exception):  # deleted meanwhile: then a new one is made
            client.get_run(run_id)
            client.update_run(run_id, status="RUNNING")
            return run_id
        return None

    def _new_run(self, client: Any, run: TrackedRun) -> str:
        from mlflow.entities import Param

        name = self._settings.experiment or f"{run.namespace}/{run.job}"
        found = client.get_experiment_by_name(name)
        experiment = (
            found.experiment_id if found else client.create_experiment(name, artifact_location=self._artifacts())
        )
        tags = {"trainmaster.job": f"{run.namespace}/{run.job}", "trainmaster.uid": run.uid, "trainmaster.run": run.uri}
        if "code.commit" in run.params:
            tags["mlflow.source.git.commit"] = run.params["code.commit"]  # which its page shows as the version
        run_id = str(client.create_run(experiment, run_name=f"{run.job}-{run.uid[:8]}", tags=tags).info.run_id)
        params = [Param(key, value[:_PARAM_LENGTH]) for key, value in run.params.items()]
        for start in range(0, len(params), 100):  # the server takes so many at once
            client.log_batch(run_id, params=params[start : start + 100])
        return run_id

    def _artifacts(self) -> str | None:
        """Return the artifact location of a new experiment: next to a database file; None: the server's default."""
        if not self._uri.startswith(_SQLITE):
            return None
        return str(Path(self._uri.removeprefix(_SQLITE)).absolute().parent / "mlflow-artifacts")
