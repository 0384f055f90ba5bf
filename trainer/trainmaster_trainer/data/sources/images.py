"""Folders of images, one sub-folder per class. Decoded when first needed and kept as bytes of pixels."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from trainmaster_api.spec.data import Data

from trainmaster_trainer.data.files import Files
from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.errors import ConfigurationError, DataError

from .base import Request

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tiff")
CACHE_BYTES = 512 * 2**20


class ImageRows:
    """Images read on demand; pixels are cached as uint8 up to CACHE_BYTES."""

    features: list[str]

    def __init__(self, files: Files, paths: list[str], classes: list[int], labels: list[str], spec: Data) -> None:
        self.files, self.paths, self.labels, self.features = files, paths, labels, []
        self.targets = torch.tensor(classes, dtype=torch.int64)
        self.shape: tuple[int, ...] = (spec.channels, spec.image_size, spec.image_size)
        self.mode = "L" if spec.channels == 1 else "RGB"
        self._cache: dict[int, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = {}
        self._room = CACHE_BYTES // int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def row_classes(self) -> Indices:
        """Return the class of each image, by its folder."""
        return self.targets.numpy()

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Return pixels scaled to 0..1."""
        pixels = np.stack([self._pixels(int(index)) for index in indices])
        return torch.from_numpy(pixels).float() / 255, self.targets[torch.from_numpy(indices)]

    def _pixels(self, index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        found = self._cache.get(index)
        if found is None:
            found = self._decode(index)
            if len(self._cache) < self._room:
                self._cache[index] = found
        return found

    def _decode(self, index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        path = self.paths[index]
        content = self.files.read(path)
        try:
            with Image.open(io.BytesIO(content)) as image:
                resized = image.convert(self.mode).resize((self.shape[2], self.shape[1]), Image.Resampling.BILINEAR)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = "unknown image format" if isinstance(error, UnidentifiedImageError) else error
            raise DataError(
                f"{self.files.shown}/{path} is not a readable image ({len(content)} bytes: {reason}); "
                "replace or remove it"
            ) from error
        pixels = np.asarray(resized, dtype=np.uint8).reshape(self.shape[1], self.shape[2], self.shape[0])
        return pixels.transpose(2, 0, 1)


def build(request: Request) -> ImageRows:
    """List the folder; a sub-folder's name is the class.

    Raises:
        DataError: No image in it, or images outside a sub-folder.
    """
    files = request.files()
    if request.task.name != "classification":
        raise ConfigurationError("data.source images: needs task.name classification; the folder names are the classes")
    paths = [path for path, _ in files.store.list() if path.lower().endswith(ENDINGS)]
    inside = [path for path in paths if path.count("/") == 1]
    if not inside:
        raise DataError(
            f"data.source images:{files.shown} has no images in a sub-folder "
            f"({len(paths)} elsewhere); expected <class>/<image> with the extensions {', '.join(ENDINGS)}"
        )
    labels = sorted({path.split("/")[0] for path in inside})
    number = {label: index for index, label in enumerate(labels)}
    return ImageRows(files, inside, [number[path.split("/")[0]] for path in inside], labels, request.data)
