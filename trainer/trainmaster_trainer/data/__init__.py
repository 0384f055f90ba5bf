"""Data: every source ends as rows that can be indexed, split, and scaled with statistics of the train split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.errors import ConfigurationError

from .prepared import Prepared, Rows, prepare
from .sklearn_sets import load_sklearn
from .source import Files

__all__ = ["Prepared", "load_data"]


def load_data(job: TrainingJob, base_dir: Path, env: Mapping[str, str]) -> Prepared:
    """Read the job's source and split it.

    Args:
        job: The resolved job.
        base_dir: What relative paths are relative to.
        env: Environment with the S3 keys.

    Raises:
        DataError: The source can't be read or isn't what the specification says.
        ConfigurationError: It can't feed the specified batches.
    """
    training = job.spec.training
    source = training.data.source
    if source is None:
        raise ConfigurationError(f"data.class {training.data.label} can't be read by this version")
    if source.startswith("sklearn:"):
        rows: Rows = load_sklearn(source.removeprefix("sklearn:"), training.task)
    elif source.startswith("images:"):
        files = Files.open(source.removeprefix("images:"), job.spec.storage, base_dir, env)
        from .images import load_images

        rows = load_images(files, training.data, training.task)
    else:
        files = Files.open(source, job.spec.storage, base_dir, env)
        from .tables import load_table  # pandas takes half a second to import

        rows = load_table(files, training.data, training.task)
    return prepare(rows, training)
