"""MLflow as a view of the run, from a thread of its own. A dead server costs a warning, never the run."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from trainmaster_api.layout import MODEL
from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.errors import TrainingError
from trainmaster_trainer.reporting.state import Event, Hub
from trainmaster_trainer.storage.store import Store

RUN_FILE = "mlflow.json"  # in the run's storage: which MLflow run goes on after a resume
_FLUSH_SECONDS = 2.0
_AGAIN_SECONDS = 15.0
_BATCH = 500
_QUEUE = 20_000
_PARAM_LENGTH = 500
_LAST_SECONDS = 30.0
_LAST_SECONDS_SQLITE = 120.0  # a file can't be away; making its tables takes a while on a slow machine
_STATUS = {Outcome.COMPLETE: "FINISHED", Outcome.STOPPED: "KILLED", Outcome.FAILED: "FAILED"}


def flatten(data: Any, prefix: str = "") -> dict[str, str]:
    """Nested data as dotted names: `optimizer.lr` -> `0.001`."""
    if isinstance(data, dict):
        found: dict[str, str] = {}
        for key, value in data.items():
            found |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return found
    return {prefix: str(data)[:_PARAM_LENGTH]}


class MlflowTrack:
    """Starts with the first step, so that its import doesn't slow the start."""

    def __init__(self, uri: str, experiment: str, artifacts: str, job: TrainingJob, hub: Hub, run: Store) -> None:
        """Prepare; nothing is imported yet.

        Args:
            uri: Tracking server or sqlite file.
            experiment: Name of the experiment; made if there is none.
            artifacts: Where a new experiment keeps artifacts; empty: where the server says.
            job: What is trained.
            hub: Told of the run id and of warnings.
            run: Store of the run.
        """
        self._uri, self._experiment, self._artifacts = uri, experiment, artifacts
        self._job, self._hub, self._run = job, hub, run
        self._lock = threading.Lock()
        self._metrics: list[tuple[str, float, int, int]] = []
        self._wake = threading.Event()
        self._end: ExitMessage | None = None
        self._warned = False
        self._client: Any = None
        self._run_id = ""
        self._logged_step = -1
        self._thread = threading.Thread(target=self._loop, name="mlflow", daemon=True)

    def show(self, event: Event) -> None:
        """Take the metrics of a report."""
        if event["event"] != "report" or event["kind"] not in ("FirstStep", "Step", "Validation"):
            return
        step, stamp = int(event["step"]), int(time.time() * 1000)
        with self._lock:
            if step > self._logged_step or event["kind"] == "Validation":
                self._logged_step = max(step, self._logged_step)
                # a report repeats the last validation until the next one: that is no value of this step
                measured = "" if event["kind"] == "Validation" else "train/"
                found = {k: v for k, v in event["metrics"].items() if k.startswith(measured) and math.isfinite(v)}
                values = [(k, v, stamp, step) for k, v in found.items()]
                self._metrics = (self._metrics + values)[-_QUEUE:]
        if not self._thread.is_alive() and self._thread.ident is None:
            self._thread.start()

    def close(self, message: ExitMessage) -> None:
        """Record the end; gives up after a while, so that a dead server can't hold up the end of the run."""
        self._end = message
        self._wake.set()
        if self._thread.ident is None:
            if message.outcome is not Outcome.COMPLETE:
                return  # it ended before the first step: there is nothing to look at
            self._thread.start()
        limit = _LAST_SECONDS_SQLITE if self._uri.startswith("sqlite") else _LAST_SECONDS
        self._thread.join(timeout=limit)
        if self._thread.is_alive():
            self._warn(f"no answer for {limit:.0f} s")

    def _loop(self) -> None:
        while True:
            try:
                if self._client is None:
                    self._connect()
                self._flush()
                if self._end is not None:
                    self._finish(self._end)
                    return
                pause = _FLUSH_SECONDS
            except Exception as error:  # noqa: BLE001 - MLflow's errors have no common base, and none may reach the run
                self._warn(f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error) else ''}")
                if self._end is not None:
                    return
                pause = _AGAIN_SECONDS
            self._wake.wait(pause)

    def _connect(self) -> None:
        # set before the import: MLflow reads them then; its own patience is minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        import logging

        from mlflow import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        client = MlflowClient(tracking_uri=self._uri)
        run_id = self._known_run(client)
        if run_id is None:
            found = client.get_experiment_by_name(self._experiment)
            experiment = (
                found.experiment_id
                if found
                else client.create_experiment(self._experiment, artifact_location=self._artifacts or None)
            )
            run_id = self._new_run(client, experiment)
        self._client, self._run_id = client, run_id
        self._hub.mlflow_run = run_id
        self._hub.emit("mlflow", run_id=run_id, uri=self._uri, experiment=self._experiment)

    def _known_run(self, client: Any) -> str | None:
        content = self._run.get(RUN_FILE)
        known = json.loads(content) if content else {}
        if known.get("uri") != self._uri:
            return None
        with contextlib.suppress(Exception):  # deleted meanwhile: then a new one is made
            client.get_run(known["run_id"])
            client.update_run(known["run_id"], status="RUNNING")
            return str(known["run_id"])
        return None

    def _new_run(self, client: Any, experiment: str) -> str:
        from mlflow.entities import Param

        meta = self._job.metadata
        tags = {
            "trainmaster.job": f"{meta.namespace}/{meta.name}",
            "trainmaster.uid": meta.uid,
            "trainmaster.run": self._run.uri,
        }
        run_id = str(client.create_run(experiment, run_name=f"{meta.name}-{meta.uid[:8]}", tags=tags).info.run_id)
        params = flatten(self._job.spec.training.wire())
        params["workers"] = str(self._job.spec.cluster.workers.count)
        client.log_batch(run_id, params=[Param(key, value) for key, value in params.items()])
        self._run.put(RUN_FILE, json.dumps({"uri": self._uri, "run_id": run_id}).encode())
        return run_id

    def _flush(self) -> None:
        from mlflow.entities import Metric

        while True:
            with self._lock:
                batch = self._metrics[:_BATCH]
            if not batch:
                return
            self._client.log_batch(self._run_id, metrics=[Metric(*values) for values in batch])
            with self._lock:
                self._metrics = self._metrics[len(batch) :]

    def _finish(self, message: ExitMessage) -> None:
        for name, value in message.test_metrics.items():
            self._client.log_metric(self._run_id, name, value, step=message.step or 0)
        if message.outcome is Outcome.COMPLETE:
            with tempfile.TemporaryDirectory() as folder, contextlib.suppress(TrainingError):
                for path, _ in self._run.list(MODEL):
                    self._run.download(path, Path(folder) / path)
                self._client.log_artifacts(self._run_id, str(Path(folder) / MODEL), MODEL)
        self._client.set_terminated(self._run_id, status=_STATUS[message.outcome])

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self._hub.emit("warning", message=f"MLflow at {self._uri} is left out for now ({text}); training goes on")
