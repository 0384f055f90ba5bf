"""Ray Tune, by its public API: it places trials, keeps their actors from trial to trial and retries those it lost.

What is tried, what is stopped and what is remembered is decided by a `Decider`, in the driver. Tune's own state is
never restored: it lies in a scratch folder.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from trainmaster_api import names
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.ipc import auth
from trainmaster_trainer.ipc.environment import ENV_FRAMEWORK
from trainmaster_trainer.ipc.messages import Hello, Placement
from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.kernel import cores
from trainmaster_trainer.tuning.trials import NUMBER

from .commands import WORKER_RESOURCE
from .tune_storage import local_storage

_LAPTOP_HOST = "127.0.0.1"
# Tune's loggers cost 490 MB in the driver and write what our journal has; its results are read one by one
_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class Decider(Protocol):
    """Decides about trials; called in the thread that runs `search`."""

    def suggest(self) -> dict[str, Any] | None:
        """Return what the next trial gets, `NUMBER` among it; None: nothing now."""

    @property
    def is_over(self) -> bool:
        """Whether no trial will be suggested any more."""

    def report(self, number: int, result: Mapping[str, Any]) -> bool:
        """Take a trial's validation; return whether the trial ends."""

    def ended(self, number: int, result: Mapping[str, Any] | None, *, is_lost: bool) -> None:
        """Take the end of a trial. `is_lost`: its actor is gone."""


class Runner(Protocol):
    """Runs one trial after another, in an actor of Tune's."""

    def begin(self, config: Mapping[str, Any]) -> bool:
        """Begin a trial; a former one ends. Returns False to be replaced by a new actor."""

    def step(self) -> dict[str, Any]:
        """Wait for the next validation or the end, `done`."""

    def close(self) -> None:
        """End everything."""


class _Unsaved:
    """Tune saves its searcher and its scheduler with its own state, from which nothing is ever restored."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _TuneSearcher(_Unsaved, Searcher):
    def __init__(self, decider: Decider) -> None:
        super().__init__()
        self._decider = decider
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        found = self._decider.suggest()
        if found is None:
            return Searcher.FINISHED if self._decider.is_over else None
        self._numbers[trial_id] = found[NUMBER]
        return found

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self._numbers.pop(trial_id, None)
        if number is not None:
            self._decider.ended(number, result, is_lost=error)

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the journal is the truth."""
        Path(checkpoint_path).write_text("")

    def restore(self, checkpoint_path: str) -> None:
        """Never happens."""


class _TuneScheduler(_Unsaved, FIFOScheduler):
    def __init__(self, decider: Decider) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._decider = decider

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        stops = self._decider.report(result[NUMBER], result)
        return str(self.STOP if stops else self.CONTINUE)


class _TuneTrial(tune.Trainable):
    """An actor that stays up from trial to trial."""

    def setup(self, config: dict[str, Any], make: Callable[[], Runner] | None = None) -> None:
        assert make is not None
        self._runner = make()
        self._runner.begin(config)

    def step(self) -> dict[str, Any]:
        return self._runner.step()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return self._runner.begin(new_config)

    def cleanup(self) -> None:
        self._runner.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Keep nothing: a trial has checkpoints of its own."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Load nothing."""


def search(
    settings: DriverSettings, job: TrainingJob, decider: Decider, make: Callable[[], Runner], parallel: int
) -> None:
    """Run trials until the decider has no more.

    Args:
        settings: Of the driver.
        job: With a search.
        decider: Decides.
        make: Makes what runs trials, in an actor; it is sent there.
        parallel: Trials at the same time.
    """
    os.environ.update(_SETTINGS)
    tuning = job.spec.tuning
    assert tuning is not None
    bundle: dict[str, float] = {"CPU": 1}
    if settings.ray_address:
        bundle[WORKER_RESOURCE] = 1
        if job.spec.cluster.workers.gpus:
            bundle["GPU"] = job.spec.cluster.workers.gpus
    resources = tune.PlacementGroupFactory([bundle] * tuning.trial.workers, strategy="PACK")
    trainable = tune.with_resources(tune.with_parameters(_TuneTrial, make=make), resources)
    tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            num_samples=-1,
            max_concurrent_trials=parallel,
            reuse_actors=True,
            search_alg=_TuneSearcher(decider),
            scheduler=_TuneScheduler(decider),
        ),
        run_config=tune.RunConfig(
            name=f"{job.metadata.name}-{settings.attempt}",
            storage_path=str(Path(settings.scratch) / "ray-tune"),
            storage_filesystem=local_storage(),
            # a trial that Tune has lost is suggested again: Tune itself gives up one that a dead actor was to begin
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    ).fit()


