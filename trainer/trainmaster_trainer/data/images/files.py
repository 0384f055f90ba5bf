"""New image files for a model that was trained, decoded as those of its run were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from trainmaster_api.spec.data import Data

from trainmaster_trainer.errors import DataError

from .decode import Look, Pixels, decode
from .errors import UnreadableError, reason_of
from .rows import unit


def decoded(images: Sequence[bytes | Path], data: Data) -> Tensor:
    """Return what a model sees of image files, float32 of (n, channels, height, width), not scaled.

    Args:
        images: Files or their paths.
        data: `spec.training.data` of the run.

    Raises:
        DataError: A file isn't there, or isn't an image.
    """
    look = Look.of(data)
    return unit([_pixels(image, look) for image in images], data.image_size)


def _pixels(image: bytes | Path, look: Look) -> Pixels:
    try:
        return decode(image if isinstance(image, bytes) else image.read_bytes(), look)
    except (UnreadableError, OSError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise DataError(f"{'an image' if isinstance(image, bytes) else image} can't be read: {reason}") from error
