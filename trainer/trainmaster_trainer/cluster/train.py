"""Ray and Ray Train: the only module besides the worker's that imports them."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import state, worker_group
from ray.train.v2.api.config import FailureConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.failures import Failure, group_failure
from trainmaster_trainer.ipc.settings import DriverSettings

from .commands import OBJECT_STORE_BYTES, WORKER_RESOURCE, is_listening
from .entry import train_loop
from .node import start

_TICK = 0.1


class _Policy(FailurePolicy):
    """Asks the driver whether a group of workers that failed may be replaced."""

    def __init__(self, may_recover: Callable[[Failure], bool]) -> None:
        super().__init__(FailureConfig())  # its limits are not ours
        self._may_recover = may_recover

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """Called by the controller for every error of a rank, of a start, and of its own."""
        return FailureDecision.RETRY if self._may_recover(cause(training_failed_error)) else FailureDecision.RAISE


class _NoAutoscaler(FixedScalingPolicy):
    """Workers are made by the operator, so nobody is asked for more nodes.

    Ray's own policy asks an actor for them, which on a busy head costs 114 MB and up to 5 s before the workers start.
    """

    def after_controller_start(self, train_run_context: Any) -> None:
        """Nothing to register."""

    def _maybe_send_resource_request(self) -> None:
        """Nobody to send it to."""


class _Name:
    """In place of the actor through which the ranks of a group would meet: a name under which they do it with us.

    That actor is a process of 115 MB on the head that costs 2 s of CPU for each group, for one message.
    """

    @classmethod
    def options(cls, **options: Any) -> type[_Name]:
        """Nothing to choose."""
        return cls

    @staticmethod
    def remote(**arguments: Any) -> str:
        """What the ranks get as their synchronization actor."""
        return uuid.uuid4().hex


# the only two places where a group makes and ends that actor; there is no setting for it
worker_group.SynchronizationActor = _Name  # type: ignore[attr-defined, assignment]
state._shutdown_sync_actor = lambda sync_actor: None


class _Group(worker_group.WorkerGroup):
    """The ranks, without a handle of the controller: it is no actor, and they have nothing to ask it."""

    def _init_train_context_on_workers(self, workers: Any, sync_actor: Any, train_context_args: Any) -> None:
        started = []
        for number, worker in enumerate(workers):
            own = {name: values[number] for name, values in train_context_args.items()}
            started.append(
                worker.actor.init_train_context.remote(
                    train_run_context=self._train_run_context,
                    distributed_context=worker.distributed_context,
                    synchronization_actor=sync_actor,
                    storage_context=self._storage_context,
                    worker_callbacks=self._worker_callbacks_to_propagate,
                    controller_actor=None,
                    **own,
                )
            )
        ray.get(started)


class _Controller(TrainController):
    worker_group_cls = _Group


class _Trainer(DataParallelTrainer):
    """Without helpers that have nothing to do here, each a process of 115 MB that costs a second to start.

    One hands out Ray Data sets, which we have none of; one removes placement groups of dead controllers, but here the
    whole cluster ends with the driver; one speaks to the autoscaler. And the controller, which is an actor so that it
    outlives its driver, runs in the driver: here neither is of use without the other.
    """

    def __init__(self, may_recover: Callable[[Failure], bool], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._may_recover = may_recover

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        arguments["scaling_policy"] = _NoAutoscaler(self.scaling_config)  # type: ignore[arg-type]
        arguments["failure_policy"] = _Policy(self._may_recover)
        controller = _Controller(**arguments)
        asyncio.run(controller.run())  # type: ignore[no-untyped-call]
        return controller.get_result()

    def _create_default_callbacks(self) -> list[Any]:
        found = super()._create_default_callbacks()
        return [one for one in found if not isinstance(one, DatasetsCallback | PlacementGroupCleanerCallback)]


def cause(error: TrainingFailedError) -> Failure:
    """What is behind an error of Ray Train's."""
    if isinstance(error, WorkerGroupError):
        return group_failure(error.worker_failures)
    behind = error.controller_failure if isinstance(error, ControllerError) else error
    if isinstance(behind, WorkerGroupStartupFailedError):
        return Failure(FailureClass.WORKER_LOST, "a worker was lost while the ranks started", recoverable=True)
    lines = str(behind).strip().splitlines()
    message = f"Ray Train failed: {type(behind).__name__}: {lines[0] if lines else ''}"
    return Failure(FailureClass.INTERNAL_ERROR, message, last_lines=lines[-12:])


def connect(settings: DriverSettings, token: str) -> None:
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


def fit(
    settings: DriverSettings, job: TrainingJob, config: dict[str, Any], may_recover: Callable[[Failure], bool]
) -> dict[str, Any]:
    """Train with Ray Train; workers that are lost are replaced, from the newest checkpoint.

    Args:
        settings: Of the driver.
        job: What to train.
        config: Goes to `train_loop`.
        may_recover: Asked for every failure; False ends the run.

    Returns:
        What rank 0 returned.
    """
    resources: dict[str, float] = {"CPU": 1}
    if job.spec.cluster.workers.gpus and settings.ray_address:
        resources["GPU"] = job.spec.cluster.workers.gpus
    if settings.ray_address:
        resources[WORKER_RESOURCE] = 1
    trainer = _Trainer(
        may_recover,
        train_loop,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=settings.workers, resources_per_worker=resources),
        run_config=RunConfig(
            name=f"{job.metadata.name}-{settings.attempt}",
            # Ray keeps nothing of ours there: checkpoints are ours alone
            storage_path=str(Path(settings.scratch) / "ray-train"),
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
    parameters = {
        "num_cpus": settings.workers,
        "num_gpus": 0,
        "object_store_memory": OBJECT_STORE_BYTES,
        "temp_dir": str(Path(settings.scratch) / "r"),  # short, because sockets lie there
        "include_log_monitor": False,
    }
    node = start(head=True, parameters=parameters, ends_with_us=False)
    ray.init(address=node.gcs_address, logging_level=logging.ERROR, log_to_driver=False)


def _workers() -> int:
    return sum(WORKER_RESOURCE in node["Resources"] for node in _nodes())


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
