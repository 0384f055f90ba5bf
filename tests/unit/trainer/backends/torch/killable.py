"""A run in a process of its own that says what it reports; arguments: its directory and its attempt."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.context import Report

from tests.unit.trainer.harness import Recording, small_job, train


class Telling(Recording):
    def report(self, report: Report) -> None:
        super().report(report)
        os.write(1, f"{report.kind} {report.step}\n".encode())  # whole, because two threads report


def long_job() -> TrainingJob:
    """Saves often, so that a kill also hits the middle of a save."""
    return small_job(
        {"spec.training.loop": {"duration": "30ep", "clipNorm": 1.0, "seed": 3}, "spec.checkpoint.every": "7step"}
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(long_job(), Path(sys.argv[1]), attempt=int(sys.argv[2]), recording=Telling())
