"""Multi-layer perceptron, with an embedding for each feature that is the number of a category."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from trainmaster_api.spec.model import MlpArgs, ModelPart

from trainmaster_trainer.sample import Inputs

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


class Embedded(nn.Module):
    """(batch, features) -> (batch, wider): numbers as they are, then an embedding per feature that is a category.

    Category 0, which stands for all that the train split doesn't have, stays the zero vector: nothing trains it.

    Args:
        inputs: Which features are numbers of categories.
        width: Width of each embedding; None: 1.6 n^0.56 for n categories, at most 50 (fastai's rule).
    """

    numbers: Tensor

    def __init__(self, inputs: Inputs, width: int | None) -> None:
        super().__init__()
        self.at = [feature for feature, _ in inputs.categories]
        others = [feature for feature in range(inputs.shape[0]) if feature not in set(self.at)]
        self.register_buffer("numbers", torch.tensor(others, dtype=torch.int64), persistent=False)
        widths = [width or min(50, round(1.6 * number**0.56)) for _, number in inputs.categories]
        self.tables = nn.ModuleList(
            nn.Embedding(number, each, padding_idx=0)
            for (_, number), each in zip(inputs.categories, widths, strict=True)
        )
        self.width = len(others) + sum(widths)

    def forward(self, x: Tensor) -> Tensor:
        """Return numbers and embeddings side by side."""
        found = [table(x[:, at].long()) for at, table in zip(self.at, self.tables, strict=True)]
        return torch.cat([x.index_select(1, self.numbers), *found], dim=1)


def build(part: ModelPart, inputs: Inputs, outputs: int) -> nn.Sequential:
    """Return (batch, ...) -> (batch, outputs); the sample is flattened first."""
    args, width_in = part.typed_args(MlpArgs), math.prod(inputs.shape)
    layers: list[nn.Module] = [nn.Flatten()]
    if inputs.categories:
        embedded = Embedded(inputs, args.embedding)
        layers, width_in = [embedded], embedded.width
    for width in args.hidden:
        layers += [nn.Linear(width_in, width), ACTIVATIONS[args.activation]()]
        if args.dropout:
            layers.append(nn.Dropout(args.dropout))
        width_in = width
    layers.append(nn.Linear(width_in, outputs))
    return nn.Sequential(*layers)
