"""Ray and Ray Train: the only module besides the worker's that imports them."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from trainmaster_api.trainingjob import TrainingJob

from .classify import group_failure
from .control import ask
from .hub import Hub
from .raycluster import WORKER_RESOURCE, is_listening
from .raystart import be_patient
from .settings import DriverSettings
from .worker import train_loop

_TICK = 0.1
_DECISION_SECONDS = 60.0


class Decider(UserCallback):
    """Runs in Ray Train's controller: asks the driver whether a failed group may be replaced.

    Ray Train retries whatever happens; raising here is its one way to end a run.
    """

    def __init__(self, address: tuple[str, int], token: str) -> None:
        self._address = address
        self._token = token

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called with the errors of the ranks."""
        failure = group_failure(worker_exceptions)
        message = {"type": "failure", "failure": asdict(failure)}
        answer = ask(self._address, self._token, "controller", message, _DECISION_SECONDS)
        recover = answer["recover"] if answer else failure.recoverable
        if not recover:
            raise RuntimeError(failure.message)


class _NoAutoscaler(FixedScalingPolicy):
    """Workers are made by the operator, so nobody is asked for more nodes.

    Ray's own policy asks an actor for them, which on a busy head costs 114 MB and up to 5 s before the workers start.
    """

    def after_controller_start(self, train_run_context: Any) -> None:
        """Nothing to register."""

    def _maybe_send_resource_request(self) -> None:
        """Nobody to send it to."""


class _Trainer(DataParallelTrainer):
    """Without helpers that have nothing to do here, each a process of 115 MB that costs a second to start.

    One hands out Ray Data sets, which we have none of; one removes placement groups of dead controllers, but here the
    whole cluster ends with the driver; one speaks to the autoscaler.
    """

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        arguments["scaling_policy"] = _NoAutoscaler(self.scaling_config)  # type: ignore[arg-type]
        return super()._initialize_and_run_controller(**arguments)

    def _create_default_callbacks(self) -> list[Any]:
        found = super()._create_default_callbacks()
        return [one for one in found if not isinstance(one, DatasetsCallback | PlacementGroupCleanerCallback)]


def connect(settings: DriverSettings, job: TrainingJob, token: str, hub: Hub) -> None:
    """Join the cluster, or start one on this machine, and wait until every worker's node is there."""
    if settings.ray_address:
        host, port = settings.ray_address.rsplit(":", 1)
        while not is_listening(host, int(port)):
            time.sleep(_TICK)
        _join(settings.ray_address)
        while _workers() < settings.workers:
            time.sleep(_TICK)
    else:
        _start(settings, token)


def fit(settings: DriverSettings, job: TrainingJob, config: dict[str, Any], token: str) -> dict[str, Any]:
    """Train with Ray Train; workers that are lost are replaced, from the newest checkpoint.

    Returns:
        What rank 0 returned.
    """
    resources: dict[str, float] = {"CPU": 1}
    if job.spec.cluster.workers.gpus and settings.ray_address:
        resources["GPU"] = job.spec.cluster.workers.gpus
    if settings.ray_address:
        resources[WORKER_RESOURCE] = 1
    trainer = _Trainer(
        train_loop,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=settings.workers, resources_per_worker=resources),
        run_config=RunConfig(
            name=f"{job.metadata.name}-{settings.attempt}",
            # Ray keeps nothing of ours there: checkpoints are ours alone
            storage_path=str(Path(settings.scratch) / "ray-train"),
            failure_config=FailureConfig(max_failures=-1),
            callbacks=[Decider(tuple(config["control"]), token)],  # type: ignore[list-item]
        ),
    )
    result: Any = trainer.fit()
    found: dict[str, Any] = result.return_value
    return found


def wait_until_gone(ip: str, seconds: float) -> None:
    """Until no node has this address any more, or time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(node["NodeManagerAddress"] == ip for node in _nodes()):
        time.sleep(_TICK)


def _join(address: str) -> None:
    """The raylet of this host may come a moment after the GCS."""
    while True:
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=True)
            return
        except (ConnectionError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "raylet" not in str(error).lower():
                raise
            time.sleep(_TICK)


def _start(settings: DriverSettings, token: str) -> None:
    os.environ["RAY_AUTH_TOKEN"] = token
    be_patient()
    ray.init(
        address="local",
        num_cpus=settings.workers,
        num_gpus=0,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _temp_dir=str(Path(settings.scratch) / "r"),
    )


def _workers() -> int:
    return sum(WORKER_RESOURCE in node["Resources"] for node in _nodes())


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
