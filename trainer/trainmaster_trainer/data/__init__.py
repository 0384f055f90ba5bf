"""Data: every source ends as rows that can be indexed, split, and scaled with statistics of the train split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.registry import Registry

from .sources.base import Request, address_of

if TYPE_CHECKING:  # both import torch, and `trainmaster run` compares the data's fingerprint without it
    from .prepared import Prepared
    from .rows import Rows

__all__ = ["SOURCES", "Prepared", "Rows", "load_data"]

SOURCES: Registry[Callable[[Request], Rows]] = Registry("source", f"{__name__}.sources", "trainmaster.sources")
TABLE = "table"


def load_data(
    job: TrainingJob, base_dir: Path, env: Mapping[str, str], say: Callable[[str], None] = lambda _: None
) -> Prepared:
    """Read the job's sources and split them.

    Args:
        job: The resolved job.
        base_dir: What relative paths are relative to.
        env: Environment with the S3 keys.
        say: Takes a sentence on what is being done, every few seconds while much is read.

    Raises:
        DataError: The source can't be read or doesn't match the specification.
        ConfigurationError: It can't feed the specified batches, or there is no such source.
    """
    from .own import own_data
    from .prepared import prepare

    training = job.spec.training
    data = training.data
    if data.source is None:
        return own_data(job.spec, base_dir)
    name = TABLE if data.is_table else data.source.partition(":")[0]
    build = SOURCES.get(name, "data.source")
    request = Request(address_of(data), data, training.task, job.spec.storage, base_dir, env, say=say)
    if data.is_table or not data.own_sources:
        return prepare(build(request), training)
    from .joined import JoinedRows

    every = request.every()
    fields = ("source", "validationSource", "testSource")
    return prepare(JoinedRows([build(every[field]) if field in every else None for field in fields]), training)


def __getattr__(name: str) -> Any:
    """Return `Prepared` or `Rows`, imported when first needed."""
    if name not in ("Prepared", "Rows"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import prepared

    return getattr(prepared, name)
