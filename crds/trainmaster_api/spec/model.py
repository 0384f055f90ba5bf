"""`spec.training.model`: the model."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from trainmaster_api.types import Model, rule_error

from .parameter import Parameter
from .part import Call, Family, Part, Shipped

DROPOUT = Parameter(min=0.0, max=0.5, type="float")
"""What a search tries of a dropout where its job names no space."""


class MlpArgs(Model):
    """Arguments of the multi-layer perceptron."""

    hidden: Annotated[list[Annotated[int, Field(ge=1, le=65536)]], Field(max_length=64)] = [128]
    """Width of each hidden layer; an empty list is a linear model."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability of activations."""
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    """Non-linearity between layers."""
    embedding: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Width of the embedding of each categorical column, with data.categories `index`. Default: 1.6 n^0.56 for n
    categories, at most 50."""


class CnnArgs(Model):
    """Arguments of the convolutional network: blocks of conv-norm-activation-pool, then global average pooling."""

    widths: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=1, max_length=16)] = [
        32,
        64,
    ]
    """Number of channels of each block; every block halves the image."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability of the features before the last layer."""
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    """Non-linearity in each block."""


class BlockArgs(Model):
    """Arguments that transformers share."""

    dim: Annotated[int, Field(ge=1, le=16384)] = 64
    """Width of a token; must be a multiple of heads."""
    depth: Annotated[int, Field(ge=1, le=128)] = 2
    """Number of transformer blocks."""
    heads: Annotated[int, Field(ge=1, le=256)] = 4
    """Number of attention heads per block."""
    mlp_ratio: Annotated[float, Field(gt=0, le=16)] = 4.0
    """Width of a block's MLP as a multiple of dim."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability of activations."""

    @model_validator(mode="after")
    def _heads_share_dim(self) -> Self:
        if self.dim % self.heads:
            raise rule_error(f"dim {self.dim} must be a multiple of heads {self.heads}")
        return self


class VitArgs(BlockArgs):
    """Arguments of the vision transformer."""

    patch: Annotated[int, Field(ge=1, le=256)] = 4
    """Side length of a patch in pixels; must divide the image size."""


class TransformerArgs(BlockArgs):
    """Arguments of the transformer for text. Its longest text is `data.text.maxLength`."""


MODELS = Family(
    "model",
    Shipped(
        "mlp",
        MlpArgs,
        "Multi-layer perceptron over flattened features.",
        needs_shape=True,
        searched={"dropout": DROPOUT},
    ),
    Shipped(
        "cnn",
        CnnArgs,
        "Small convolutional network for images.",
        needs_images=True,
        needs_shape=True,
        searched={"dropout": DROPOUT},
    ),
    Shipped(
        "vit",
        VitArgs,
        "Vision transformer for images.",
        needs_images=True,
        needs_shape=True,
        searched={"dropout": DROPOUT},
    ),
    Shipped(
        "transformer",
        TransformerArgs,
        "Transformer encoder for text, mean over the tokens.",
        needs_text=True,
        needs_shape=True,
        searched={"dropout": DROPOUT},
    ),
    call=Call(
        offered=("input_shape", "vocabulary", "outputs", "num_classes"),
        words="A class or a function that returns a `torch.nn.Module`. It is called with `args`, and with "
        "`input_shape` (of one sample), `vocabulary` (number of tokens, where the data is text) and `outputs` or "
        "`num_classes` (size of its output) if its signature has them.",
    ),
)


class ModelPart(Part):
    """The model: a built-in one, one from an installed package, or your own class."""

    FAMILY: ClassVar[Family] = MODELS


def shape_problem(model: ModelPart, shape: tuple[int, ...], *, is_text: bool = False) -> tuple[str, str] | None:
    """Return why a model that we ship can't take samples of a shape.

    Args:
        model: A model whose arguments are valid.
        shape: Shape of one sample: (features,), (channels, height, width) or (tokens,); empty where samples differ.
        is_text: Whether samples are tokens.

    Returns:
        Field of the model and a message, or None if it fits or isn't a built-in model.
    """
    shipped = MODELS.get(model.name)
    if shipped is not None and shipped.needs_shape and not shape:
        return "name", (
            f"{model.name} needs samples that are one tensor of a known shape, and those of this dataset are collated "
            "or are several tensors; use a model of your own (class), or give a dataset whose `collate` returns one "
            "tensor the attribute `shape`"
        )
    if shipped is not None and shipped.needs_text != is_text:
        names = [each.name for each in MODELS if each.needs_text]
        if is_text:
            return "name", f"{model.name} takes no text; for a column with the role text use {' or '.join(names)}"
        return "name", (
            f"{' and '.join(names)} need text: a column with the role text in data.columns. For rows of numbers use mlp"
        )
    if shipped is None or not shipped.needs_images:
        return None
    if len(shape) != 3:
        names = [each.name for each in MODELS if each.needs_images]
        return "name", (
            f"{' and '.join(names)} need images (sklearn:digits or images:<folder>), but a row of the data has shape "
            f"{list(shape)}; for rows of numbers use mlp"
        )
    height, width = shape[1:]
    if model.name == "vit":
        patch = model.typed_args(VitArgs).patch
        if height % patch or width % patch:
            return "args.patch", f"must divide the side of the images, {height}x{width} pixels"
    if model.name == "cnn":
        blocks, most = len(model.typed_args(CnnArgs).widths), min(height, width).bit_length() - 1
        if blocks > most:
            return "args.widths", (
                f"has {blocks} blocks and each halves the image, but the images have {height}x{width} pixels; "
                f"at most {most} blocks fit"
            )
    return None
