"""`spec.training`: what is trained. It means the same on a laptop and in a cluster.

Names that we ship (data sources, models, optimizers, schedules, tasks) have typed arguments here, so a misspelt one
fails at `kubectl apply` and not in the pod. A family of typed variants is a discriminated union on `name` (or `type`);
in the CRD, which has no unions, the variants' fields are merged and CEL rules say which belong to which.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainmaster_api.types import Duration, Metric, Model, Warmup

SKLEARN_SETS: dict[str, int | None] = {"digits": 10, "iris": 3, "wine": 3, "breast_cancer": 2, "diabetes": None}
"""Data sets that come with scikit-learn: their number of classes; None: a regression."""

SKLEARN_ROWS: dict[str, int] = {"digits": 1797, "iris": 150, "wine": 178, "breast_cancer": 569, "diabetes": 442}
"""Their number of rows."""

METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("loss", "accuracy", "f1"),
    "regression": ("loss", "rmse", "mae", "r2"),
}
"""Metrics of each task; in the spec and in metrics.jsonl they are called `val/<metric>`, `test/<metric>`."""


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

    source: Annotated[str, Field(min_length=1, max_length=1024)]
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


class Classification(Model):
    """Predict one of `numClasses` classes; cross-entropy loss; metrics accuracy and macro F1."""

    type: Literal["classification"] = "classification"
    """Kind of task."""
    num_classes: Annotated[int, Field(ge=2, le=1_000_000)]
    """Number of classes; labels are 0 .. numClasses-1, or names that are numbered in sorted order."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Weight that cross-entropy spreads over the other classes."""


class Regression(Model):
    """Predict one number; metrics rmse, mae and r2 in the unit of the target."""

    type: Literal["regression"] = "regression"
    """Kind of task."""
    loss: Literal["mse", "mae", "huber"] = "mse"
    """Loss on the standardised target."""


Task = Annotated[Classification | Regression, Field(discriminator="type")]


class MlpArgs(Model):
    """Arguments of the multi-layer perceptron."""

    hidden: Annotated[list[Annotated[int, Field(ge=1, le=65536)]], Field(max_length=64)] = [128]
    """Width of each hidden layer; an empty list is a linear model."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of activations dropped while training."""
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    """Non-linearity between layers."""


class CnnArgs(Model):
    """Arguments of the convolutional network: blocks of conv-norm-activation-pool, then global average pooling."""

    widths: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=1, max_length=16)] = [
        32,
        64,
    ]
    """Channels of each block; every block halves the image."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of features dropped before the last layer."""
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    """Non-linearity in each block."""


class VitArgs(Model):
    """Arguments of the vision transformer."""

    dim: Annotated[int, Field(ge=1, le=16384)] = 64
    """Width of a token; a multiple of heads."""
    depth: Annotated[int, Field(ge=1, le=128)] = 2
    """Number of transformer blocks."""
    heads: Annotated[int, Field(ge=1, le=256)] = 4
    """Attention heads per block."""
    patch: Annotated[int, Field(ge=1, le=256)] = 4
    """Side of a patch in pixels; divides the image size."""
    mlp_ratio: Annotated[float, Field(gt=0, le=16)] = 4.0
    """Width of a block's MLP as a multiple of dim."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of activations dropped while training."""


class Mlp(Model):
    """Multi-layer perceptron over flattened features."""

    name: Literal["mlp"] = "mlp"
    """Name of the model."""
    args: MlpArgs = MlpArgs()
    """Typed arguments of the named model."""


class Cnn(Model):
    """Small convolutional network for images."""

    name: Literal["cnn"] = "cnn"
    """Name of the model."""
    args: CnnArgs = CnnArgs()
    """Typed arguments of the named model."""


class Vit(Model):
    """Vision transformer for images."""

    name: Literal["vit"] = "vit"
    """Name of the model."""
    args: VitArgs = VitArgs()
    """Typed arguments of the named model."""


