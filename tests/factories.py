"""Jobs of the tests: a small one, the digits example, and runs of many cheap steps that a fault can strike in.

Every other maker of a job in the tests adds what its tests need to one of these. Fields are set in one way: a mapping
from the dotted path that messages and pages use to the value, such as `{"spec.training.loop.duration": "5ep"}`.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.validation.validate import validate

Json = dict[str, Any]
Changes = dict[str, Any]
"""Dotted path from the root of a TrainingJob to the value that is put there; REMOVE takes the field out."""
REMOVE = object()

EXAMPLES = Path(__file__).parents[1] / "examples"
FAULT_EPOCHS = 100
"""Of 22 steps each, of which a quiet machine does about 300 a second."""
CHECKPOINT_EVERY = 100
"""Steps; a fault that waits for a second checkpoint strikes in the first tenth of a run of FAULT_EPOCHS."""

CHEAP_STEPS: Changes = {
    "spec.training.model": {"name": "mlp", "args": {"hidden": [64], "dropout": 0.2}},
    "spec.training.optimizer": {"name": "adamw", "lr": 0.002},
    "spec.training.loop.earlyStopping": REMOVE,
}
"""A model that costs next to nothing, and nothing that ends the run early."""


def make_job(*changes: Changes, name: str = "small") -> Json:
    """A minimal valid TrainingJob with changes, of which a later one wins."""
    document: Json = {
        "apiVersion": "trainmaster.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {
            "training": {
                "task": {"name": "classification", "numClasses": 10},
                "data": {"source": "sklearn:digits"},
                "model": {"name": "mlp"},
            }
        },
    }
    return change(document, *changes)


def load_example(name: str, *changes: Changes) -> Json:
    """A TrainingJob of examples/ with changes."""
    job: Json = yaml.safe_load((EXAMPLES / name / "trainingjob.yaml").read_text())
    return change(job, *changes)


def of_cheap_steps(job: Json, epochs: int = FAULT_EPOCHS) -> Json:
    """The same job with a model that costs next to nothing, for so many epochs, with nothing that ends it early."""
    return change(job, CHEAP_STEPS, {"spec.training.loop.duration": f"{epochs}ep"})


def change(document: Json, *changes: Changes) -> Json:
    """Put values at dotted paths, in place; the document."""
    for paths in changes:
        for path, value in paths.items():
            *parents, last = path.split(".")
            node = document
            for key in parents:
                node = node.setdefault(key, {})
            if value is REMOVE:
                node.pop(last, None)
            else:
                node[last] = copy.deepcopy(value)
    return document


def parse(document: Json) -> TrainingJob:
    """The job as the product holds it; fails with all problems of a document that `validate` refuses."""
    job, problems = validate(document)
    assert job is not None, problems
    return job
