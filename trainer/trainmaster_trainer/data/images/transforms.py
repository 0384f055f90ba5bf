"""Random transforms of one image: torchvision.transforms.v2 by name, or the user's own, on pixels of (c, h, w).

All draws come from torch's, numpy's and Python's global generators, which `draws.seeded` seeds for each row: a sample
depends on (seed, round, row) and on nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from trainmaster_api.spec import augment as spec
from trainmaster_api.spec.augment import MIXES, TRANSFORMS, Augment

from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.references import arguments, call, resolve
from trainmaster_trainer.registry import Registry
from trainmaster_trainer.sample import BYTE

Transform = Callable[[Tensor], Tensor]


def _crop(part: Augment, size: int, white: float) -> Any:
    args = part.typed_args(spec.RandomCropArgs)
    padding = args.padding or None
    return v2.RandomCrop(size, padding=padding, fill=_fill(args.fill, white), padding_mode=args.padding_mode)


def _resized_crop(part: Augment, size: int, white: float) -> Any:
    args = part.typed_args(spec.RandomResizedCropArgs)
    mode = v2.InterpolationMode(args.interpolation)
    return v2.RandomResizedCrop(size, tuple(args.scale), tuple(args.ratio), mode, antialias=True)


def _rotation(part: Augment, size: int, white: float) -> Any:
    args = part.typed_args(spec.RandomRotationArgs)
    mode = v2.InterpolationMode(args.interpolation)
    return v2.RandomRotation(args.degrees, interpolation=mode, fill=_fill(args.fill, white))


def _affine(part: Augment, size: int, white: float) -> Any:
    args = part.typed_args(spec.RandomAffineArgs)
    return v2.RandomAffine(
        args.degrees,
        translate=tuple(args.translate),
        scale=tuple(args.scale),
        shear=args.shear or None,
        interpolation=v2.InterpolationMode(args.interpolation),
        fill=_fill(args.fill, white),
    )


def _jitter(part: Augment, size: int, white: float) -> Any:
    args = part.typed_args(spec.ColorJitterArgs)
    return v2.ColorJitter(args.brightness, args.contrast, args.saturation, args.hue)


def _rand_augment(part: Augment, size: int, white: float) -> Any:
    args = part.typed_args(spec.RandAugmentArgs)
    return v2.RandAugment(args.num_ops, args.magnitude, fill=_fill(args.fill, white))


def _auto_augment(part: Augment, size: int, white: float) -> Any:
    args = part.typed_args(spec.AutoAugmentArgs)
    return v2.AutoAugment(v2.AutoAugmentPolicy(args.policy), fill=_fill(args.fill, white))


def _blur(part: Augment, size: int, white: float) -> Any:
    args = part.typed_args(spec.GaussianBlurArgs)
    return v2.RandomApply([v2.GaussianBlur(args.kernel_size, tuple(args.sigma))], args.p)


def _erasing(part: Augment, size: int, white: float) -> Any:
    args = part.typed_args(spec.RandomErasingArgs)
    return v2.RandomErasing(args.p, tuple(args.scale), tuple(args.ratio), _fill(args.fill, white))


BUILDERS: dict[str, Callable[[Augment, int, float], Any]] = {
    "autoAugment": _auto_augment,
    "colorJitter": _jitter,
    "gaussianBlur": _blur,
    "randAugment": _rand_augment,
    "randomAffine": _affine,
    "randomCrop": _crop,
    "randomErasing": _erasing,
    "randomGrayscale": lambda part, size, white: v2.RandomGrayscale(part.typed_args(spec.RandomGrayscaleArgs).p),
    "randomHorizontalFlip": lambda part, size, white: v2.RandomHorizontalFlip(part.typed_args(spec.FlipArgs).p),
    "randomResizedCrop": _resized_crop,
    "randomRotation": _rotation,
    "randomVerticalFlip": lambda part, size, white: v2.RandomVerticalFlip(part.typed_args(spec.FlipArgs).p),
    "trivialAugmentWide": lambda part, size, white: v2.TrivialAugmentWide(
        fill=_fill(part.typed_args(spec.TrivialAugmentWideArgs).fill, white)
    ),
}
"""What makes a transform of its part, the side of the result, and the value of white: 255, or 1 of float pixels."""


class _Transforms(Registry[Any]):
    """The names of this file, and entry points of installed packages."""

    @cached_property
    def names(self) -> list[str]:
        return sorted(BUILDERS)


_REGISTRY = _Transforms("transform", __name__, TRANSFORMS.group)


class Augmentation:
    """The random transforms of a job, for one image at a time; whole batches are mixed in `mix`.

    Args:
        parts: `data.images.augment`.
        size: Side of the images that come out: what is larger after all transforms is cropped in the middle.

    Raises:
        ConfigurationError: A class or its arguments don't fit, or there is no such transform.
    """

    def __init__(self, parts: Sequence[Augment], size: int) -> None:
        self.size = size
        self._labels = [part.label for part in parts if part.name not in MIXES]
        own = {index: _own(part, f"data.images.augment[{index}]") for index, part in enumerate(parts) if _is_own(part)}
        self._steps: dict[bool, list[Transform]] = {
            is_bytes: [
                own[index] if index in own else BUILDERS[str(part.name)](part, size, BYTE if is_bytes else 1.0)
                for index, part in enumerate(parts)
                if part.name not in MIXES
            ]
            for is_bytes in (True, False)
        }

    def __bool__(self) -> bool:
        """Return whether there is any: without one, an image needs no draws, whose seed takes 0.1 ms."""
        return bool(self._labels)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return an image after all transforms, in the type of its pixels.

        Args:
            pixels: (channels, height, width): uint8, or float32 of 0..1.

        Raises:
            ConfigurationError: A transform of the user's own returns something else.
        """
        found = pixels
        for label, step in zip(self._labels, self._steps[pixels.dtype == torch.uint8], strict=True):
            found = step(found)
            if not isinstance(found, Tensor) or found.dtype != pixels.dtype or found.shape[:-2] != pixels.shape[:1]:
                raise ConfigurationError(
                    f"data.images.augment: {label} returned {_described(found)}; expected {pixels.dtype} of "
                    f"({pixels.shape[0]}, height, width), as it was given"
                )
        if min(found.shape[1:]) < self.size:
            raise ConfigurationError(
                f"data.images.augment: the image has {found.shape[1]}x{found.shape[2]} pixels after all transforms, "
                f"less than data.imageSize {self.size}"
            )
        return centre(found, self.size)


def centre(pixels: Tensor, size: int) -> Tensor:
    """Return the middle square of an image or of a batch of images."""
    height, width = pixels.shape[-2:]
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[..., top : top + size, left : left + size]


def _fill(brightness: int, white: float) -> float:
    return brightness * white / BYTE


def _is_own(part: Augment) -> bool:
    return TRANSFORMS.get(part.name) is None


def _own(part: Augment, path: str) -> Transform:
    """Return the user's transform."""
    if part.reference is not None:
        target = resolve(part.reference, f"{path}.class")
    else:
        target = _REGISTRY.get(str(part.name), f"{path}.name")
    if not inspect.isclass(target):
        return partial(target, **arguments(target, path, TRANSFORMS.call, part.args))
    found = call(target, path, TRANSFORMS.call, part.args)
    if not callable(found):
        raise ConfigurationError(f"{path} {part.label}: its instances can't be called with an image")
    return found  # type: ignore[no-any-return]


def _described(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"{found.dtype} of {tuple(found.shape)}"
    return f"a {type(found).__name__}"
