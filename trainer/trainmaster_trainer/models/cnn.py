"""Small convolutional network."""

from __future__ import annotations

from torch import nn
from trainmaster_api.spec.model import CnnArgs, ModelPart

from trainmaster_trainer.sample import Inputs

from .mlp import ACTIVATIONS


def build(part: ModelPart, inputs: Inputs, outputs: int) -> nn.Sequential:
    """Return (batch, channels, height, width) -> (batch, outputs); every block halves the image.

    Group norm rather than batch norm: it has no running statistics, so a step is the same for every number of workers
    and of micro-batches, and the model is the same in training and in evaluation.
    """
    args, channels = part.typed_args(CnnArgs), inputs.shape[0]
    layers: list[nn.Module] = []
    for width in args.widths:
        groups = next(g for g in (8, 4, 2, 1) if width % g == 0)
        layers += [
            nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False),
            nn.GroupNorm(groups, width),
            ACTIVATIONS[args.activation](),
            nn.MaxPool2d(2),
        ]
        channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if args.dropout:
        layers.append(nn.Dropout(args.dropout))
    layers.append(nn.Linear(channels, outputs))
    return nn.Sequential(*layers)
