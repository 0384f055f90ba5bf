"""`spec.training.data.images.augment`: random transforms of the images of the train split.

Names and arguments are those of torchvision.transforms.v2, with a small first letter and in camelCase.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from trainmaster_api.types import Model, rule_error

from .part import Call, Family, Part, Shipped


def _ascending(found: list[float]) -> list[float]:
    if found[0] > found[1]:
        raise rule_error("must be two numbers, the smaller one first")
    return found


_Probability = Annotated[float, Field(ge=0, le=1)]
_Fill = Annotated[int, Field(ge=0, le=255)]
_Share = Annotated[
    list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=2, max_length=2), AfterValidator(_ascending)
]
_Ratio = Annotated[
    list[Annotated[float, Field(gt=0, le=100)]], Field(min_length=2, max_length=2), AfterValidator(_ascending)
]
_Alpha = Annotated[float, Field(gt=0, le=100)]
Warp = Literal["nearest", "bilinear"]


class RandomCropArgs(Model):
    """Arguments of the random crop."""

    padding: Annotated[int, Field(ge=0, le=1024)] = 0
    """Pixels added on each side before a square of `imageSize` is cut out."""
    padding_mode: Literal["constant", "edge", "reflect", "symmetric"] = "constant"
    """What the added pixels are: `fill`, the pixels at the edge, or the image mirrored without or with its edge."""
    fill: _Fill = 0
    """Brightness of added pixels."""


class RandomResizedCropArgs(Model):
    """Arguments of the random crop that is resized to `imageSize`."""

    scale: _Share = [0.08, 1.0]
    """Smallest and largest share of the image's area."""
    ratio: _Ratio = [0.75, 1.3333333333333333]
    """Smallest and largest ratio of width to height."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    """How pixels are interpolated."""


class FlipArgs(Model):
    """Arguments of the flips."""

    p: _Probability = 0.5
    """Probability of the flip."""


class RandomRotationArgs(Model):
    """Arguments of the random rotation."""

    degrees: Annotated[float, Field(gt=0, le=180)] = 15.0
    """Largest angle, to either side."""
    interpolation: Warp = "bilinear"
    """How pixels are interpolated."""
    fill: _Fill = 0
    """Brightness of pixels that come from outside the image."""


class RandomAffineArgs(Model):
    """Arguments of the random affine transform."""

    degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest rotation, to either side."""
    translate: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)] = [0.1, 0.1]
    """Largest shift, horizontally and vertically, as a share of the image's width and height."""
    scale: Annotated[
        list[Annotated[float, Field(gt=0, le=10)]], Field(min_length=2, max_length=2), AfterValidator(_ascending)
    ] = [1.0, 1.0]
    """Smallest and largest magnification."""
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    """Largest shear angle along the x axis, to either side."""
    interpolation: Warp = "bilinear"
    """How pixels are interpolated."""
    fill: _Fill = 0
    """Brightness of pixels that come from outside the image."""


class ColorJitterArgs(Model):
    """Arguments of the color jitter. Each is the largest change; the factor is drawn from 1 - x to 1 + x."""

    brightness: Annotated[float, Field(ge=0, le=10)] = 0.2
    """Largest change of the brightness."""
    contrast: Annotated[float, Field(ge=0, le=10)] = 0.2
    """Largest change of the contrast."""
    saturation: Annotated[float, Field(ge=0, le=10)] = 0.2
    """Largest change of the saturation; grayscale images have none."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Largest shift of the hue, as a share of the color circle; grayscale images have none."""


