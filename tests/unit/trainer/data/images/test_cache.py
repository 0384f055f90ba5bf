"""Pixels that are kept: the same as decoded, within their bounds, and never those of another image."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from trainmaster_trainer.data import load_data
from trainmaster_trainer.data.images.decode import Look, Pixels, decode
from trainmaster_trainer.data.images.rows import ImageRows
from trainmaster_trainer.errors import ConfigurationError

from tests.unit.trainer.harness import small_job

ROWS = 40
SLOT = 3 * 8 * 8 + 8  # bytes of pixels, and of the mark
EVERYTHING = np.arange(ROWS)


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8))


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINMASTER_CACHE", str(tmp_path / "cache"))
    for number in range(ROWS):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number:02}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    return tmp_path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every image that is decoded."""
    calls: list[int] = []

    def counted(content: bytes, look: Look) -> Pixels:
        calls.append(len(content))
        return decode(content, look)

    monkeypatch.setattr("trainmaster_trainer.data.images.rows.decode", counted)
    return calls


def loaded(root: Path, memory: str = "0", disk: str = "0", **images: Any) -> ImageRows:
    # known statistics, so that nothing is decoded to measure them
    images = {"cache": {"memory": memory, "disk": disk}, "normalize": {"statistics": "imagenet"}} | images
    data = {"source": "images:pictures", "imageSize": 8, "batchSize": 2, "images": images}
    job = small_job({"spec.training.data": data, "spec.training.task": {"name": "classification"}})
    rows = load_data(job, root, {}).rows
    assert isinstance(rows, ImageRows)
    return rows


def files(root: Path) -> list[Path]:
    return sorted((root / "cache" / "pixels").iterdir())


def test_memory_is_bounded(root: Path, decoded: list[int]) -> None:
    for room, again in ((10, ROWS - 10), (0, ROWS)):
        rows = loaded(root, memory=str(room * SLOT + 3))
        first = rows.batch(EVERYTHING)[0]
        decoded.clear()
        assert torch.equal(rows.batch(EVERYTHING)[0], first)
        assert len(decoded) == again


def _read(rows: ImageRows, queue: Any) -> None:
    queue.put(rows.batch(EVERYTHING)[0].numpy())


def test_forked_processes_share_the_memory(root: Path, decoded: list[int]) -> None:
    rows = loaded(root, memory="1Mi")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_read, args=(rows, queue))
    process.start()
    try:
        found = queue.get(timeout=60)
    finally:
        process.kill()
    decoded.clear()
    assert np.array_equal(rows.batch(EVERYTHING)[0].numpy(), found)
    assert decoded == []


def test_memory_is_not_sent_to_another_process(root: Path, decoded: list[int]) -> None:
    rows = loaded(root, memory="1Mi")
    first = rows.batch(EVERYTHING)[0]
    content = pickle.dumps(rows)
    assert len(content) < ROWS * SLOT
    other = pickle.loads(content)
    for again in (ROWS, 0):
        decoded.clear()
        assert torch.equal(other.batch(EVERYTHING)[0], first)
        assert len(decoded) == again


def test_disk_is_found_again_by_another_process(root: Path, decoded: list[int]) -> None:
    code = (
        "import sys, pathlib; from tests.unit.trainer.data.images.test_cache import *;"
        "loaded(pathlib.Path(sys.argv[1]), disk='1Mi').batch(EVERYTHING)"
    )
    subprocess.run([sys.executable, "-c", code, str(root)], check=True)
    rows = loaded(root, disk="1Mi")
    found = rows.batch(EVERYTHING)[0]
    assert decoded == []
    assert torch.equal(found, loaded(root).batch(EVERYTHING)[0])


def test_disk_is_bounded(root: Path, decoded: list[int]) -> None:
    loaded(root, disk=str(SLOT * 15 + 3)).batch(EVERYTHING)
    rows = loaded(root, disk=str(SLOT * 15 + 3))
    decoded.clear()
    rows.batch(EVERYTHING)
    assert len(decoded) == ROWS - 15
    assert files(root)[0].stat().st_size == SLOT * 15


def test_disk_keeps_what_memory_does_not(root: Path, decoded: list[int]) -> None:
    rows = loaded(root, memory=str(10 * SLOT), disk="1Mi")
    rows.batch(EVERYTHING)
    decoded.clear()
    rows.batch(EVERYTHING)
    assert decoded == []


