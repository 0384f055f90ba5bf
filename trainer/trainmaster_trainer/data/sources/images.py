"""Folders of images, one sub-folder per class. Decoded when first needed; the pixels are kept."""

from __future__ import annotations

import torch
from torch import Tensor
from trainmaster_api.spec.data import Data

from trainmaster_trainer.data.draws import seeded
from trainmaster_trainer.data.files import Files
from trainmaster_trainer.data.images.decode import Look, Pixels, UnreadableError, decode
from trainmaster_trainer.data.images.folder import Listing, check_images, list_images
from trainmaster_trainer.data.images.transforms import BYTE, Augmentation, centre
from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.errors import ConfigurationError, DataError

from .base import Request

CACHE_BYTES = 512 * 2**20


class ImageRows:
    """Images read on demand; their pixels are cached, up to CACHE_BYTES."""

    features: list[str]
    notes: tuple[str, ...] = ()
    """What is worth knowing before the first step, a sentence each."""

    def __init__(self, files: Files, found: Listing, spec: Data) -> None:
        self.files, self.paths, self.labels, self.features = files, found.paths, found.labels, []
        self.targets = torch.tensor(found.classes, dtype=torch.int64)
        self.shape: tuple[int, ...] = (spec.channels, spec.image_size, spec.image_size)
        self._look = Look.of(spec)
        self._augment = Augmentation(spec.images.augment, spec.image_size)
        self.statistics = spec.images.normalize.values if spec.images.normalize else None
        self._cache: dict[int, Pixels] = {}
        self._room = CACHE_BYTES

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def row_classes(self) -> Indices:
        """Return the class of each image, by its folder."""
        return self.targets.numpy()

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Return pixels scaled to 0..1."""
        x = stack([torch.from_numpy(self._pixels(int(index))) for index in indices])
        x = centre(x, self.shape[-1])
        return x.float() / BYTE if x.dtype == torch.uint8 else x, self.targets[torch.from_numpy(indices)]

    def training_batch(self, indices: Indices, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Return augmented pixels: uint8, or float32 of 0..1 if one of the images has more than 8 bits per channel.

        A row's pixels depend on (seed, epoch, row): not on the other rows, nor on the process.

        Args:
            indices: Rows of the train split.
            seed: `loop.seed`.
            epoch: From 0.
        """
        pixels = []
        with seeded(seed, epoch) as seed_row:
            for index in indices:
                found = torch.from_numpy(self._pixels(int(index)))
                seed_row(int(index))
                pixels.append(self._augment(found))
        return stack(pixels), self.targets[torch.from_numpy(indices)]

    def _pixels(self, index: int) -> Pixels:
        found = self._cache.get(index)
        if found is None:
            found = self._decode(index)
            if found.nbytes <= self._room:
                self._room -= found.nbytes
                self._cache[index] = found
        return found

    def _decode(self, index: int) -> Pixels:
        path = self.paths[index]
        content = self.files.read(path)
        try:
            return decode(content, self._look)
        except UnreadableError as error:
            raise DataError(
                f"{self.files.shown}/{path} is not a readable image ({len(content)} bytes: {error}); "
                "replace or remove it"
            ) from error


def stack(images: list[Tensor]) -> Tensor:
    """Return images as one batch: uint8, or float32 of 0..1 if one of them is."""
    if all(one.dtype == torch.uint8 for one in images):
        return torch.stack(images)
    return torch.stack([one.float() / BYTE if one.dtype == torch.uint8 else one for one in images])


def build(request: Request) -> ImageRows:
    """List the folder; a sub-folder's name is the class.

    Raises:
        DataError: No image in it, images in nested folders, or images that can't be read: all of them at once.
    """
    files, spec = request.files(), request.data
    if request.task.name != "classification":
        raise ConfigurationError("data.source images: needs task.name classification; the folder names are the classes")
    found = list_images(files.shown, [path for path, _ in files.store.list()], nested=spec.images.nested)
    rows = ImageRows(files, found, spec)
    rows.notes = (*found.notes, *check_images(files, found.paths, Look.of(spec), full=spec.images.check == "full"))
    return rows