class RandAugmentArgs(Model):
    """Arguments of RandAugment."""

    num_ops: Annotated[int, Field(ge=1, le=16)] = 2
    """Number of operations in a row."""
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Strength of every operation."""
    fill: _Fill = 0
    """Brightness of pixels that come from outside the image."""


class TrivialAugmentWideArgs(Model):
    """Arguments of TrivialAugment: one operation of a random strength."""

    fill: _Fill = 0
    """Brightness of pixels that come from outside the image."""


class AutoAugmentArgs(Model):
    """Arguments of AutoAugment."""

    policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet"
    """Set for which the policy was learned."""
    fill: _Fill = 0
    """Brightness of pixels that come from outside the image."""


class GaussianBlurArgs(Model):
    """Arguments of the Gaussian blur."""

    kernel_size: Annotated[int, Field(ge=3, le=99)] = 3
    """Side length of the kernel in pixels, an odd number."""
    sigma: Annotated[
        list[Annotated[float, Field(gt=0, le=100)]], Field(min_length=2, max_length=2), AfterValidator(_ascending)
    ] = [0.1, 2.0]
    """Smallest and largest standard deviation in pixels."""
    p: _Probability = 1.0
    """Probability of the blur."""

    @model_validator(mode="after")
    def _has_a_middle(self) -> Self:
        if self.kernel_size % 2 == 0:
            raise rule_error("kernelSize must be odd")
        return self


class RandomGrayscaleArgs(Model):
    """Arguments of the random conversion to gray; the number of channels stays."""

    p: _Probability = 0.1
    """Probability of the conversion."""


class RandomErasingArgs(Model):
    """Arguments of random erasing: a rectangle is overwritten."""

    p: _Probability = 0.5
    """Probability that a rectangle is erased."""
    scale: _Share = [0.02, 0.33]
    """Smallest and largest share of the image's area."""
    ratio: _Ratio = [0.3, 3.3]
    """Smallest and largest ratio of the rectangle's height to its width."""
    fill: _Fill = 0
    """Brightness of erased pixels."""


class MixArgs(Model):
    """Arguments of MixUp and CutMix."""

    alpha: _Alpha = 1.0
    """Both parameters of the Beta distribution of the ratio: below 1 mostly one of two images, above 1 mostly both."""


TRANSFORMS = Family(
    "transform",
    Shipped("randomCrop", RandomCropArgs, "A square of `imageSize` at a random place."),
    Shipped("randomResizedCrop", RandomResizedCropArgs, "A random part of the image, resized to `imageSize`."),
    Shipped("randomHorizontalFlip", FlipArgs, "Left and right are exchanged."),
    Shipped("randomVerticalFlip", FlipArgs, "Top and bottom are exchanged."),
    Shipped("randomRotation", RandomRotationArgs, "A rotation about the middle."),
    Shipped("randomAffine", RandomAffineArgs, "A rotation, shift, magnification and shear."),
    Shipped("colorJitter", ColorJitterArgs, "Brightness, contrast, saturation and hue are changed, in random order."),
    Shipped("randAugment", RandAugmentArgs, "Some operations of RandAugment, all of the same strength."),
    Shipped("trivialAugmentWide", TrivialAugmentWideArgs, "One operation of TrivialAugment, of a random strength."),
    Shipped("autoAugment", AutoAugmentArgs, "A learned policy of AutoAugment."),
    Shipped("gaussianBlur", GaussianBlurArgs, "A Gaussian blur of random width."),
    Shipped("randomGrayscale", RandomGrayscaleArgs, "Conversion to gray."),
    Shipped("randomErasing", RandomErasingArgs, "A random rectangle is overwritten."),
    Shipped(
        "mixup", MixArgs, "Two images of the batch and their classes are blended (MixUp).", tasks=("classification",)
    ),
    Shipped(
        "cutmix",
        MixArgs,
        "A rectangle is replaced by that of another image of the batch, and the classes are blended (CutMix).",
        tasks=("classification",),
    ),
    call=Call(
        function_positional=1,
        words="A class whose instances map an image to an image, or a function that does. An image is a uint8 tensor "
        "of (channels, height, width), or float32 of 0 to 1 where it has more than 8 bits per channel. It is called "
        "with `args`. Draws from torch, numpy and random are seeded for each image and epoch.",
    ),
)
MIXES = ("mixup", "cutmix")
"""Transforms of a whole batch: the others change one image."""


class Augment(Part):
    """A random transform: a built-in one, one from an installed package, or your own class."""

    FAMILY: ClassVar[Family] = TRANSFORMS
