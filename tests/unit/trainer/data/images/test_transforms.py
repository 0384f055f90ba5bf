"""Random transforms: what each does to pixels, and that the draws follow from (seed, epoch, row) alone."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from trainmaster_api.spec.augment import MIXES, TRANSFORMS, Augment
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.data.images.transforms import BUILDERS, Augmentation
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.references import use_folder

from tests.unit.trainer.harness import samples, small_job

SIDE = 12
COUNT = 40
EVERY: list[dict[str, Any]] = [
    {"name": name, "args": {"padding": 3} if name == "randomCrop" else {}} for name in BUILDERS
]
SOME: list[dict[str, Any]] = [
    {"name": "randomResizedCrop", "args": {"scale": [0.3, 1]}},
    {"name": "randAugment"},
    {"name": "randomErasing"},
]


def augmentation(name: str, size: int = SIDE, **args: Any) -> Augmentation:
    return Augmentation([Augment(name=name, args=args)], size)


def gradient(channels: int = 3) -> Tensor:
    rows = torch.arange(SIDE * SIDE, dtype=torch.uint8).reshape(SIDE, SIDE)
    return torch.stack([rows, rows.T, 255 - rows][:channels])


def test_contract_and_registry_have_the_same_transforms() -> None:
    assert sorted([*BUILDERS, *MIXES]) == TRANSFORMS.names


def test_flips_and_gray() -> None:
    image = gradient()
    assert torch.equal(augmentation("randomHorizontalFlip", p=1.0)(image), image.flip(2))
    assert torch.equal(augmentation("randomVerticalFlip", p=1.0)(image), image.flip(1))
    assert torch.equal(augmentation("randomVerticalFlip", p=0.0)(image), image)
    gray = augmentation("randomGrayscale", p=1.0)(image)
    luminance = torch.tensor([0.299, 0.587, 0.114]) @ image.float().reshape(3, -1)  # ITU-R 601; torchvision cuts off
    assert (gray.float().reshape(3, -1) - luminance).abs().max() < 1.1


def test_crop_is_a_part_of_the_padded_image() -> None:
    image = gradient(1)
    padded = torch.nn.functional.pad(image, (3, 3, 3, 3), value=7)
    crop = augmentation("randomCrop", padding=3, fill=7)
    places = set()
    for _ in range(60):
        found = crop(image)
        equal = [
            (top, left)
            for top in range(7)
            for left in range(7)
            if torch.equal(padded[:, top : top + SIDE, left : left + SIDE], found)
        ]
        assert equal
        places |= set(equal)
    assert len(places) > 20


def test_mirrored_padding() -> None:
    found = augmentation("randomCrop", size=SIDE + 4, padding=2, paddingMode="reflect")(gradient(1))
    assert np.array_equal(found.numpy()[0], np.pad(gradient(1).numpy()[0], 2, mode="reflect"))


def test_erased_rectangle_has_the_fill() -> None:
    image = torch.full((3, 40, 40), 200, dtype=torch.uint8)
    found = augmentation("randomErasing", size=40, p=1.0, scale=[0.25, 0.25], ratio=[1.0, 1.0], fill=50)(image)
    assert set(found.flatten().tolist()) == {50, 200}
    assert int((found[0] == 50).sum()) == 400  # a quarter of 1600


def test_fill_has_the_range_of_the_pixels() -> None:
    turned = augmentation("randomRotation", degrees=180.0, fill=255, interpolation="nearest")
    torch.manual_seed(0)
    found = torch.stack([turned(torch.zeros(1, SIDE, SIDE)) for _ in range(9)])
    assert set(found.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("part", EVERY, ids=lambda part: part["name"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_every_transform_keeps_type_and_range(part: dict[str, Any], channels: int, dtype: torch.dtype) -> None:
    image = gradient(channels)
    image = image if dtype is torch.uint8 else image.float() / 255
    transform = Augmentation([Augment.model_validate(part)], SIDE)
    for seed in range(20):
        torch.manual_seed(seed)
        found = transform(image)
        assert (found.shape, found.dtype) == (image.shape, dtype)
        if dtype is torch.float32:
            assert float(found.min()) >= -1e-6
            assert float(found.max()) <= 1 + 1e-6


def test_larger_image_is_cropped_in_the_middle() -> None:
    image = gradient()
    assert torch.equal(Augmentation([], 6)(image), image[:, 3:9, 3:9])


# -- a job's images ---------------------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(COUNT):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return tmp_path


def loaded(folder: Path, augment: list[dict[str, Any]], **images: Any) -> Prepared:
    data = {"source": "images:pictures", "imageSize": SIDE, "batchSize": 4, "images": {"augment": augment, **images}}
    task = {"name": "classification", "numClasses": 2}
    return load_data(small_job({"spec.training.data": data, "spec.training.task": task}), folder, {})


def augmented(data: Prepared, indices: list[int], seed: int = 3, epoch: int = 0) -> Tensor:
    rounds = np.full(len(indices), epoch)
    return data.rows.training_batch(np.array(indices), rounds, seed)[0]  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("part", EVERY, ids=lambda part: part["name"])
def test_draws_depend_on_seed_epoch_and_row_only(folder: Path, part: dict[str, Any]) -> None:
    first, second = (loaded(folder, [part, {"name": "randomErasing", "args": {"p": 1.0}}]) for _ in range(2))
    whole = augmented(first, [0, 1, 2, 3])
    assert torch.equal(whole[[3, 1]], augmented(second, [3, 1])), "whatever the batch is and whatever was before"
    assert torch.equal(whole[2], augmented(second, [9, 2])[1])
    assert not torch.equal(whole, augmented(second, [0, 1, 2, 3], seed=4))
    assert not torch.equal(whole, augmented(second, [0, 1, 2, 3], epoch=1))


def test_repeated_image_is_augmented_otherwise_in_each_round(folder: Path) -> None:
    data = loaded(folder, SOME)
    found = data.rows.training_batch(np.array([7, 2, 7, 7]), np.array([4, 0, 5, 6]), 3)[0]  # type: ignore[attr-defined]
    assert len({image.numpy().tobytes() for image in found}) == 4
    for place, round_number in ((0, 4), (2, 5), (3, 6)):
        assert torch.equal(found[place], augmented(data, [7], epoch=round_number)[0])


def test_draws_are_the_same_in_another_process(folder: Path) -> None:
    code = (
        "import sys, pathlib, hashlib; from tests.unit.trainer.data.images.test_transforms import *;"
        "found = augmented(loaded(pathlib.Path(sys.argv[1]), SOME), [7, 3], epoch=2);"
        "print(hashlib.sha256(found.numpy().tobytes()).hexdigest())"
    )
    here = hashlib.sha256(augmented(loaded(folder, SOME), [7, 3], epoch=2).numpy().tobytes()).hexdigest()
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == here


def test_other_draws_are_not_disturbed(folder: Path) -> None:
    data = loaded(folder, SOME)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    augmented(data, [0, 1])
    assert torch.equal(torch.rand(3), expected)


def test_validation_is_never_augmented(folder: Path) -> None:
    plain, other = loaded(folder, []), loaded(folder, [{"name": "randomErasing", "args": {"p": 1.0}}])
    assert torch.equal(samples(plain, plain.validation), samples(other, other.validation))
    assert torch.equal(plain.mean, other.mean)
    rows = plain.train[:4]
    assert torch.equal(augmented(plain, rows.tolist()).float() / 255, samples(plain.rows, rows))


def test_sixteen_bits_are_augmented_without_loss(folder: Path) -> None:
    deep = np.arange(400, dtype=np.uint16).reshape(20, 20) * 100
    Image.fromarray(deep).save(folder / "pictures" / "a" / "deep.png")
    data = loaded(folder, [{"name": "randomHorizontalFlip", "args": {"p": 1.0}}])
    row = data.rows.content.paths.index("a/deep.png")  # type: ignore[attr-defined]
    found = augmented(data, [row, 0])
    assert found.dtype == torch.float32
    assert torch.equal(found.flip(3), samples(data.rows, np.array([row, 0])))


def test_margin_for_crops(folder: Path) -> None:
    data = loaded(folder, [{"name": "randomCrop"}], resize={"size": 18, "mode": "crop", "interpolation": "nearest"})
    assert data.rows.shape == (3, SIDE, SIDE)
    whole = loaded(folder, [], resize={"size": 18, "interpolation": "nearest"})
    whole.rows.shape = (3, 18, 18)
    large = samples(whole.rows, np.array([0]))[0]
    assert torch.equal(samples(data.rows, np.array([0]))[0], large[:, 3:15, 3:15])
    crops = {augmented(data, [0], epoch=epoch).numpy().tobytes() for epoch in range(30)}
    assert len(crops) > 10


def test_known_statistics(folder: Path) -> None:
    data = loaded(folder, [], normalize={"statistics": "imagenet"})
    x = samples(data.rows, np.array([0]))
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    assert torch.equal(samples(data, np.array([0])), (x - mean) / std)
    other = loaded(folder, [], normalize={"mean": [0.5, 0.25, 0], "std": [0.5, 1, 1]})
    assert other.description()["mean"] == [0.5, 0.25, 0.0]


# -- the user's own ---------------------------------------------------------------------------------------------------
@pytest.fixture
def own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "own_transforms.py").write_text(
        "import random, numpy, torch\n"
        "class Noise:\n"
        "    def __init__(self, most=3):\n        self.most = most\n"
        "    def __call__(self, image):\n"
        "        found = image.clone()\n"
        "        found[0, 0, :3] = torch.tensor([random.randrange(255), numpy.random.randint(255),\n"
        "                                       int(torch.randint(255, ()))], dtype=torch.uint8)\n"
        "        return found\n"
        "def darker(image, by=2):\n    return image // by\n"
        "def wrong(image):\n    return image.float()\n"
        "class Mute:\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    use_folder(folder)
    return folder


def test_class_of_the_users_own(own: Path) -> None:
    parts = [
        {"class": "own_transforms:Noise", "args": {"most": 5}},
        {"class": "own_transforms:darker", "args": {"by": 3}},
    ]
    first, second = (augmented(loaded(own, parts), indices) for indices in ([0, 1], [1]))
    assert torch.equal(first[1], second[0]), "random, numpy and torch are seeded for each row"
    assert not torch.equal(first[0, 0, 0, :3], first[1, 0, 0, :3])
    assert int(first.max()) <= 85


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"class": "own_transforms:Nois"}, r"did you mean"),
        ({"class": "own_transforms:Noise", "args": {"least": 1}}, r"data\.images\.augment\[0\]\.args\.least"),
        ({"class": "own_transforms:Mute"}, "can't be called with an image"),
        ({"name": "other/solarize"}, r"data\.images\.augment\[0\]\.name: unknown transform 'other/solarize'"),
    ],
)
def test_what_is_no_transform_is_refused_before_the_first_step(own: Path, part: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        loaded(own, [part])


def test_another_type_of_pixels_is_refused(own: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"own_transforms:wrong returned torch\.float32 of \(3, 12, 12\); exp"):
        augmented(loaded(own, [{"class": "own_transforms:wrong"}]), [0])
