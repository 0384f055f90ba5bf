"""Rows of images, decoded when first needed; the pixels are kept."""

from __future__ import annotations

import torch
from torch import Tensor
from trainmaster_api.spec.data import Data

from trainmaster_trainer.data.division import Division
from trainmaster_trainer.data.draws import seeded
from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.errors import DataError
from trainmaster_trainer.sample import BYTE

from .cache import PixelCache
from .content import Content
from .copies import Comparison, most_compared
from .decode import Look, Pixels, decode
from .errors import UnreadableError
from .transforms import Augmentation, centre


class ImageRows:
    """Images read on demand; their pixels are kept as far as `data.images.cache` has room for them.

    Args:
        content: The files.
        targets: int64 classes, or float64 numbers.
        labels: Names of the classes; empty for numbers.
        spec: `spec.training.data`.
    """

    features: list[str]
    is_decoded = True  # worth processes of their own, by default
    notes: tuple[str, ...] = ()
    """What is worth knowing before the first step, a sentence each."""
    warnings: tuple[str, ...] = ()
    """What is probably a mistake in the source, a sentence each."""

    def __init__(self, content: Content, targets: Tensor, labels: list[str], spec: Data) -> None:
        self.content, self.targets, self.labels, self.features = content, targets, labels, []
        self.shape: tuple[int, ...] = (spec.channels, spec.image_size, spec.image_size)
        self._look = Look.of(spec)
        self._augment = Augmentation(spec.images.augment, spec.image_size)
        self.statistics = spec.images.normalize.values if spec.images.normalize else None
        self.is_remote = content.is_remote
        self._cache = PixelCache(content, self._look, spec.images.cache)
        self.comparison = Comparison(content, most_compared(is_asked=spec.dedupe))

    def __len__(self) -> int:
        return len(self.content)

    @property
    def row_targets(self) -> Tensor:
        """Return the target of each row."""
        return self.targets

    @property
    def row_classes(self) -> Indices | None:
        """Return the class of each image; None for numbers."""
        return None if self.targets.is_floating_point() else self.targets.numpy()

    def check(self, division: Division) -> tuple[str, ...]:
        """Return warnings about copies in two splits or classes, and about classes that a split lacks."""
        classes = self.row_classes
        found = () if classes is None else self.comparison.check(classes, self.labels, division)
        return (*self.warnings, *found)

    def copy_ids(self) -> Indices:
        """Return for each image the number of the first one with the same bytes."""
        return self.comparison.ids

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Return pixels scaled to 0..1."""
        pixels = [self._pixels(int(index)) for index in indices]
        return unit(pixels, self.shape[-1]), self.targets[torch.from_numpy(indices)]

    def training_batch(self, indices: Indices, rounds: Indices, seed: int) -> tuple[Tensor, Tensor]:
        """Return augmented pixels: uint8, or float32 of 0..1 if one of the images has more than 8 bits per channel.

        A row's pixels depend on (seed, round, row): not on the other rows, nor on the process.

        Args:
            indices: Rows of the train split.
            rounds: Round of each row (`Sampler.rounds`).
            seed: `loop.seed`.
        """
        pixels = []
        with seeded(seed) as seed_row:
            for index, round_number in zip(indices.tolist(), rounds.tolist(), strict=True):
                found = torch.from_numpy(self._pixels(index))
                if self._augment:
                    seed_row(index, round_number)
                pixels.append(self._augment(found))
        return stack(pixels), self.targets[torch.from_numpy(indices)]

    def _pixels(self, index: int) -> Pixels:
        found = self._cache.get(index)
        if found is None:
            found = self._decode(index)
            self._cache.put(index, found)
        return found

    def _decode(self, index: int) -> Pixels:
        content = b""
        try:
            content = self.content.read(index)
            return decode(content, self._look)
        except UnreadableError as error:
            raise DataError(
                f"{self.content.where(index)} is not a readable image ({len(content)} bytes: {error}); "
                "replace or remove it"
            ) from error


def stack(images: list[Tensor]) -> Tensor:
    """Return images as one batch: uint8, or float32 of 0..1 if one of them is."""
    if all(one.dtype == torch.uint8 for one in images):
        return torch.stack(images)
    return torch.stack([one.float() / BYTE if one.dtype == torch.uint8 else one for one in images])


def unit(images: list[Pixels], size: int) -> Tensor:
    """Return the middle squares of decoded images as float32 of 0..1: what a model sees without augmentation."""
    x = centre(stack([torch.from_numpy(each) for each in images]), size)
    return x.float() / BYTE if x.dtype == torch.uint8 else x