@pytest.mark.parametrize(
    "change",
    [{"background": "black"}, {"resize": {"mode": "crop"}}, {"resize": {"interpolation": "nearest"}}],
    ids=lambda change: str(next(iter(change))),
)
def test_another_look_is_another_file(root: Path, decoded: list[int], change: dict[str, Any]) -> None:
    loaded(root, disk="1Mi").batch(EVERYTHING)
    loaded(root, disk="1Mi", augment=[{"name": "randomHorizontalFlip"}]).batch(EVERYTHING)
    assert len(files(root)) == 1, "augmentation comes after it"
    found = loaded(root, disk="1Mi", **change).batch(EVERYTHING)[0]
    assert len(files(root)) == 2
    assert torch.equal(found, loaded(root, **change).batch(EVERYTHING)[0])


def test_changed_image_of_the_same_size_and_time(root: Path) -> None:
    loaded(root, disk="1Mi").batch(EVERYTHING)
    path = root / "pictures" / "a" / "00.bmp"
    before = path.stat()
    picture(77).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert torch.equal(loaded(root, disk="1Mi").batch(EVERYTHING)[0], loaded(root).batch(EVERYTHING)[0])


def test_removed_image_moves_the_rows(root: Path) -> None:
    loaded(root, disk="1Mi").batch(EVERYTHING)
    (root / "pictures" / "a" / "00.bmp").unlink()
    some = np.arange(ROWS - 1)
    assert torch.equal(loaded(root, disk="1Mi").batch(some)[0], loaded(root).batch(some)[0])


@pytest.mark.parametrize("position", [0, 3, 8, 60, SLOT - 1])
def test_row_that_was_not_written_completely_does_not_count(root: Path, decoded: list[int], position: int) -> None:
    """Any other byte is noticed: a mark without its pixels, and pixels without their mark."""
    loaded(root, disk="1Mi").batch(EVERYTHING)
    decoded.clear()
    (path,) = files(root)
    content = bytearray(path.read_bytes())
    content[5 * SLOT + position] ^= 0x55
    path.write_bytes(content)
    found = loaded(root, disk="1Mi").batch(EVERYTHING)[0]
    assert len(decoded) == 1
    assert torch.equal(found, loaded(root).batch(EVERYTHING)[0])
    decoded.clear()
    loaded(root, disk="1Mi").batch(EVERYTHING)
    assert decoded == [], "it was written again"


def test_killed_while_it_writes(root: Path) -> None:
    code = (
        "import sys, pathlib, os; from tests.unit.trainer.data.images.test_cache import *;"
        "rows = loaded(pathlib.Path(sys.argv[1]), disk='1Mi'); count = 0; real = os.pwrite\n"
        "def dying(*args):\n"
        "    global count; count += 1\n"
        "    if count == 41: real(args[0], args[1][:100], args[2]); os.kill(os.getpid(), 9)\n"
        "    return real(*args)\n"
        "os.pwrite = dying; rows.batch(EVERYTHING)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], check=False)
    assert done.returncode == -signal.SIGKILL
    rows = loaded(root, disk="1Mi")
    assert torch.equal(rows.batch(EVERYTHING)[0], loaded(root).batch(EVERYTHING)[0])


def test_full_disk_stops_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = loaded(root, disk="1Mi")

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert torch.equal(rows.batch(EVERYTHING)[0], loaded(root).batch(EVERYTHING)[0])


def test_folder_that_can_not_be_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "file").touch()
    monkeypatch.setenv("TRAINMASTER_CACHE", str(root / "file"))
    with pytest.raises(
        ConfigurationError, match=r"data\.images\.cache\.disk: the cache can't be opened: .*TRAINMASTER"
    ):
        loaded(root, disk="1Mi")


def test_file_that_nobody_uses_is_deleted(root: Path) -> None:
    loaded(root, disk="1Mi").batch(EVERYTHING)
    (old,) = files(root)
    os.utime(old, (1, 1))
    loaded(root, disk="1Mi", background="black")
    assert old not in files(root)


def test_sixteen_bits_are_decoded_again(root: Path, decoded: list[int]) -> None:
    deep = np.arange(81, dtype=np.uint16).reshape(9, 9) * 700
    Image.fromarray(deep).save(root / "pictures" / "a" / "deep.png")
    deep_row = loaded(root, disk="1Mi").content.paths.index("a/deep.png")  # type: ignore[attr-defined]
    some = np.array([0, deep_row])
    loaded(root, disk="1Mi").batch(some)
    rows = loaded(root, disk="1Mi")
    decoded.clear()
    found = rows.batch(some)[0]
    assert len(decoded) == 1
    assert torch.equal(found, loaded(root).batch(some)[0])
