"""From the bytes of an image file to pixels, as a viewer shows them.

A viewer turns a photograph upright by its EXIF orientation, resolves palettes, shows transparent pixels on a background
and the first frame of an animation. More than 8 bits per channel are scaled: `Image.convert` would clip them to white.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError
from trainmaster_api.spec.data import Data

from .errors import UnreadableError, reason_of

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
"""(channels, height, width): bytes, or numbers of 0..1 where a byte would lose something."""

_16_BITS = 65535.0
_DEEP = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I", "F"})
# Pillow gives both formats as 32-bit numbers in some cases, but what they hold ends at 16 bits
_AT_MOST_16_BITS = frozenset({"PNG", "PPM"})


@dataclass(frozen=True)
class Look:
    """How pixels are wanted.

    Attributes:
        size: Height and width of what is decoded.
        channels: 1 (grayscale) or 3 (RGB).
        background: RGB behind transparent pixels.
        value_range: What becomes black and white where there are more than 8 bits; None: the range of 16 bits.
        mode: What becomes of another ratio of height to width.
        interpolation: How pixels are interpolated.
    """

    size: tuple[int, int]
    channels: int
    background: tuple[int, int, int]
    value_range: tuple[float, float] | None
    mode: Literal["stretch", "crop", "pad"] = "stretch"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"

    @classmethod
    def of(cls, data: Data) -> Look:
        """Return what a job asks for."""
        images = data.images
        red, green, blue = ImageColor.getrgb(images.background)[:3]
        declared = images.value_range
        found = (declared[0], declared[1]) if declared is not None else None
        side = images.resize.size or data.image_size
        return cls(
            (side, side),
            data.channels,
            (red, green, blue),
            found,
            images.resize.mode,
            images.resize.interpolation,
        )


@dataclass(frozen=True)
class Header:
    """What an image says about itself before it is decoded.

    Attributes:
        is_animated: It has more than one frame.
        is_transparent: It has transparent pixels, or might.
    """

    is_animated: bool
    is_transparent: bool


def read_header(source: bytes | Path, look: Look) -> Header:
    """Return what is known without decoding.

    Raises:
        UnreadableError: It isn't an image, or needs a range of values that isn't declared.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            _range(image, look)
            return Header(getattr(image, "n_frames", 1) > 1, image.has_transparency_data)
    except UnreadableError:
        raise
    except Exception as error:  # a decoder of broken bytes raises whatever it likes
        raise UnreadableError(_reason(error, source)) from error


def decode(content: bytes, look: Look) -> Pixels:
    """Return the pixels of an image.

    Raises:
        UnreadableError: It can't be decoded.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            bounds = _range(image, look)
            upright = _upright(image)
            return _scaled(upright, bounds, look) if bounds else _bytes(upright, look)
    except UnreadableError:
        raise
    except Exception as error:  # see above
        raise UnreadableError(_reason(error, content)) from error


def _range(image: Image.Image, look: Look) -> tuple[float, float] | None:
    """Return the values that become black and white; None where there are 8 bits, whose range is theirs."""
    if image.mode not in _DEEP:
        return None
    if look.value_range is not None:
        return look.value_range
    if image.mode in ("I", "F") and image.format not in _AT_MOST_16_BITS:
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise UnreadableError(f"a {kind} image, whose range nothing tells: set data.images.valueRange, such as [0, 1]")
    return 0.0, _16_BITS


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, KeyError, IndexError, OverflowError, ZeroDivisionError):
        return image  # a broken EXIF block, which a viewer ignores as well


def _bytes(image: Image.Image, look: Look) -> npt.NDArray[np.uint8]:
    if image.has_transparency_data:
        whole = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", whole.size, (*look.background, 255)), whole)
    converted = image.convert("L" if look.channels == 1 else "RGB")
    resized = _fitted(converted, look, _luminance(look) if look.channels == 1 else look.background)
    pixels: npt.NDArray[np.uint8] = np.asarray(resized, dtype=np.uint8).reshape(*look.size, look.channels)
    return pixels.transpose(2, 0, 1).copy()  # Pillow's own memory can't be written to


def _scaled(image: Image.Image, bounds: tuple[float, float], look: Look) -> npt.NDArray[np.float32]:
    """Return a grey image of more than 8 bits as 0..1, the same in every channel."""
    low, high = bounds
    values: npt.NDArray[Any] = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise UnreadableError("holds values that are not finite: replace them, for instance by the lowest value")
    grey = Image.fromarray(np.clip((values - low) / (high - low), 0, 1).astype(np.float32))
    resized = np.asarray(_fitted(grey, look, _luminance(look) / 255), dtype=np.float32)
    # bicubic and lanczos overshoot at edges
    return np.repeat(np.clip(resized, 0, 1)[None], look.channels, axis=0)


def _fitted(image: Image.Image, look: Look, background: Any) -> Image.Image:
    """Return an image of the size that is wanted."""
    height, width = look.size
    how = Image.Resampling[look.interpolation.upper()]
    if look.mode == "stretch":
        return image.resize((width, height), how)
    if look.mode == "crop":
        return ImageOps.fit(image, (width, height), how)
    scale = min(width / image.width, height / image.height)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    found = Image.new(image.mode, (width, height), background)
    found.paste(image.resize(inner, how), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return found


def _luminance(look: Look) -> int:
    return int(Image.new("RGB", (1, 1), look.background).convert("L").tobytes()[0])


def _reason(error: Exception, source: bytes | Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        return "unknown image format" if size else "is empty (0 bytes)"
    if isinstance(error, OSError) and error.errno is not None:
        return reason_of(error)
    return str(error).strip() or type(error).__name__
