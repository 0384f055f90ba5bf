"""Jobs of parts/own_recipes.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from trainmaster_api.spec.job import TrainingJob

from tests.factories import make_job

sys.path.append(str(Path(__file__).parent / "recipe_parts"))  # of processes that it starts, too


def recipe_job(function: str, *, duration: str = "4ep", loop: dict[str, Any] | None = None, **args: Any) -> TrainingJob:
    """A job of one of the recipes, 12 samples per step."""
    wire = make_job(name="t")
    training = wire["spec"]["training"]
    for part in ("task", "data", "model"):
        del training[part]
    training |= {
        "recipe": {"function": f"own_recipes:{function}", "args": args, "batchSize": 12},
        "optimizer": {"name": "adamw", "lr": 0.01},
        "loop": {"duration": duration, "seed": 3, **(loop or {})},
    }
    wire["spec"]["checkpoint"] = {"every": "7step"}
    wire["metadata"]["uid"] = "u"
    return TrainingJob.model_validate(wire)
