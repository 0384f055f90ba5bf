"""MixUp and CutMix: each image of a batch is blended with the next one of the same batch, and so are their classes.

What is drawn is drawn once for an optimizer step, from (seed, step), and the partner of a position follows from the
global batch. So the result doesn't depend on ranks, micro-batches or worker processes, and nothing is kept in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it
from torch import Tensor
from trainmaster_api.spec.augment import MIXES, MixArgs
from trainmaster_api.spec.data import Data

from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.sample import BYTE

_STREAM = 0x3A1C  # keeps these draws apart from those of the order and of single images, which have the same seed


def partners(batch: Indices) -> Indices:
    """Return the row that each position of a global batch is mixed with: the next one, the first for the last."""
    return np.roll(batch, -1)


@dataclass(frozen=True)
class Mix:
    """How the batches of a job are mixed.

    Attributes:
        alphas: Parameter of the Beta distribution of `mixup`, `cutmix` or both, of which one is drawn for each step.
        classes: Number of classes.
    """

    alphas: dict[str, float]
    classes: int

    @classmethod
    def of(cls, spec: Data, classes: int) -> Mix | None:
        """Return what a job asks for; None: its batches aren't mixed.

        Args:
            spec: `spec.training.data`.
            classes: Number of outputs of the model.
        """
        found = {
            str(part.name): part.typed_args(MixArgs).alpha for part in spec.images.augment if part.name in MIXES
        }  # fmt: skip
        return cls(found, classes) if found else None

    def apply(
        self, x: Tensor, y: Tensor, partner_x: Tensor, partner_y: Tensor, seed: int, step: int,
        weights: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        """Return mixed images, targets of (n, classes), whose rows add up to 1, and the weights of the mixed rows.

        Args:
            x: Images of any rows of the global batch, (n, channels, height, width): uint8, or floating point.
            y: Their classes, of (n,).
            partner_x: The images that they are mixed with (`partners`), augmented alike.
            partner_y: Their classes.
            seed: `loop.seed`.
            step: Number of the optimizer step.
            weights: Weight in the loss of each image and of the last one's partner, of (n + 1,), where the partner of
                each is the next one; None: all the same.

        Returns:
            Images in the type of `x`; blended bytes become float32 of 0..1.
        """
        dice = np.random.default_rng([_STREAM, seed, step])
        name = sorted(self.alphas)[int(dice.integers(len(self.alphas)))]
        ratio = float(dice.beta(self.alphas[name], self.alphas[name]))
        if name == "cutmix":
            x, ratio = _cut(x, partner_x, ratio, dice)
        else:
            x = _float(x) * ratio + _float(partner_x) * (1 - ratio)
        first, second = (F.one_hot(classes, self.classes).to(torch.float32) for classes in (y, partner_y))
        if weights is None:
            return x, first * ratio + second * (1 - ratio), None
        own, partner, weight = _shares(ratio, weights[:-1].double(), weights[1:].double())
        return x, first * own[:, None] + second * partner[:, None], weight


def _cut(x: Tensor, partner_x: Tensor, ratio: float, dice: np.random.Generator) -> tuple[Tensor, float]:
    """Return images with a box of their partners, and the share of the pixels that are still their own."""
    height, width = x.shape[-2:]
    middle_x, middle_y = int(dice.integers(width)), int(dice.integers(height))
    half = 0.5 * (1 - ratio) ** 0.5  # a box of the share 1 - ratio, but for what is outside the image
    left, right = max(middle_x - int(half * width), 0), min(middle_x + int(half * width), width)
    top, bottom = max(middle_y - int(half * height), 0), min(middle_y + int(half * height), height)
    found = x.clone()
    found[..., top:bottom, left:right] = partner_x[..., top:bottom, left:right]
    return found, 1 - (bottom - top) * (right - left) / (height * width)


def _shares(ratio: float, own: Tensor, partner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the shares of both classes in the targets of mixed rows, and the weights of the rows, float32 of (n,).

    The loss of a row is the sum over both images of share times weight times the loss of its class. Cross-entropy is
    linear in the target, so it is also the weight `ratio * own + (1 - ratio) * partner` times the loss of a target in
    which each class has its part of that weight: one target and one weight, which any loss takes.
    """
    weight = partner + ratio * (own - partner)  # in this form exact where both are equal
    counts = weight > 0
    whole = torch.where(counts, weight, 1.0)
    own, partner = (torch.where(counts, each / whole, 1.0) for each in (own, partner))
    return (ratio * own).float(), ((1 - ratio) * partner).float(), weight.float()


def _float(x: Tensor) -> Tensor:
    return x.float() / BYTE if x.dtype == torch.uint8 else x
