"""Situations with images from public bug reports, and further members of their kinds: pixels as a viewer shows them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.errors import DataError

from tests.unit.trainer.harness import small_job, train

ROWS = 120
SIZE = 16
ORIENTATION = 0x0112


def job(**data: Any) -> Any:
    return small_job(
        {
            "spec.training.task": {"name": "classification"},
            "spec.training.data": {"source": "images:images", "imageSize": SIZE, "batchSize": 16, **data},
            "spec.training.model": {"name": "mlp", "args": {"hidden": [32]}},
            "spec.training.optimizer": {"name": "adamw", "lr": 0.01},
            "spec.training.loop": {"duration": "10ep", "seed": 1},
        }
    )


def load(folder: Path, **data: Any) -> Prepared:
    return load_data(job(**data), folder, {})


def refusal(folder: Path, **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(folder, **data)
    return str(caught.value)


def accuracy(folder: Path, **data: Any) -> float:
    return train(job(**data), folder).test_metrics["test/accuracy"]


def skies(folder: Path, save: Callable[[Image.Image, Path], None]) -> None:
    """Write pictures whose upper (class up) or lower half is bright."""
    dice = np.random.default_rng(0)
    for number in range(ROWS):
        label = ("up", "down")[number % 2]
        pixels = dice.integers(0, 60, (SIZE, SIZE), dtype=np.uint8)
        half = slice(0, SIZE // 2) if label == "up" else slice(SIZE // 2, None)
        pixels[half] += 150
        (folder / "images" / label).mkdir(parents=True, exist_ok=True)
        save(Image.fromarray(pixels), folder / "images" / label / f"{number:03d}")


def write(path: Path, image: Image.Image, ending: str, **options: Any) -> None:
    out = io.BytesIO()
    image.save(out, {"jpg": "jpeg", "tif": "tiff"}.get(ending, ending), **options)
    path.with_name(f"{path.name}.{ending}").write_bytes(out.getvalue())


# --- more than 8 bits (Pillow#2574) ----------------------------------------------------------------------------------


def deep(dtype: str, top: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: Image.fromarray((np.asarray(image) / 255 * top).astype(dtype))


@pytest.mark.parametrize(
    ("change", "ending", "images"),
    [
        (lambda image: image, "png", {}),
        (deep("uint16", 65535), "png", {}),
        (deep(">u2", 65535), "tif", {}),
        (deep("uint16", 4095), "tif", {"valueRange": [0, 4095]}),
        (deep("float32", 1), "tif", {"valueRange": [0, 1]}),
        (deep("int32", 10**6), "tif", {"valueRange": [0, 10**6]}),
        (lambda image: image.convert("RGB").convert("CMYK"), "jpg", {}),
        (lambda image: image.convert("RGB").quantize(64), "gif", {}),
        (lambda image: image.convert("LA"), "png", {}),
    ],
    ids=["8", "16", "I;16B", "12-of-16", "float", "int32", "cmyk", "palette", "alpha"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_any_depth_shows_the_picture(
    tmp_path: Path, change: Callable[[Image.Image], Image.Image], ending: str, images: dict[str, Any], channels: int
) -> None:
    skies(tmp_path, lambda image, path: write(path, change(image), ending))
    data = load(tmp_path, channels=channels, images=images)
    x, y = data.rows.batch(np.arange(ROWS))
    difference = (x[:, :, : SIZE // 2].mean(dim=(1, 2, 3)) - x[:, :, SIZE // 2 :].mean(dim=(1, 2, 3))).numpy()
    sign = np.where(np.array(data.rows.labels)[y.numpy()] == "up", 1, -1)
    np.testing.assert_allclose(difference * sign, 150 / 255, atol=0.05)


def test_sixteen_bits_train_as_eight_do(tmp_path: Path) -> None:
    skies(tmp_path, lambda image, path: write(path, deep("uint16", 65535)(image), "png"))
    assert accuracy(tmp_path, channels=1) == 1.0


@pytest.mark.parametrize(("dtype", "word"), [("float32", "floating-point"), ("int32", "32-bit")])
def test_depth_without_a_range_is_refused_before_the_first_step(tmp_path: Path, dtype: str, word: str) -> None:
    skies(tmp_path, lambda image, path: write(path, deep(dtype, 1)(image), "tif"))
    found = refusal(tmp_path)
    assert f"images/down/001.tif: a {word} image" in found
    assert f"and {ROWS - 10} more" in found


# --- orientation that only EXIF has (torchvision#7977) ---------------------------------------------------------------

# how a camera that is held in this way stores an upright picture: the inverse of what a viewer does (CIPA DC-008)
STORED: dict[int, Callable[[Any], Any]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: np.rot90,
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_every_orientation_shows_the_picture(tmp_path: Path, ending: str) -> None:
    def save(image: Image.Image, path: Path) -> None:
        exif = Image.Exif()
        exif[ORIENTATION] = 1 + int(path.name) // 2 % 8
        stored = Image.fromarray(np.ascontiguousarray(STORED[exif[ORIENTATION]](np.asarray(image))))
        write(path, stored.convert("RGB"), ending, exif=exif, **({"quality": 95} if ending == "jpg" else {}))

    skies(tmp_path, save)
    assert accuracy(tmp_path) == 1.0


# --- names that nobody has given (torchvision#2831), and files that are broken ----------------------------------------

HIDDEN = [
    ".ipynb_checkpoints/7-checkpoint.png", "up/.ipynb_checkpoints/8.png", "up/._000.png", "down/.DS_Store",
    "Thumbs.db", "up/Thumbs.db", "down/desktop.ini", "__MACOSX/up/._000.png", ".git/x.png",
]  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_name_is_no_class_and_no_image(tmp_path: Path, name: str) -> None:
    skies(tmp_path, lambda image, path: write(path, image, "png"))
    hidden = tmp_path / "images" / name
    hidden.parent.mkdir(parents=True, exist_ok=True)
    hidden.write_bytes(b"no image")
    data = load(tmp_path, images={"check": "full"})
    assert (len(data.rows), data.rows.labels) == (ROWS, ["down", "up"])
    assert f"1 hidden file passed over, such as {name}" in data.about()


def jpeg(change: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    def make() -> bytes:
        out = io.BytesIO()
        pixels = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(out, "jpeg")
        return change(out.getvalue())

    return make


@pytest.mark.parametrize(
    ("make", "check"),
    [
        (lambda: b"", "headers"),
        (lambda: b"<html>404</html>", "headers"),
        (lambda: b"\x89PNG\r\n\x1a\n", "headers"),
        (jpeg(lambda content: content[:3000]), "full"),
        (jpeg(lambda content: content[: len(content) // 2]), "full"),
    ],
    ids=["empty", "html", "png-header", "cut-off", "half"],
)
def test_broken_files_are_all_named_before_the_first_step(
    tmp_path: Path, make: Callable[[], bytes], check: str
) -> None:
    skies(tmp_path, lambda image, path: write(path, image, "png"))
    for number in range(12):
        (tmp_path / "images" / "up" / f"broken{number:02d}.jpg").write_bytes(make())
    found = refusal(tmp_path, images={"check": check})
    assert found.startswith(f"12 images of {ROWS + 12} can't be read: images/up/broken00.jpg: ")
    assert "images/up/broken09.jpg: " in found
    assert "broken10" not in found
    assert "and 2 more" in found


def test_classes_whose_folders_differ_in_case_are_said(tmp_path: Path) -> None:
    skies(tmp_path, lambda image, path: write(path, image, "png"))
    (tmp_path / "images" / "Up").mkdir()
    for number in range(20):
        Image.new("L", (8, 8), number).save(tmp_path / "images" / "Up" / f"{number}.png")
    assert any("'Up', 'up' differ in case" in warning for warning in load(tmp_path).warnings)
