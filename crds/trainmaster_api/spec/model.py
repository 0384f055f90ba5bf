"""`spec.training.model`: which model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainmaster_api.types import Model


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
