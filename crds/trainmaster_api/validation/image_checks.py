"""Rules between fields for images."""

from __future__ import annotations

from collections.abc import Iterator

from trainmaster_api.spec.augment import MIXES, TRANSFORMS, GaussianBlurArgs, RandomCropArgs
from trainmaster_api.spec.images import Images
from trainmaster_api.spec.job import Spec

from .check import Check, registering
from .problem import Problem

IMAGE_CHECKS: list[Check] = []
_DATA = "spec.training.data"
_IMAGES = f"{_DATA}.images"
_check = registering(IMAGE_CHECKS)


@_check(_IMAGES, f"{_DATA}.source")
def _images_only(spec: Spec) -> Iterator[Problem]:
    """`data.images` is accepted for images only."""
    data = spec.training.data
    if data.images != Images() and not data.is_images:
        yield Problem(_IMAGES, "is for images only, and this source has none: remove it")


@_check(f"{_IMAGES}.resize", f"{_DATA}.imageSize")
def _resize_size(spec: Spec) -> Iterator[Problem]:
    """`data.images.resize.size` must be at least `data.imageSize`."""
    data = spec.training.data
    size = data.images.resize.size
    if size is not None and size < data.image_size:
        words = f"must be at least data.imageSize, {data.image_size}, of which it is a margin around"
        yield Problem(f"{_IMAGES}.resize.size", words)


@_check(f"{_IMAGES}.normalize", f"{_DATA}.normalize", f"{_DATA}.channels")
def _known_statistics(spec: Spec) -> Iterator[Problem]:
    """`data.images.normalize` must have a number for each channel, and is not accepted with `data.normalize: false`."""
    data = spec.training.data
    known = data.images.normalize
    if known is None:
        return
    count = len(known.values[0])
    if not data.normalize:
        yield Problem(f"{_IMAGES}.normalize", "contradicts data.normalize: false; remove one of them")
    elif count != data.channels:
        yield Problem(f"{_IMAGES}.normalize", f"has {count} channels, and data.channels is {data.channels}")


@_check(f"{_IMAGES}.augment", f"{_IMAGES}.resize", f"{_DATA}.imageSize")
def _augment_size(spec: Spec) -> Iterator[Problem]:
    """A random crop needs a margin to move in, and what mirrors pixels at the edge must be smaller than the image."""
    data = spec.training.data
    side, has_margin = data.image_size, (data.images.resize.size or 0) > data.image_size
    for index, part in enumerate(data.images.augment):
        path = f"{_IMAGES}.augment[{index}].args"
        if part.name == "randomCrop":
            crop = part.typed_args(RandomCropArgs)
            if not crop.padding and not has_margin:
                yield Problem(
                    path,
                    "changes nothing: a crop of the whole image; set padding, or data.images.resize.size to more than "
                    f"data.imageSize, {side}",
                )
            elif crop.padding_mode in ("reflect", "symmetric") and crop.padding >= side:
                yield Problem(f"{path}.padding", f"must be less than data.imageSize, {side}, with this paddingMode")
        if part.name == "gaussianBlur" and part.typed_args(GaussianBlurArgs).kernel_size // 2 >= side:
            yield Problem(f"{path}.kernelSize", f"must be less than twice data.imageSize, {side}")


@_check(f"{_IMAGES}.augment", "spec.training.task.name")
def _augment_mix(spec: Spec) -> Iterator[Problem]:
    """`mixup` and `cutmix` are accepted for classification only, each once."""
    task = spec.training.task.name
    seen: set[str] = set()
    for index, part in enumerate(spec.training.data.images.augment):
        path = f"{_IMAGES}.augment[{index}].name"
        shipped = TRANSFORMS.get(part.name)
        if shipped is not None and shipped.tasks and task not in shipped.tasks:
            yield Problem(path, f"is for {' and '.join(shipped.tasks)}: a {task} has no classes to blend")
        elif part.name in MIXES and part.name in seen:
            yield Problem(path, "is there twice: a batch is mixed once")
        seen.add(part.name or "")
