"""Jobs that the tests train: the digits example, and runs of many cheap steps that a fault can strike in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]
EXAMPLES = Path(__file__).parents[1] / "examples"
FAULT_EPOCHS = 100
"""Of 22 steps each, of which a quiet machine does about 300 a second."""
CHECKPOINT_EVERY = 100
"""Steps; a fault that waits for a second checkpoint strikes in the first tenth of a run of FAULT_EPOCHS."""


def load_example(name: str) -> Json:
    """A TrainingJob of examples/."""
    job: Json = yaml.safe_load((EXAMPLES / name / "trainingjob.yaml").read_text())
    return job


def of_cheap_steps(job: Json, epochs: int = FAULT_EPOCHS) -> Json:
    """The same job with a model that costs next to nothing, for so many epochs, with nothing that ends it early."""
    training = job["spec"]["training"]
    training["model"] = {"name": "mlp", "args": {"hidden": [64], "dropout": 0.2}}
    training["optimizer"] = {"name": "adamw", "lr": 0.002}
    training["loop"] = {**training["loop"], "duration": f"{epochs}ep"}
    training["loop"].pop("earlyStopping", None)
    return job