def agents(settings: DriverSettings, job: TrainingJob) -> tuple[str, Callable[[int, str], TrialAgents]]:
    """Return the address of this host, and what makes the agents of its trials from a port and a token."""
    assert job.spec.tuning is not None
    in_cluster = bool(settings.ray_address)
    workers = job.spec.cluster.workers.count
    placement = Placement(
        rank=0,
        world_size=job.spec.tuning.trial.workers,
        pod=os.environ.get(names.ENV_POD_NAME, ""),
        attempt=settings.attempt,
        storage_uri=settings.storage_uri,
        base_dir=settings.base_dir,
        code_dir=settings.code_dir,
        work_dir=settings.work_dir,
        in_cluster=in_cluster,
        # as many threads whatever else runs: their number decides the order of sums
        cpus=settings.worker_cpus or (None if in_cluster else max(1, cores() // workers)),
    )
    address = host(placement)
    count = job.spec.tuning.trial.workers

    def make(port: int, token: str) -> TrialAgents:
        return TrialAgents(job, placement, count, (address, port), token)

    return address, make


class TrialAgents:
    """The agents of an actor's trials, one in each bundle of its placement group.

    The first is a thread of this process. They are started as a group, and as a group again when one of them has ended.
    """

    def __init__(
        self, job: TrainingJob, placement: Placement, count: int, control: tuple[str, int], token: str
    ) -> None:
        """Say which agents there are.

        Args:
            job: What they train unless they are told otherwise.
            placement: Of the first.
            count: How many.
            control: Where they find whom they obey.
            token: What they prove to know there.
        """
        self._job, self._placement, self._count = job, placement, count
        self._control, self._token = control, token
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="agents", daemon=True)

    def start(self) -> None:
        """Start them."""
        self._thread.start()

    def close(self) -> None:
        """Start no more; those that are there end with the connection."""
        self._is_closed = True

    def _run(self) -> None:
        while not self._is_closed:
            group = uuid.uuid4().hex
            others = [self._remote(index, group) for index in range(1, self._count)]
            run_one(self._job, self._place(0), self._control, self._token, group)
            for other in others:
                ray.kill(other)

    def _place(self, index: int) -> Placement:
        of_host = {} if self._placement.in_cluster else {"local_rank": index, "local_world_size": self._count}
        group_rank = index if self._placement.in_cluster else 0
        update = {"rank": index, "world_size": self._count, "group_rank": group_rank, **of_host}
        return self._placement.model_copy(update=update)

    def _remote(self, index: int, group: str) -> Any:
        group_of_trial = get_current_placement_group()
        assert group_of_trial is not None
        strategy = PlacementGroupSchedulingStrategy(group_of_trial, placement_group_bundle_index=index)
        gpus = self._job.spec.cluster.workers.gpus if self._placement.in_cluster else 0
        actor = _RemoteAgent.options(  # type: ignore[attr-defined]
            scheduling_strategy=strategy, num_gpus=gpus
        ).remote()
        actor.run.remote(self._job.wire(), self._place(index).wire(), self._control, self._token, group)
        return actor


@ray.remote(num_cpus=1, max_restarts=0)
class _RemoteAgent:
    def run(
        self, job: dict[str, Any], placement: dict[str, Any], control: tuple[str, int], token: str, group: str
    ) -> None:
        pod = os.environ.get(names.ENV_POD_NAME, "")
        place = Placement.model_validate({**placement, "pod": pod})
        run_one(TrainingJob.model_validate(job), place, control, token, group)


def run_one(job: TrainingJob, placement: Placement, control: tuple[str, int], token: str, group: str) -> None:
    """Run an agent until it is told to end or whom it obeys is gone."""
    from .agent import Agent, Retired

    environment = {**os.environ, ENV_FRAMEWORK: job.spec.training.backend}
    hello = Hello(
        role="agent", rank=placement.rank, group=group, pod=placement.pod, host=host(placement), pid=os.getpid()
    )  # fmt: skip
    try:
        Agent(auth.connect(control, token), hello, job, placement, environment).run()
    except (Retired, OSError):
        return


def host(placement: Placement) -> str:
    """Return the address of this host that other ranks reach."""
    if not placement.in_cluster:
        return _LAPTOP_HOST
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
