"""Pixels are those that a viewer shows, or the file is refused with a reason."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trainmaster_trainer.data.images.decode import Header, Look, UnreadableError, decode, read_header

GREY = Look((4, 6), 1, (255, 255, 255), None)
RGB = Look((4, 6), 3, (255, 255, 255), None)
RAMP = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
EXIF_ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(look: Look) -> Look:
    return Look(look.size[::-1], look.channels, look.background, look.value_range)


def test_eight_bits_are_as_they_are() -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(RAMP)), GREY), RAMP[None])
    color = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=2)
    assert np.array_equal(decode(encoded(Image.fromarray(color)), RGB), color.transpose(2, 0, 1))


# what a viewer does with a stored image, by the value of EXIF's Orientation (CIPA DC-008, 4.6.5.1.6)
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
def test_exif_orientation(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    options = {"lossless": True} if kind == "webp" else {}
    content = encoded(Image.fromarray(RAMP).convert("RGB"), kind, exif=exif, **options)
    expected = UPRIGHT[orientation](RAMP)
    look = RGB if expected.shape == RAMP.shape else turned(RGB)
    assert np.array_equal(decode(content, look)[0], expected)


def test_exif_orientation_of_sixteen_bits() -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    content = encoded(Image.fromarray(RAMP.astype(np.uint16) * 257), "png", exif=exif)
    assert np.allclose(decode(content, turned(GREY))[0] * 255, np.rot90(RAMP, -1), atol=1e-4)


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_sixteen_bits_equal_eight_bits(kind: str) -> None:
    """257 = 65535 / 255."""
    content = encoded(Image.fromarray(RAMP.astype(np.uint16) * 257), kind)
    found = decode(content, RGB)
    assert found.dtype == np.float32
    assert np.allclose(found * 255, np.stack([RAMP] * 3), atol=1e-4)


def test_a_declared_range_of_twelve_bits() -> None:
    values = np.array([[0, 1000, 4095, 5000]], dtype=np.uint16)
    found = decode(encoded(Image.fromarray(values)), Look((1, 4), 1, (0, 0, 0), (1000, 4095)))
    assert np.allclose(found[0, 0], [0, 0, 1, 1])


@pytest.mark.parametrize(("dtype", "word"), [(np.float32, "floating-point"), (np.int32, "32-bit")])
def test_a_range_that_nothing_tells_is_asked_for(dtype: Any, word: str) -> None:
    content = encoded(Image.fromarray(RAMP.astype(dtype)), "tiff")
    for call in (decode, read_header):
        with pytest.raises(UnreadableError, match=rf"{word} image.* set data\.images\.valueRange"):
            call(content, GREY)
    found = decode(content, Look((4, 6), 1, (0, 0, 0), (0, 230)))
    assert np.allclose(found[0], RAMP / 230)


def test_a_floating_point_image_with_nan() -> None:
    values = RAMP.astype(np.float32)
    values[1, 2] = np.nan
    with pytest.raises(UnreadableError, match="not finite"):
        decode(encoded(Image.fromarray(values), "tiff"), Look((4, 6), 1, (0, 0, 0), (0, 230)))


def half_transparent() -> Image.Image:
    alpha = np.zeros((4, 6), dtype=np.uint8)
    alpha[:, :3] = 255
    return Image.fromarray(np.stack([RAMP, RAMP, RAMP, alpha], axis=2))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_show_the_background(mode: str) -> None:
    image = half_transparent()
    content = encoded(image.quantize(256) if mode == "P" else image.convert(mode))
    assert read_header(content, RGB).is_transparent
    for background in (255, 0, 128):
        found = decode(content, Look((4, 6), 1, (background,) * 3, None))[0]
        assert (found[:, 3:] == background).all()
        assert np.abs(found[:, :3].astype(int) - RAMP[:, :3]).max() <= (0 if mode != "P" else 8)


def test_a_colour_that_is_declared_transparent() -> None:
    content = encoded(Image.fromarray(RAMP), transparency=10)
    found = decode(content, GREY)[0]
    assert found[0, 1] == 255
    assert np.array_equal(np.delete(found.flatten(), 1), np.delete(RAMP.flatten(), 1))


def test_a_palette_is_resolved() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), mode="P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    found = decode(encoded(image), Look((1, 3), 3, (0, 0, 0), None))
    assert np.array_equal(found[:, 0], np.eye(3, dtype=np.uint8) * 255)


@pytest.mark.parametrize("mode", ["1", "CMYK", "YCbCr"])
def test_other_modes_look_like_rgb(mode: str) -> None:
    color = np.zeros((4, 6, 3), dtype=np.uint8)
    color[:, :3] = 255
    image = Image.fromarray(color).convert(mode)
    kind = "png" if mode == "1" else "tiff"
    assert np.abs(decode(encoded(image, kind), RGB).astype(int) - color.transpose(2, 0, 1)).max() <= 2


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.fromarray(np.full((4, 6), value, dtype=np.uint8)) for value in (0, 200)]
    content = encoded(frames[0], "gif", save_all=True, append_images=frames[1:])
    assert read_header(content, GREY) == Header(is_animated=True, is_transparent=False)
    assert (decode(content, GREY) == 0).all()


def test_a_broken_exif_block_is_ignored() -> None:
    content = encoded(Image.fromarray(RAMP).convert("RGB"), "png", exif=b"Exif\x00\x00II*\x00garbage")
    assert np.array_equal(decode(content, RGB)[0], RAMP)


@pytest.mark.parametrize("content", [b"", b"junk", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM" + b"\0" * 60])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    for call in (decode, read_header):
        with pytest.raises(UnreadableError, match=r"\S"):
            call(content, GREY)


def test_a_truncated_image_is_refused_when_it_is_decoded() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    content = encoded(Image.fromarray(noise))[:2000]
    assert read_header(content, GREY) == Header(is_animated=False, is_transparent=False)
    with pytest.raises(UnreadableError, match="truncated"):
        decode(content, GREY)


# -- other ratios -----------------------------------------------------------------------------------------------------
WIDE = np.arange(32, dtype=np.uint8).reshape(4, 8) * 8


@pytest.mark.parametrize("deep", [False, True])
def test_resize_crop_keeps_the_middle(deep: bool) -> None:
    """Nothing is scaled here, so that the pixels are those of the file."""
    look = Look((4, 4), 1, (255, 255, 255), None, "crop")
    found = decode(encoded(Image.fromarray(WIDE.astype(np.uint16) * 257 if deep else WIDE)), look)[0]
    assert np.allclose(found * 255 if deep else found, WIDE[:, 2:6], atol=1e-4)


@pytest.mark.parametrize("deep", [False, True])
def test_resize_pad_shows_the_background(deep: bool) -> None:
    look = Look((8, 8), 1, (100, 100, 100), None, "pad")
    found = decode(encoded(Image.fromarray(WIDE.astype(np.uint16) * 257 if deep else WIDE)), look)[0]
    expected = np.full((8, 8), 100)
    expected[2:6] = WIDE
    assert np.allclose(found * 255 if deep else found, expected, atol=1e-4)


def test_resize_pad_in_color() -> None:
    found = decode(encoded(Image.fromarray(WIDE.T)), Look((8, 8), 3, (10, 20, 30), None, "pad"))
    assert found[:, 0, 0].tolist() == [10, 20, 30]
    assert np.array_equal(found[:, :, 2:6], np.stack([WIDE.T] * 3))


def test_resize_pad_of_a_line() -> None:
    found = decode(encoded(Image.fromarray(np.zeros((1, 900), dtype=np.uint8))), Look((8, 8), 1, (9,) * 3, None, "pad"))
    assert sorted(found[0, :, 0].tolist()) == [0] + [9] * 7


def test_interpolation_nearest_makes_no_new_values() -> None:
    image = Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8))
    near, smooth = (
        decode(encoded(image), Look((8, 8), 1, (0, 0, 0), None, "stretch", interpolation))
        for interpolation in ("nearest", "bicubic")
    )
    assert np.array_equal(near[0], np.kron(np.array([[0, 255], [255, 0]]), np.ones((4, 4))))
    assert len(np.unique(smooth)) > 8


def test_interpolation_stays_in_the_range() -> None:
    image = Image.fromarray(np.array([[0, 65535] * 8] * 16, dtype=np.uint16))
    found = decode(encoded(image), Look((40, 40), 1, (0, 0, 0), None, "stretch", "lanczos"))
    assert (float(found.min()), float(found.max())) == (0.0, 1.0)
