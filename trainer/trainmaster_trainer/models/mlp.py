"""Multi-layer perceptron."""

from __future__ import annotations

from torch import nn
from trainmaster_api.spec.model import MlpArgs

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


def build_mlp(args: MlpArgs, inputs: int, outputs: int) -> nn.Sequential:
    """(batch, ...) -> (batch, outputs); the sample is flattened first."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width in args.hidden:
        layers += [nn.Linear(inputs, width), ACTIVATIONS[args.activation]()]
        if args.dropout:
            layers.append(nn.Dropout(args.dropout))
        inputs = width
    layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)
