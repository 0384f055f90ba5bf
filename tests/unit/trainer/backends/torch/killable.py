"""A run in a process of its own that says what it reports; arguments: its directory, its attempt and its job."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
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


def read_job(model: dict[str, Any], **data: Any) -> TrainingJob:
    """Data that `write_data` writes, read by processes, classes drawn equally often."""
    return small_job(
        {
            "spec.training.task": {"name": "classification"},
            "spec.training.data": {
                "batchSize": 12, "sampling": "balanced", "loading": {"workers": 2, "prefetch": 3}, **data,
            },
            "spec.training.model": model,
            "spec.training.optimizer": {"name": "adamw", "lr": 0.01},
            "spec.training.loop": {"duration": "30ep", "clipNorm": 1.0, "seed": 3, "gradientAccumulation": 2},
            "spec.checkpoint.every": "7step",
        }
    )  # fmt: skip


def pictures_job() -> TrainingJob:
    """Images that are decoded, kept on disk, augmented and mixed."""
    augment = [{"name": "randomCrop"}, {"name": "randomErasing"}, {"name": "mixup", "args": {"alpha": 0.4}}]
    images = {"resize": {"size": 12}, "augment": augment, "cache": {"memory": "0", "disk": "64Mi"}}
    model = {"name": "cnn", "args": {"widths": [4], "dropout": 0.1}}
    return read_job(model, source="images:pictures", imageSize=8, channels=1, images=images)


def cached_job() -> TrainingJob:
    """A table that is mapped into memory, with weights of rows and categories that are embedded."""
    return read_job(
        {"name": "mlp", "args": {"hidden": [16], "dropout": 0.1}},
        source="rows.csv", target="y", columns={"w": {"role": "weight"}}, categories="index", cache={"mode": "always"},
    )  # fmt: skip


def write_data(folder: Path) -> None:
    """Write the same images and rows into any folder; one class is a quarter of the other."""
    dice = np.random.default_rng(0)
    lines = ["a,b,c,w,y"]
    for index in range(150):
        label = "few" if index % 5 == 0 else "many"
        target = folder / "pictures" / label
        target.mkdir(parents=True, exist_ok=True)
        pixels = dice.integers(0, 120, (14, 14), dtype=np.uint8) + np.uint8(80 * (label == "few"))
        Image.fromarray(pixels).save(target / f"{index:03}.png")
        a, b = dice.normal(loc=2.0 * (label == "few"), size=2).round(3)
        lines.append(f"{a},{b},{'xyz'[index % 3]},{dice.integers(1, 4)},{label}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")


JOBS = {
    "long": long_job,
    "spirals": lambda: own_job("Spirals", sampling="balanced"),
    "shuffled": lambda: own_job("Shuffled"),
    "pictures": pictures_job,
    "cached": cached_job,
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.path.insert(0, str(PARTS))
    train(JOBS[sys.argv[3]](), Path(sys.argv[1]), attempt=int(sys.argv[2]), recording=Telling())
