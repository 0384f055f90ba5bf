"""`spec.training`: what is trained. It means the same on a laptop and in a cluster.

Task, model, optimizer and schedule are parts (`part.py`): names that we ship have typed arguments there, so a misspelt
one is found by `trainmaster validate` and the operator, and not in the pod.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field

from trainmaster_api.types import Model

from .code import Code
from .data import Data
from .distributed import Distributed
from .loop import Loop
from .model import ModelPart
from .optimizer import Optimizer
from .own import Lightning, Recipe, Script, Transformers
from .schedule import Schedule
from .task import Task

OWN_PROGRAMS = ("script", "lightning", "transformers")
"""Backends whose loop isn't ours: their checkpoints are files of the program."""


class Training(Model):
    """What to train: task, data and model by name or by reference, or a program of your own."""

    EXACTLY_ONE: ClassVar[tuple[str, ...]] = ("model", "recipe", "script", "lightning", "transformers")

    framework: Literal["torch", "lightning", "script", "transformers"] = "torch"
    """Framework that runs the training loop; follows from the section that is given."""
    code: Code | None = None
    """Your own code. Default: the folder of the TrainingJob's file on a laptop; in a cluster, what the image has."""
    task_or_none: Annotated[Task | None, Field(alias="task")] = None
    """What to predict, with which loss and metrics. Required with `model` and `transformers`."""
    data_or_none: Annotated[Data | None, Field(alias="data")] = None
    """Data source, split and batches. Required with `model` and `transformers`."""
    model_or_none: Annotated[ModelPart | None, Field(alias="model")] = None
    """The model, trained by our loop; or instead of it one of recipe, script, lightning and transformers."""
    recipe: Recipe | None = None
    """One function of your own that returns model, loss and data."""
    script: Script | None = None
    """An unchanged program of your own."""
    lightning: Lightning | None = None
    """A LightningModule of your own."""
    transformers: Transformers | None = None
    """A text classifier of Hugging Face Transformers."""
    optimizer: Optimizer = Optimizer.model_validate({"name": "adamw"})
    """The optimizer. For `model` and `recipe`."""
    schedule: Schedule = Schedule(name="cosine")
    """The learning-rate schedule. For `model` and `recipe`."""
    loop: Loop = Loop()
    """Duration, precision and other settings of the training loop. For `model` and `recipe`."""
    distributed: Distributed = Distributed()
    """How several workers train one model. For `model` and `recipe`."""

    @property
    def backend(self) -> str:
        """Name of the backend that trains it."""
        if self.script is not None:
            return "script"
        if self.lightning is not None:
            return "lightning"
        return "transformers" if self.transformers is not None else "torch"

    @property
    def results(self) -> list[str]:
        """Folders of the code that checkpoints are written to: what is in them is of another run, and no code."""
        return self.script.results if self.script is not None else []

    @property
    def task(self) -> Task:
        """The task, of a training that has one; validation requires it with a model."""
        return _present(self.task_or_none, "task")

    @property
    def model(self) -> ModelPart:
        """The model, of a training by name or reference."""
        return _present(self.model_or_none, "model")

    @property
    def data(self) -> Data:
        """The data, of a training that has some; that of a recipe is the recipe."""
        if self.data_or_none is None and self.recipe is not None:
            return self.recipe.data
        return _present(self.data_or_none, "data")


Given = TypeVar("Given")


def _present(value: Given | None, field: str) -> Given:
    if value is None:
        raise LookupError(f"this training has no {field}")
    return value
