"""What a model is called with: a tensor, several, or several by name; and a batch of it with its targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

BYTE = 255.0
"""What the bytes of pixels are divided by."""

Sample = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
"""A batch of samples: one tensor (the model's only argument), a tuple (its positional arguments), or a dict (its
keyword arguments)."""


@dataclass(frozen=True)
class Inputs:
    """What a model has to know of its inputs.

    Attributes:
        shape: Shape of one sample: (features,), (channels, height, width), (tokens,); empty where samples differ.
        vocabulary: Number of tokens, where samples are tokens; 0: they are numbers. Token 0 is padding.
        categories: Features that are numbers of categories, with how many there are.
    """

    shape: tuple[int, ...]
    vocabulary: int = 0
    categories: tuple[tuple[int, int], ...] = ()

    def wire(self) -> dict[str, Any]:
        """Return what `read` reads."""
        return {
            "shape": list(self.shape),
            "vocabulary": self.vocabulary,
            "categories": [list(each) for each in self.categories],
        }

    @classmethod
    def read(cls, wire: dict[str, Any]) -> Inputs:
        """Return what was written."""
        categories = tuple((int(feature), int(number)) for feature, number in wire.get("categories", []))
        return cls(tuple(wire["shape"]), wire.get("vocabulary", 0), categories)


class Batch(NamedTuple):
    """Rows on their way into a model.

    Attributes:
        x: Samples.
        y: Targets, of (n,).
        weight: Weight of each row in the loss, of (n,); None: all the same, or not looked up yet.
    """

    x: Sample
    y: Tensor
    weight: Tensor | None = None


def forward(model: nn.Module, x: Sample) -> Any:
    """Return a model's output for a batch of samples."""
    if isinstance(x, Tensor):
        return model(x)
    return model(**x) if isinstance(x, dict) else model(*x)


def apply(x: Sample, change: Callable[[Tensor], Tensor]) -> Sample:
    """Return samples with each tensor changed."""
    if isinstance(x, Tensor):
        return change(x)
    if isinstance(x, dict):
        return {name: change(each) for name, each in x.items()}
    return tuple(change(each) for each in x)
