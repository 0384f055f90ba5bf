"""The models that we ship: readable PyTorch, one file each."""

from __future__ import annotations

import math

from torch import nn
from trainmaster_api.spec.model import CnnArgs, MlpArgs, ModelPart, VitArgs, shape_problem

from trainmaster_trainer.errors import ConfigurationError

from .cnn import build_cnn
from .mlp import build_mlp
from .vit import VisionTransformer

Shape = tuple[int, ...]


def build_model(spec: ModelPart, input_shape: Shape, outputs: int) -> nn.Module:
    """Return the named model for one sample's shape: (features,) or (channels, height, width).

    Raises:
        ConfigurationError: The model doesn't fit the data, or isn't one that we ship.
    """
    problem = shape_problem(spec, input_shape)
    if problem is not None:
        raise ConfigurationError(f"model.{problem[0]} {problem[1]}")
    if spec.name == "mlp":
        return build_mlp(spec.typed_args(MlpArgs), math.prod(input_shape), outputs)
    if spec.name == "cnn":
        return build_cnn(spec.typed_args(CnnArgs), input_shape[0], outputs)
    if spec.name == "vit":
        channels, height, width = input_shape
        return VisionTransformer(spec.typed_args(VitArgs), channels, height, width, outputs)
    raise ConfigurationError(f"model {spec.label} is not one that this version can build")
