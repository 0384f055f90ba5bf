"""`spec.training.data`: where the rows come from and how they are fed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainmaster_api.address import Source
from trainmaster_api.types import Model

SKLEARN_SETS: dict[str, int | None] = {"digits": 10, "iris": 3, "wine": 3, "breast_cancer": 2, "diabetes": None}
"""Data sets that come with scikit-learn: their number of classes; None: a regression."""


SKLEARN_ROWS: dict[str, int] = {"digits": 1797, "iris": 150, "wine": 178, "breast_cancer": 569, "diabetes": 442}
"""Their number of rows."""


class Split(Model):
    """How the rows are divided. The division is a pure function of the seed and the row count."""

    train: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Share of the rows that train the model."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share that chooses the best checkpoint and stops early."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share that is held out and read once, after training. The three shares add up to 1."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of the shuffle before the division."""


class Data(Model):
    """Where the rows come from and how they are fed."""

    source: Source
    """`sklearn:<digits|iris|wine|breast_cancer|diabetes>`, a path or s3:// address of a .csv or .parquet file, or
    `images:<folder or s3:// prefix>` with one sub-folder per class. A relative path is relative to the TrainingJob's
    file on a laptop and to the container's working directory in a cluster."""
    target: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Column to predict; required for CSV and Parquet, not accepted for other sources."""
    features: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=253)]], Field(min_length=1, max_length=4096)]
        | None
    ) = None
    """Columns to predict from. Default: every numeric column but the target. CSV and Parquet only."""
    image_size: Annotated[int, Field(ge=4, le=1024)] = 32
    """Images from a folder are resized to this many pixels on each side."""
    channels: Literal[1, 3] = 3
    """Images from a folder are read as grey (1) or RGB (3)."""
    normalize: bool = True
    """Scale each feature (each channel for images) to mean 0 and variance 1, with statistics of the train split."""
    split: Split = Split()
    """Division into train, validation and test."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Rows per optimizer step over all workers, so the result doesn't depend on the number of workers.
    Must be a multiple of workers x gradientAccumulation."""
