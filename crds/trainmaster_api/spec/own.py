"""Trainings that the user's own program defines: a recipe, a script, a Lightning module, a Transformers model."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from trainmaster_api.types import Model

from .code import RelativePath
from .data import Data
from .loading import Loading
from .part import REFERENCE_PATTERN, Call

RECIPE_CALL = Call(
    offered=("base_dir", "rank", "world_size"),
    words="A function that returns a `trainmaster_trainer.Recipe`: model, loss, datasets, and what else has a state. "
    "It is called in every rank, after seeding, with `args`.",
)

OwnReference = Annotated[str, Field(pattern=REFERENCE_PATTERN, max_length=253, examples=["my_package.module:Name"])]


class Recipe(Model):
    """One function of your own that returns everything that is trained; our loop does the rest."""

    function: OwnReference
    """Reference to the function, `package.module:name`."""
    args: dict[str, Any] = {}
    """Its arguments."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Samples per optimizer step over all workers, so the result doesn't depend on the number of workers.
    Must be a multiple of workers x gradientAccumulation."""
    loading: Loading = Loading()
    """Who makes the samples, and how far ahead."""

    @property
    def data(self) -> Data:
        """The recipe as a data set of the user's own: its batches and its loading."""
        return Data.model_validate(
            {"class": self.function, "args": self.args, "batchSize": self.batch_size, "loading": self.loading.wire()}
        )


class Script(Model):
    """An unchanged program, started once per worker with the environment of torchrun."""

    EXACTLY_ONE: ClassVar[tuple[str, ...]] = ("path", "module")

    path: RelativePath | None = None
    """Python file, relative to the code."""
    module: (
        Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$", max_length=253, examples=["my_package.train"])]
        | None
    ) = None
    """Module that is run as `python -m` would; instead of a path."""
    args: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=256)] = []
    """Arguments on its command line."""
    parameters: Annotated[dict[str, Any], Field(max_length=256)] = {}
    """Hyperparameters of the program, by name: what a search varies. `trainmaster.parameters()` returns them."""
    parameters_as: Literal["args", "dashedArgs", "overrides", "env"] = "args"
    """How the program gets its parameters. `args`: `--batch_size 32` after its arguments; `dashedArgs`:
    `--batch-size 32`; `overrides`: `batch_size=32`, as hydra reads them; `env`: TRAINMASTER_PARAM_BATCH_SIZE."""
    checkpoints: Annotated[list[RelativePath], Field(max_length=16)] = []
    """Folders that the program writes its checkpoints to, relative to its working directory. Files in them are uploaded
    as complete sets, and put back under the same paths before a restart. Default: the whole working directory."""
    stop_signal: Literal["SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2"] | None = None
    """Signal by which the program wants to be told to save and stop, sent to every rank. Default: none; the program is
    ended after its newest checkpoint is uploaded."""

    @property
    def results(self) -> list[str]:
        """Folders of `checkpoints` that no code is in: what is there is left from another run."""
        program = "" if self.path is None else f"{self.path}"
        return [each for each in self.checkpoints if each != "." and not program.startswith(f"{each}/")]


class OwnClass(Model):
    """A class of your own and its arguments."""

    reference: Annotated[OwnReference, Field(alias="class")]
    """Reference to the class, `package.module:Name`."""
    args: dict[str, Any] = {}
    """Its arguments."""


class Lightning(Model):
    """A LightningModule of your own, trained by Lightning's Trainer."""

    module: OwnClass
    """The LightningModule."""
    datamodule: OwnClass | None = None
    """The LightningDataModule. Default: the module's own dataloaders."""
    trainer: dict[str, Any] = {}
    """Arguments of Lightning's Trainer, by their names there. Devices, nodes and strategy follow the pods."""


class TransformersModel(Model):
    """A text classifier of Hugging Face Transformers."""

    EXACTLY_ONE: ClassVar[tuple[str, ...]] = ("config", "path")

    config: dict[str, Any] | None = None
    """Fields of its config.json, `model_type` among them: the weights are drawn. Classes, vocabulary and padding are
    taken from the data."""
    path: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Folder with config, weights and tokenizer, as `save_pretrained` writes it, relative to the code; instead of a
    config. Nothing is downloaded."""
    architecture: Annotated[
        str,
        Field(alias="class", pattern=r"^[A-Za-z]\w*$", max_length=128, examples=["BertForSequenceClassification"]),
    ] = "AutoModelForSequenceClassification"
    """Class in `transformers`, for sequence classification."""


class Transformers(Model):
    """A model of Hugging Face Transformers, trained by its Trainer on the texts of `data`."""

    model: TransformersModel
    """The model."""
    arguments: dict[str, Any] = {}
    """Fields of `transformers.TrainingArguments`, by their names there. The batch is `data.batchSize`, and devices
    follow the pods. Default of `eval_strategy`: epoch; of `save_strategy`: no, as the job saves."""
