"""The arms of the benchmark of trials: `python -m tests.bench.tune_arms ARM WORKERS TRIALS FOLDER`.

Each trial appends when its work began and ended to the file of `BENCH_TIMES`.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

PROGRAM = Path(__file__).parent / "programs" / "sleeper"
AT_A_TIME = 2
"""Workers: two trials of one, or one of two."""


def work(x: float) -> float:
    """Take as long as the model does; return the trial's result."""
    began = time.time()
    time.sleep(float(os.environ["BENCH_WORK"]))
    with Path(os.environ["BENCH_TIMES"]).open("a") as file:
        file.write(f"{began} {time.time()}\n")
    return (x - 0.3) ** 2


def trainmaster(workers: int, trials: int, folder: Path) -> None:
    """A search of `trainmaster run`: each trial builds data and model, trains, validates and reports."""
    shutil.copytree(PROGRAM, folder / "src")
    job: dict[str, Any] = {
        "apiVersion": "trainmaster.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "bench"},
        "spec": {
            "training": {
                "code": {"path": "src"},
                "task": {"name": "classification", "numClasses": 10},
                "data": {"source": "sklearn:digits", "batchSize": 1024 // workers},
                "model": {"class": "sleeper:Sleeper"},
                "loop": {"duration": "1ep"},
            },
            "tuning": {
                "objectives": [{"metric": "val/loss"}],
                "space": {"model.args.x": {"min": 0, "max": 1, "type": "float"}},
                "search": {"algorithm": "random"},
                "budget": {"maxTrials": trials},
                "trial": {"workers": workers},
                "finalRun": {"enabled": False},
            },
            "cluster": {"workers": {"count": AT_A_TIME}},
        },
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    subprocess.run([sys.executable, "-m", "trainmaster_cli.main", "run", "job.yaml", "--plain"], cwd=folder, check=True)


def optuna(workers: int, trials: int, folder: Path) -> None:
    """Optuna's own loop in one process: nothing is placed anywhere."""
    import optuna as library

    study = library.create_study(sampler=library.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: work(trial.suggest_float("x", 0, 1)), n_trials=trials, n_jobs=AT_A_TIME)


def function(workers: int, trials: int, folder: Path) -> None:
    """Ray Tune with a function in each trial."""
    _tune(lambda config: _report(work(config["x"])), trials, folder, {"cpu": 1}, AT_A_TIME)


def reused(workers: int, trials: int, folder: Path) -> None:
    """The same, with actors that are kept."""
    _tune(lambda config: _report(work(config["x"])), trials, folder, {"cpu": 1}, AT_A_TIME, reuse=True)


def torchtrainer(workers: int, trials: int, folder: Path) -> None:
    """Ray Tune with a TorchTrainer in each trial."""
    from ray import train
    from ray.train.torch import TorchTrainer

    def each(config: dict[str, float]) -> None:
        if train.get_context().get_world_rank() == 0:
            value = work(config["x"])
        else:
            time.sleep(float(os.environ["BENCH_WORK"]))
            value = 0.0
        train.report({"loss": value})

    def trial(config: dict[str, float]) -> None:
        scaling = train.ScalingConfig(num_workers=workers)
        storage = train.RunConfig(storage_path=str(folder), name=f"{random.getrandbits(64):x}")
        found = TorchTrainer(each, train_loop_config=config, scaling_config=scaling, run_config=storage).fit()
        assert found.metrics is not None
        _report(found.metrics["loss"])

    _tune(trial, trials, folder, {"cpu": 0.01}, AT_A_TIME // workers)


def _report(value: float) -> None:
    from ray import tune

    tune.report({"loss": value})


def _tune(
    trial: Any, trials: int, folder: Path, resources: dict[str, float], parallel: int, *, reuse: bool = False
) -> None:
    import ray
    from ray import tune

    ray.init(num_cpus=AT_A_TIME + 1, include_dashboard=False, log_to_driver=False)
    settings = tune.TuneConfig(
        num_samples=trials, metric="loss", mode="min", max_concurrent_trials=parallel, reuse_actors=reuse
    )
    tuner = tune.Tuner(
        tune.with_resources(trial, resources), param_space={"x": tune.uniform(0, 1)}, tune_config=settings,
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )  # fmt: skip
    tuner.fit()
    ray.shutdown()


ARMS = {
    "trainmaster": trainmaster, "function": function, "reused": reused, "torchtrainer": torchtrainer, "optuna": optuna,
}  # fmt: skip


if __name__ == "__main__":
    ARMS[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
