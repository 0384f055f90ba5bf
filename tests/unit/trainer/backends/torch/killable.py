"""A run in a process of its own that says what it reports; arguments: its directory, its attempt and its job."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.context import Report

from tests.unit.trainer.harness import Recording, small_job, train

PARTS = Path(__file__).parent / "parts"


class Telling(Recording):
    def report(self, report: Report) -> None:
        super().report(report)
        os.write(1, f"{report.kind} {report.step}\n".encode())  # whole, because two threads report


def long_job() -> TrainingJob:
    """Saves often, so that a kill also hits the middle of a save."""
    return small_job(
        {"spec.training.loop": {"duration": "30ep", "clipNorm": 1.0, "seed": 3}, "spec.checkpoint.every": "7step"}
    )


def own_job(name: str, workers: int = 2, duration: str = "10ep", **data: Any) -> TrainingJob:
    """Data of parts/own_data.py, read by processes; dropout draws, too."""
    return small_job(
        {
            "spec.training.task": {"name": "classification"},
            "spec.training.data": {
                "class": f"own_data:{name}", "batchSize": 12, "loading": {"workers": workers, "prefetch": 3}, **data,
            },
            "spec.training.model.args": {"hidden": [16], "dropout": 0.1},
            "spec.training.optimizer": {"name": "adamw", "lr": 0.01},
            "spec.training.loop": {"duration": duration, "clipNorm": 1.0, "seed": 3, "gradientAccumulation": 2},
            "spec.checkpoint.every": "7step",
        }
    )  # fmt: skip


JOBS = {
    "long": long_job,
    "spirals": lambda: own_job("Spirals", sampling="balanced"),
    "shuffled": lambda: own_job("Shuffled"),
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.path.insert(0, str(PARTS))
    train(JOBS[sys.argv[3]](), Path(sys.argv[1]), attempt=int(sys.argv[2]), recording=Telling())
