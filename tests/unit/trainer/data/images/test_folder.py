"""What is in a folder: images by class, and everything else counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trainmaster_trainer.data.files import Files
from trainmaster_trainer.data.images.content import FolderContent
from trainmaster_trainer.data.images.decode import Look
from trainmaster_trainer.data.images.folder import check_images, list_images
from trainmaster_trainer.data.tables import cache
from trainmaster_trainer.errors import DataError
from trainmaster_trainer.storage.store import Store

LOOK = Look((4, 4), 1, (255, 255, 255), None)


def test_hidden_names_are_passed_over_and_counted() -> None:
    """Of Jupyter, macOS and Windows; a class may begin with an underscore."""
    names = [
        "cat/1.png", "_background/2.JPG", ".ipynb_checkpoints/1-checkpoint.png", "cat/._1.png", "cat/.DS_Store",
        "__MACOSX/cat/1.png", "cat/Thumbs.db",
    ]  # fmt: skip
    found = list_images("pictures", names, nested=False)
    assert found.paths == ["_background/2.JPG", "cat/1.png"]
    assert (found.labels, found.classes) == (["_background", "cat"], [0, 1])
    assert found.notes == ("5 hidden files passed over, such as .ipynb_checkpoints/1-checkpoint.png",)


def test_foreign_and_loose_files_are_counted() -> None:
    found = list_images("pictures", ["a/1.png", "a/labels.csv", "b/2.tif", "preview.png"], nested=False)
    assert found.paths == ["a/1.png", "b/2.tif"]
    assert [note.split(" (")[0] for note in found.notes] == [
        "1 file passed over: not an image by its extension",
        "1 image passed over: not in a sub-folder, so of no class, such as preview.png",
    ]


def test_nested_folders_are_a_choice() -> None:
    names = ["a/x/1.png", "a/2.png", "b/y/z/3.png"]
    with pytest.raises(DataError, match=r"2 images in nested folders, such as a/x/1.png; set data.images.nested: true"):
        list_images("pictures", names, nested=False)
    found = list_images("pictures", names, nested=True)
    assert list(zip(found.paths, found.classes, strict=True)) == [("a/2.png", 0), ("a/x/1.png", 0), ("b/y/z/3.png", 1)]


@pytest.mark.parametrize("names", [[], ["1.png"], ["a/notes.txt"], [".hidden/1.png"]])
def test_a_folder_without_images(names: list[str]) -> None:
    with pytest.raises(DataError, match="has no images in a sub-folder"):
        list_images("pictures", names, nested=False)


@pytest.fixture
def folder(tmp_path: Path) -> Files:
    for name in range(30):
        path = tmp_path / "a" / f"{name:02}.png"
        path.parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(name).integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return Files(Store(str(tmp_path)), "", "pictures")


def content(files: Files) -> FolderContent:
    return FolderContent(files, sorted(path for path, _ in files.store.list()))


def test_every_unreadable_file_is_named_at_once(folder: Files) -> None:
    root = folder.store.root / "a"
    (root / "03.png").write_bytes(b"junk")
    (root / "17.png").write_bytes(b"")
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(root / "30.tif")
    with pytest.raises(DataError) as caught:
        check_images(content(folder), LOOK, full=False)
    text = str(caught.value)
    assert text.startswith("3 images of 31 can't be read: pictures/a/03.png: unknown image format; pictures/a/17.png:")
    assert "pictures/a/30.tif: a floating-point image" in text
    for number in range(12):
        (root / f"{number:02}.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"14 images of 31 can't be read: .*a/09.png: [^;]* and 4 more\. Replace"):
        check_images(content(folder), LOOK, full=False)


@pytest.mark.parametrize("full", [False, True])
def test_check_says_how_far_it_is(folder: Files, full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_SAY_SECONDS", 0.0)
    said: list[str] = []
    check_images(content(folder), LOOK, said.append, full=full)
    assert len(said) == 30
    assert said[14] == "checking pictures [##########          ] 50% of 30 images"


def test_a_full_check_decodes(folder: Files) -> None:
    path = folder.store.root / "a" / "05.png"
    path.write_bytes(path.read_bytes()[:900])
    assert check_images(content(folder), LOOK, full=False) == ()
    with pytest.raises(DataError, match=r"1 image of 30 can't be read: pictures/a/05.png: .*truncated"):
        check_images(content(folder), LOOK, full=True)


def test_what_a_viewer_would_hide_is_said(folder: Files) -> None:
    root = folder.store.root / "a"
    frames = [Image.fromarray(np.full((4, 6), value, dtype=np.uint8)) for value in (0, 200)]
    frames[0].save(root / "x.gif", save_all=True, append_images=frames[1:])
    Image.new("RGBA", (4, 4), (1, 2, 3, 0)).save(root / "y.png")
    assert check_images(content(folder), LOOK, full=False) == (
        "1 animation of which only the first frame is used, such as a/x.gif",
        "1 transparent image shown on #ffffff (data.images.background), such as a/y.png",
    )
