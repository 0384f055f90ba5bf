"""Searches that were run, with trials that are computed instead of trained."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.tuning.plan import validations
from trainmaster_api.tuning.space import axes_of
from trainmaster_cli.main import _parser
from trainmaster_cli.tune.commands import run as run_command
from trainmaster_trainer.driver.local import LocalRun
from trainmaster_trainer.storage.store import Store
from trainmaster_trainer.tuning.journal import Journal
from trainmaster_trainer.tuning.study import Study
from trainmaster_trainer.tuning.trials import Decision, TrialEnd

from tests.factories import Json, load_example, parse

OPTIONS = {
    "storage": None, "tracking": "local", "trackers": [], "workers": None, "fresh": False, "plain": True,
}  # fmt: skip
LRS = [0.04, 0.01, 0.02, 0.005]
SPACE = {"optimizer.lr": {"values": LRS}}


def job_with(**tuning: Any) -> Json:
    """The example over a list of rates that are tried in their order, whose loss is the distance from 0.01."""
    job = load_example("search")
    job["spec"]["tuning"] = {
        "objectives": [{"metric": "val/loss"}], "space": SPACE,
        "warmStart": {"points": [{"optimizer.lr": lr} for lr in LRS]}, "budget": {"maxTrials": 4}, **tuning,
    }  # fmt: skip
    return job


def written(job: Json, file: str = "job.yaml") -> Json:
    Path(file).write_text(yaml.safe_dump(job, sort_keys=False))
    return job


def began(job: Json, file: str = "job.yaml", workers: int | None = None) -> Store:
    """The run that `trainmaster run` makes of a file."""
    run = LocalRun(argparse.Namespace(file=file, **{**OPTIONS, "workers": workers}), parse(job))
    run.identify()
    run.note()
    return run.run


def train(store: Store, job: Json, trials: int = 4, attempt: int = 1) -> Study:
    """Have so many trials of four validations, of which the second fails and the last is left unfinished on request."""
    parsed: TrainingJob = parse(job)
    assert parsed.spec.tuning is not None
    study = Study(parsed.spec.tuning, axes_of(parsed.spec), Journal(store, attempt), validations(parsed.spec) or 1)
    for _ in range(trials):
        trial = study.ask()
        assert trial is not None
        lr = float(trial.values.get("optimizer.lr", 0.01))
        for time in range(1, 5):
            metrics = {"val/loss": abs(lr - 0.01) + 1 / time, "val/accuracy": lr}
            if study.report(trial.number, time, metrics) is Decision.PRUNE:
                study.tell(trial.number, TrialEnd.PRUNED, seconds=time)
                break
        else:
            study.tell(trial.number, TrialEnd.COMPLETE, seconds=4)
    return study


def tune(*arguments: str, api: Any = None) -> int:
    return run_command(_parser().parse_args(["tune", *arguments]), api)
