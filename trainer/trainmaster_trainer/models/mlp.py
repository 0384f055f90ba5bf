"""Multi-layer perceptron."""

from __future__ import annotations

import math

from torch import nn
from trainmaster_api.spec.model import MlpArgs, ModelPart

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


def build(part: ModelPart, input_shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Return (batch, ...) -> (batch, outputs); the sample is flattened first."""
    args, inputs = part.typed_args(MlpArgs), math.prod(input_shape)
    layers: list[nn.Module] = [nn.Flatten()]
    for width in args.hidden:
        layers += [nn.Linear(inputs, width), ACTIVATIONS[args.activation]()]
        if args.dropout:
            layers.append(nn.Dropout(args.dropout))
        inputs = width
    layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)
