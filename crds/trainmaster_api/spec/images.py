"""Part of `spec.training.data` for images: how a file becomes pixels."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainmaster_api.address import Source
from trainmaster_api.types import Model, Quantity, rule_error

from .augment import Augment

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of the channels of ImageNet, with which most published models were trained."""
ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
"""What names of archives of images end in."""


def is_archive(name: str) -> bool:
    """Return whether a file's name is that of an archive of images."""
    return name.lower().endswith(ARCHIVE_ENDINGS)


class Resize(Model):
    """How an image becomes a square."""

    mode: Literal["stretch", "crop", "pad"] = "stretch"
    """`stretch`: height and width are scaled independently; `crop`: the middle square is kept; `pad`: the whole image
    is kept, and the rest of the square shows `background`."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    """How pixels are interpolated; all but `nearest` average over the pixels that become one."""
    size: Annotated[int, Field(ge=4, le=2048)] | None = None
    """Side length of the square, at least `imageSize`, of which the middle `imageSize` pixels are used. A crop in
    `augment` uses other parts of it in training. Default: `imageSize`."""


class Normalize(Model):
    """Known statistics that images are scaled with, instead of those of the train split. Values are from 0 to 1."""

    statistics: Literal["imagenet"] | None = None
    """Statistics by name: those of ImageNet, for models that were trained with it."""
    mean: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1, max_length=3)] | None = None
    """Mean of each channel."""
    std: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1, max_length=3)] | None = None
    """Standard deviation of each channel; together with `mean`."""

    @model_validator(mode="after")
    def _are_complete(self) -> Self:
        if (self.statistics is None) == (self.mean is None and self.std is None):
            raise rule_error("needs either statistics, or mean and std")
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise rule_error("mean and std must have a number for each channel")
        return self

    @property
    def values(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel."""
        return IMAGENET if self.mean is None or self.std is None else (tuple(self.mean), tuple(self.std))


class Cache(Model):
    """Room for decoded pixels, so that an image isn't decoded again in each epoch."""

    memory: Quantity = "512Mi"
    """Memory for it in each worker, shared by its processes; `0`: none."""
    disk: Quantity = "0"
    """Disk for it, in a file that the processes of a machine share and that is found again by a later attempt; `0`:
    none. In the default folder of `data.cache.directory`."""


class Images(Model):
    """How image files become pixels. By default as a viewer shows them."""

    background: Annotated[str, Field(pattern=r"^(white|black|#[0-9a-fA-F]{6})$", examples=["white", "#808080"])] = (
        "white"
    )
    """Color behind transparent pixels."""
    value_range: Annotated[list[float], Field(min_length=2, max_length=2, examples=[[0, 4095]])] | None = None
    """Values that become black and white in images with more than 8 bits per channel; values outside are clipped.
    Default: 0 and 65535 for 16 bits. Required for 32-bit and floating-point images."""
    resize: Resize = Resize()
    """How an image becomes a square of `imageSize`."""
    augment: Annotated[list[Augment], Field(max_length=32)] = []
    """Random transforms, in order, of the images of the train split. The draws follow from `loop.seed`, the epoch and
    the row: not from the number of workers or processes, nor from an interruption."""
    normalize: Normalize | None = None
    """Known statistics to scale with. Default: those of the train split, unless `data.normalize` is false."""
    cache: Cache = Cache()
    """Room for decoded pixels."""
    nested: bool = False
    """If true, images in deeper folders belong to the class of their first folder. If false, they are an error."""
    root: Source | None = None
    """Folder or s3:// prefix that the paths in a column with the role image are relative to. Default: the folder of the
    table."""
    check: Literal["headers", "full"] = "headers"
    """What is checked of every file before the first step: its header, or all of it by decoding it once."""

    @model_validator(mode="after")
    def _range_grows(self) -> Self:
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise rule_error("valueRange must be two different numbers, the smaller one first")
        return self
