"""Ray and Ray Train, by their public API: join or start a cluster, run an agent in every worker, see that it lives."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import train
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig

# where Ray's reference documents the class of Train V2; `ray.train` has no other name for it
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import PlacementGroup, remove_placement_group
from trainmaster_api import names
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.ipc import auth
from trainmaster_trainer.ipc.environment import ENV_FRAMEWORK
from trainmaster_trainer.ipc.messages import Hello, Placement
from trainmaster_trainer.ipc.settings import DriverSettings

from . import first_rank
from .commands import OBJECT_STORE_BYTES, WORKER_RESOURCE, is_listening

_TICK = 0.1
_WATCH_SECONDS = 0.5
_PATIENCE_SECONDS = 5.0
_LAPTOP_HOST = "127.0.0.1"
_JOB = {"worker_process_setup_hook": first_rank.HOOK}


class ControllerLost(Exception):  # noqa: N818 - an event more than an error
    """The process of Ray Train's controller has ended."""


def connect(settings: DriverSettings, job: TrainingJob) -> None:
    """Join the cluster, or start one on this machine.

    The nodes of the workers may come later: until then Ray Train starts what it needs on the head.
    """
    # Ray adds the working directory to the module path of its workers, in front of Python's own modules; it may be
    # the user's, so go to one that has no modules in it
    os.chdir(settings.scratch)
    if settings.ray_address:
        host, port = settings.ray_address.rsplit(":", 1)
        while not is_listening(host, int(port)):
            time.sleep(_TICK)
        _join(settings.ray_address)
        return
    ray.init(
        num_cpus=job.spec.cluster.workers.count,
        num_gpus=0,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        runtime_env=_JOB,
    )


def run_agents(
    settings: DriverSettings,
    job: TrainingJob,
    control_port: int,
    function: Callable[[dict[str, Any]], Any] | None = None,
) -> None:
    """Have Ray Train run an agent per rank, again and again where agents are lost. Returns only when they have ended.

    Args:
        settings: Of the driver.
        job: What to train.
        control_port: Where the driver listens for the agents.
        function: What to run in place of an agent, in a test.

    Raises:
        ControllerLost: Ray Train's controller is gone; another one may do.
        Exception: Ray Train gave up, which it does for faults of its own only.
    """
    resources: dict[str, float] = {"CPU": 1}
    if job.spec.cluster.workers.gpus and settings.ray_address:
        resources["GPU"] = job.spec.cluster.workers.gpus
    if settings.ray_address:
        resources[WORKER_RESOURCE] = 1
    config = {
        "job": job.wire(),
        "attempt": settings.attempt,
        "storage_uri": settings.storage_uri,
        "base_dir": settings.base_dir,
        "code_dir": settings.code_dir,
        "work_dir": settings.work_dir,
        "control": [settings.host, control_port],
        "in_cluster": bool(settings.ray_address),
        "cpus": settings.worker_cpus,
    }
    trainer = DataParallelTrainer(
        function or run_agent,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=job.spec.cluster.workers.count, resources_per_worker=resources),
        run_config=RunConfig(  # type: ignore[call-arg]  # the stub is that of the former API
            name=f"{job.metadata.name}-{settings.attempt}",
            # Ray keeps nothing of ours there: checkpoints are ours alone
            storage_path=str(Path(settings.scratch) / "ray-train"),
            # whether to go on is the driver's to say: it ends the attempt, and with it this trainer
            failure_config=FailureConfig(max_failures=-1),  # other failures have no limit by default
            worker_runtime_env={"env_vars": {ENV_FRAMEWORK: job.spec.training.backend}},
        ),
    )
    try:
        trainer.fit()
    except RayActorError as error:
        _remove_placement_groups()
        raise ControllerLost("Ray Train's controller was killed") from error


def _remove_placement_groups() -> None:
    """Release what a lost controller has reserved, or the next one would wait for it.

    Ray Train starts a process that is to do so, but that one asks the dashboard whether the controller lives, and on a
    laptop there is no dashboard. Nothing but our own groups of agents is in this cluster.
    """
    groups: dict[str, dict[str, Any]] = ray.util.placement_group_table()
    for number, group in groups.items():
        if group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(number)))


def run_agent(config: dict[str, Any]) -> None:
    """What Ray Train runs in each of its workers.

    Args:
        config: What `run_agents` makes of the job and the settings.
    """
    from .agent import Agent

    job = TrainingJob.model_validate(config["job"])
    where = train.get_context()
    placement = Placement(
        rank=where.get_world_rank(),
        world_size=where.get_world_size(),
        local_rank=where.get_local_rank(),
        local_world_size=where.get_local_world_size(),
        group_rank=where.get_node_rank(),
        pod=os.environ.get(names.ENV_POD_NAME, ""),
        attempt=config["attempt"],
        storage_uri=config["storage_uri"],
        base_dir=config["base_dir"],
        code_dir=config["code_dir"],
        work_dir=config["work_dir"],
        in_cluster=config["in_cluster"],
        cpus=config["cpus"],
    )
    host = str(ray.util.get_node_ip_address()) if config["in_cluster"] else _LAPTOP_HOST  # type: ignore[no-untyped-call]
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text()
    # every group of workers has a placement group of its own
    group = str(ray.get_runtime_context().get_placement_group_id())
    hello = Hello(role="agent", rank=placement.rank, group=group, pod=placement.pod, host=host, pid=os.getpid())
    driver = auth.connect(tuple(config["control"]), token)
    Agent(driver, hello, job, placement, os.environ, first=first_rank.take()).run()


class Processes:
    """Ray's processes on this machine, seen from outside.

    The driver's own Ray library notices only after many seconds that they are gone, and then ends the process or waits.
    """

    def __init__(self) -> None:
        context = ray.get_runtime_context()
        host, port = context.gcs_address.rsplit(":", 1)
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        own = next(node for node in nodes if node["NodeID"] == context.get_node_id())
        self._parts = {
            "Ray's control service (gcs_server)": (host, int(port)),
            "Ray's node process (raylet)": (own["NodeManagerAddress"], own["NodeManagerPort"]),
        }

    def missing(self) -> str | None:
        """Return which process is gone; None while all are there."""
        for part, (host, port) in self._parts.items():
            if not is_listening(host, port, _PATIENCE_SECONDS) and not is_listening(host, port, _PATIENCE_SECONDS):
                return part
        return None

    def watch(self) -> str:
        """Wait until one is gone. Returns which."""
        while (part := self.missing()) is None:
            time.sleep(_WATCH_SECONDS)
        return part


def wait_for_workers(settings: DriverSettings, job: TrainingJob) -> None:
    """Wait until every worker's node is there."""
    while not has_all_workers(settings, job):
        time.sleep(_TICK)


def has_all_workers(settings: DriverSettings, job: TrainingJob) -> bool:
    """Return whether every worker's node is there; on a laptop it is this machine."""
    if not settings.ray_address:
        return True
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    workers = [node for node in nodes if node["Alive"] and WORKER_RESOURCE in node["Resources"]]
    return len(workers) >= job.spec.cluster.workers.count


def _join(address: str) -> None:
    """The raylet of this host may come a moment after the GCS."""
    while True:
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=True, runtime_env=_JOB)
            return
        except (ConnectionError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "raylet" not in str(error).lower():
                raise
            time.sleep(_TICK)