ModelSpec = Annotated[Mlp | Cnn | Vit, Field(discriminator="name")]


class AdamW(Model):
    """AdamW."""

    name: Literal["adamw"] = "adamw"
    """Name of the optimizer."""
    lr: Annotated[float, Field(gt=0, le=100)] = 0.001
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    """Decoupled weight decay; biases and norms are left out of it."""
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [
        0.9,
        0.999,
    ]
    """Decay of the two moment estimates."""
    eps: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """Added to the denominator."""


class Sgd(Model):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    """Name of the optimizer."""
    lr: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    """L2 penalty; biases and norms are left out of it."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum."""
    nesterov: bool = False
    """Nesterov's form of momentum; needs momentum above 0."""


Optimizer = Annotated[AdamW | Sgd, Field(discriminator="name")]


class Cosine(Model):
    """Warm up linearly, then fall along a half cosine to `minLrRatio` of the peak at the end of the run."""

    name: Literal["cosine"] = "cosine"
    """Name of the schedule."""
    warmup: Warmup = "5%"
    """Linear warm-up from 0: a share of the run, steps or epochs."""
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Last learning rate as a share of the peak."""


class Linear(Model):
    """Warm up linearly, then fall linearly to `minLrRatio` of the peak at the end of the run."""

    name: Literal["linear"] = "linear"
    """Name of the schedule."""
    warmup: Warmup = "5%"
    """Linear warm-up from 0: a share of the run, steps or epochs."""
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Last learning rate as a share of the peak."""


class Constant(Model):
    """Warm up linearly, then stay at the peak."""

    name: Literal["constant"] = "constant"
    """Name of the schedule."""
    warmup: Warmup = "0"
    """Linear warm-up from 0: a share of the run, steps or epochs."""


class Plateau(Model):
    """Warm up linearly, then multiply by `factor` when the metric hasn't improved for `patience` validations."""

    name: Literal["plateau"] = "plateau"
    """Name of the schedule."""
    warmup: Warmup = "0"
    """Linear warm-up from 0: a share of the run, steps or epochs."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What the learning rate is multiplied by."""
    patience: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Validations without improvement before it falls."""
    metric: Metric = "val/loss"
    """Validation metric that is watched."""
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Floor of the learning rate as a share of the peak."""


Schedule = Annotated[Cosine | Linear | Constant | Plateau, Field(discriminator="name")]


class EarlyStopping(Model):
    """Stop when the metric hasn't improved for `patience` validations."""

    metric: Metric = "val/loss"
    """Validation metric that is watched; its better direction follows from its name."""
    patience: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Validations without improvement before the run stops."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """Improvement that counts, in the metric's unit."""


class Loop(Model):
    """How long, how precise, and what a step does besides the update."""

    duration: Duration = "10ep"
    """Length of the run: `20ep` (epochs) or `1000step` (optimizer steps)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of forward and backward; weights and optimizer stay in fp32."""
    gradient_accumulation: Annotated[int, Field(ge=1, le=65536)] = 1
    """Micro-batches per optimizer step: less memory, same result, because the batch size is that of the step."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Clip the global gradient norm to this; absent: no clipping."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of weights, order and dropout."""
    validate_every: Duration = "1ep"
    """How often the validation split is evaluated."""
    early_stopping: EarlyStopping | None = None
    """Stop early; absent: run the whole duration."""


class Training(Model):
    """What is trained: data -> model -> loop."""

    framework: Literal["torch"] = "torch"
    """Framework that runs the loop."""
    task: Task
    """What is predicted; owns the loss and the metrics."""
    data: Data
    """Where the rows come from."""
    model: ModelSpec
    """Which model."""
    optimizer: Optimizer = AdamW()
    """How weights are updated."""
    schedule: Schedule = Cosine()
    """How the learning rate moves."""
    loop: Loop = Loop()
    """How long and how precise."""
