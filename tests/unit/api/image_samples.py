"""For each rule for images a change to a small job that breaks it and one that doesn't."""

from __future__ import annotations

from typing import Any

from tests.factories import Changes, Json, make_job

_DATA = "spec.training.data"
_IMAGES = f"{_DATA}.images"
_AUGMENT = f"{_IMAGES}.augment"
FLIP = {"name": "randomHorizontalFlip"}


def images(*changes: Changes) -> Json:
    """A small job with a folder of images."""
    source = {f"{_DATA}.source": "images:pictures", "spec.training.task.numClasses": 3}
    return make_job({"metadata.namespace": "default"}, source, *changes, name="sample")


def augmented(name: str, **args: Any) -> Json:
    return images({_AUGMENT: [FLIP, {"name": name, "args": args}]})


IMAGE_EXAMPLES: dict[str, list[tuple[str, dict[str, Any], dict[str, Any]]]] = {
    "images-only": [
        (_IMAGES, make_job({f"{_DATA}.images": {"augment": [FLIP]}}, name="sample"), images({_AUGMENT: [FLIP]})),
    ],
    "resize-size": [
        (
            f"{_IMAGES}.resize.size",
            images({f"{_IMAGES}.resize": {"size": 31}}),
            images({f"{_IMAGES}.resize": {"size": 32}}),
        ),
    ],
    "known-statistics": [
        (
            f"{_IMAGES}.normalize",
            images({f"{_IMAGES}.normalize": {"statistics": "imagenet"}, f"{_DATA}.channels": 1}),
            images({f"{_IMAGES}.normalize": {"mean": [0.5], "std": [0.2]}, f"{_DATA}.channels": 1}),
        ),
        (
            f"{_IMAGES}.normalize",
            images({f"{_IMAGES}.normalize": {"statistics": "imagenet"}, f"{_DATA}.normalize": False}),
            images({f"{_IMAGES}.normalize": {"statistics": "imagenet"}}),
        ),
    ],
    "augment-size": [
        (f"{_AUGMENT}[1].args", augmented("randomCrop"), augmented("randomCrop", padding=4)),
        (
            f"{_AUGMENT}[1].args.padding",
            augmented("randomCrop", padding=32, paddingMode="reflect"),
            images({f"{_IMAGES}.resize": {"size": 40}, _AUGMENT: [{"name": "randomCrop"}]}),
        ),
        (
            f"{_AUGMENT}[1].args.kernelSize",
            augmented("gaussianBlur", kernelSize=65),
            augmented("gaussianBlur", kernelSize=63),
        ),
    ],
    "augment-mix": [
        (
            f"{_AUGMENT}[1].name",
            images({_AUGMENT: [{"name": "mixup"}] * 2}),
            images({_AUGMENT: [{"name": "mixup"}, {"name": "cutmix"}]}),
        ),
    ],
}

IMAGE_PART_EXAMPLES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "range-order": (
        f"{_AUGMENT}[1].args.scale",
        augmented("randomResizedCrop", scale=[0.9, 0.5]),
        augmented("randomResizedCrop", scale=[0.5, 0.5]),
    ),
    "odd-kernel": (
        f"{_AUGMENT}[1].args",
        augmented("gaussianBlur", kernelSize=4),
        augmented("gaussianBlur", kernelSize=5),
    ),
    "unknown-transform": (
        f"{_AUGMENT}[0].name",
        images({_AUGMENT: [{"name": "randomHorizontlFlip"}]}),
        images({_AUGMENT: [{"name": "mine/solarize"}]}),
    ),
    "mean-without-std": (
        f"{_IMAGES}.normalize",
        images({f"{_IMAGES}.normalize": {"mean": [0.5, 0.5, 0.5]}}),
        images({f"{_IMAGES}.normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}),
    ),
}
