"""Images that would not count, or count twice, without a word: each is said, or refused."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.data.fingerprint import take
from trainmaster_trainer.errors import DataError

from tests.unit.trainer.harness import small_job

COUNT = 40
KINDS = ["pictures", "zip", "tar"]
Change = Callable[[Path], None]


def png(number: int, form: str = "png") -> bytes:
    target = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).save(target, form)
    return target.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(COUNT):
        put(tmp_path / "pictures" / "ab"[number % 2] / f"{number:02}.png", png(number))
    return tmp_path


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def source(root: Path, kind: str) -> str:
    """Return the source that has the pictures, packed with its links and empty folders if asked."""
    folder = root / "pictures"
    if kind == "pictures":
        return "images:pictures"
    if kind == "tar":
        with tarfile.open(root / "packed.tar", "w") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name)
        return "images:packed.tar"
    with zipfile.ZipFile(root / "packed.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if path.is_symlink():
                info = zipfile.ZipInfo(name)
                info.external_attr = 0o120777 << 16  # as `zip --symlinks` writes it
                archive.writestr(info, str(path.readlink()))
            else:
                archive.write(path, name)
    return "images:packed.zip"


def job_of(source: str = "images:pictures", **data: Any) -> TrainingJob:
    asked = {"source": source, "imageSize": 8, "batchSize": 2} | data
    return small_job({"spec.training.data": asked, "spec.training.task": {"name": "classification"}})


def loaded(root: Path, source: str = "images:pictures", **data: Any) -> Prepared:
    return load_data(job_of(source, **data), root, {})


def refused(root: Path, source: str = "images:pictures", **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        loaded(root, source, **data)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_folder_has_nothing_to_say(root: Path, kind: str) -> None:
    data = loaded(root, source(root, kind))
    assert (len(data.rows), data.notes, data.warnings) == (COUNT, (), ())


# -- folders that are no classes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_class_folder_without_images(root: Path, kind: str) -> None:
    """Of nothing, or of files that aren't read: no class, and no output of the model."""
    (root / "pictures" / "dog").mkdir()
    put(root / "pictures" / "eel" / "1.heic", b"heic")
    put(root / "pictures" / "eel" / "2.HEIC", b"heic")
    put(root / "pictures" / "eel" / "README", b"text")
    (root / "pictures" / ".hidden").mkdir()
    asked = source(root, kind)
    data = loaded(root, asked)
    assert data.rows.labels == ["a", "b"]
    assert data.warnings == (
        f"data.source {asked}: 2 folders have no image and are no classes: 'dog', 'eel'. The model has no output for "
        "it; add images, or remove it",
    )
    (note,) = data.notes
    assert note.startswith("3 files passed over: not an image by its extension")
    assert note.endswith("): 2 .heic, 1 without one, such as eel/1.heic")


def test_class_folder_without_images_in_another_source(root: Path) -> None:
    for number in range(8):
        put(root / "val" / "ab"[number % 2] / f"{number}.png", png(100 + number))
    (root / "val" / "c").mkdir()
    data = loaded(root, validationSource="images:val")
    (warning,) = data.warnings
    assert warning.startswith("data.validationSource images:val: 1 folder has no image and is no class: 'c'.")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["A", "a ", "ａ"])
def test_class_folders_that_look_alike(root: Path, kind: str, name: str) -> None:
    for number in range(20):
        put(root / "pictures" / name / f"{number}.png", png(200 + number))
    data = loaded(root, source(root, kind))
    assert data.rows.labels == sorted(["a", "b", name])
    assert any("differ in case, space or invisible characters only" in words for words in data.warnings)


@pytest.mark.parametrize("kind", KINDS)
def test_class_folders_in_two_unicode_forms(root: Path, kind: str) -> None:
    forms = [unicodedata.normalize(form, "Pré") for form in ("NFC", "NFD")]
    assert forms[0] != forms[1]
    for number in range(40):
        put(root / "pictures" / forms[number % 2] / f"{number}.png", png(300 + number))
    (warning,) = loaded(root, source(root, kind)).warnings
    assert "classes 'Pr\\xe9', 'Pre\\u0301' differ" in warning or "classes 'Pre\\u0301', 'Pr\\xe9' differ" in warning


@pytest.mark.parametrize("kind", KINDS)
def test_classes_that_are_called_as_splits(root: Path, kind: str) -> None:
    for number in range(COUNT):
        place = root / "other" / ("Train", "val")[number % 2] / "ab"[number // 2 % 2] / f"{number}.png"
        put(place, png(number))
    shutil.rmtree(root / "pictures")
    (root / "other").rename(root / "pictures")
    asked = source(root, kind)
    (warning,) = loaded(root, asked, images={"nested": True}).warnings
    assert warning.startswith(f"data.source {asked}: the classes are called Train, val, as splits are. If each has")


# -- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a/99.png", "a/99", "c"])
def test_link_to_nothing_that_may_be_an_image(root: Path, name: str) -> None:
    """Such as the files of git-annex that weren't fetched."""
    (root / "pictures" / name).symlink_to("/nowhere/99.png")
    assert refused(root).startswith(f"data.source images:pictures has 1 link to nothing: {name}. Remove the links")


@pytest.mark.parametrize("name", ["a/notes.txt", "cover.png"])
def test_link_to_nothing_that_is_no_image(root: Path, name: str) -> None:
    (root / "pictures" / name).symlink_to("/nowhere/notes.txt")
    data = loaded(root)
    assert (len(data.rows), data.notes) == (COUNT, (f"1 link to nothing passed over, such as {name}",))


def test_link_to_a_folder_outside(root: Path) -> None:
    for number in range(12):
        put(root / "outside" / f"{number}.png", png(400 + number))
    (root / "pictures" / "c").symlink_to("../outside")
    data = loaded(root)
    assert (len(data.rows), data.rows.labels) == (COUNT + 12, ["a", "b", "c"])
    assert data.notes == ("1 link to folders read as folders, such as c",)


def test_link_to_a_folder_that_it_is_in(root: Path) -> None:
    (root / "pictures" / "a" / "all").symlink_to("..")
    words = "data.source images:pictures has links to a folder that they are in, .*: a/all. Remove the links"
    with pytest.raises(DataError, match=words):
        loaded(root, images={"nested": True})
    with pytest.raises(DataError, match=words):
        take(job_of(), root, {})


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_links_that_count_twice(root: Path, link: Callable[[Path, Path], None]) -> None:
    folder = root / "pictures"
    link(folder / "a" / "00.png", folder / "a" / "zz.png")
    data = loaded(root)
    assert len(data.rows) == COUNT + 1
    assert data.notes == (
        "1 image by a link the same file as another one, such as a/zz.png = a/00.png: each name counts as an image",
    )


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_links_in_an_archive_are_counted(root: Path, kind: str) -> None:
    folder = root / "pictures"
    (folder / "a" / "zz.png").symlink_to("00.png")
    (folder / "c").mkdir()
    (folder / "c" / "1.png").symlink_to("../a/00.png")
    asked = source(root, kind)
    data = loaded(root, asked)
    assert len(data.rows) == COUNT
    assert data.notes == ("2 links passed over, such as a/zz.png",)
    (warning,) = data.warnings
    assert warning.startswith(f"data.source {asked}: 1 folder has no image and is no class: 'c'.")


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_empty_file_is_named(root: Path, kind: str) -> None:
    put(root / "pictures" / "b" / "99.png", b"")
    assert "b/99.png: is empty (0 bytes). Replace or remove" in refused(root, source(root, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_what_systems_leave_behind(root: Path, kind: str) -> None:
    """Thumbnails of a NAS, in any case, are images of the right class that would count twice."""
    left = ["a/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "a/thumbs.db", "b/Desktop.ini", "__MACOSX/a/._1.png", "b/._1.jpg"]
    for name in left:
        put(root / "pictures" / name, png(0))
    data = loaded(root, source(root, kind), images={"nested": True})
    assert len(data.rows) == COUNT
    assert (data.notes, data.warnings) == (("5 hidden files passed over, such as __MACOSX/a/._1.png",), ())


@pytest.mark.parametrize("kind", KINDS)
def test_content_decides_and_not_the_extension(root: Path, kind: str) -> None:
    """Upper case, and a JPEG called .png, count as any other; a file beside the classes doesn't, and that is said."""
    put(root / "pictures" / "a" / "UPPER.PNG", png(500))
    put(root / "pictures" / "b" / "really.png", png(501, "jpeg"))
    put(root / "pictures" / "cover.jpg", png(502, "jpeg"))
    put(root / "pictures" / "labels.csv", b"x")
    data = loaded(root, source(root, kind))
    assert len(data.rows) == COUNT + 2
    assert [note.split(" (")[0] for note in data.notes] == [
        "1 file passed over: not an image by its extension",
        "1 image passed over: not in a sub-folder, so of no class, such as cover.jpg",
    ]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_again_in_an_archive_are_said(root: Path, kind: str) -> None:
    asked = source(root, kind)
    target = root / asked.removeprefix("images:")
    for name in ("a/00.png", "./a/02.png"):  # two ways to write one name
        if kind == "zip":
            with zipfile.ZipFile(target, "a") as archive:
                archive.writestr(name, png(600))
        else:
            with tarfile.open(target, "a") as tar:
                info = tarfile.TarInfo(name)
                info.size = len(png(600))
                tar.addfile(info, io.BytesIO(png(600)))
    data = loaded(root, asked)
    assert len(data.rows) == COUNT
    assert data.notes == ("2 names again in the archive, such as a/00.png: the last one counts, as when unpacked",)


def test_tar_behind_a_tar(root: Path) -> None:
    """`cat` of two archives: the second one begins behind the end of the first."""
    target = root / source(root, "tar").removeprefix("images:")
    target.write_bytes(target.read_bytes() * 2)
    assert refused(root, "images:packed.tar").startswith("data.source images:packed.tar has more behind its end")


def test_tar_that_was_cut_off_between_two_files(root: Path) -> None:
    target = root / source(root, "tar").removeprefix("images:")
    with tarfile.open(target) as tar:
        end = tar.getmember("b/39.png").offset
    target.write_bytes(target.read_bytes()[:end])
    data = loaded(root, "images:packed.tar")
    assert len(data.rows) == COUNT - 1
    assert any("packed.tar has no mark at its end, so it may be incomplete" in words for words in data.warnings)


# -- which source -----------------------------------------------------------------------------------------------------


def _loose(folder: Path) -> None:
    shutil.rmtree(folder)
    put(folder / "1.png", png(1))


def _deep(folder: Path) -> None:
    put(folder / "a" / "deep" / "1.png", png(1))


def _lost(folder: Path) -> None:
    (folder / "a" / "lost.png").symlink_to("nowhere")


@pytest.mark.parametrize("field", ["validationSource", "testSource"])
@pytest.mark.parametrize("change", [_loose, _deep, _lost])
def test_mistake_is_of_the_field_that_has_it(root: Path, field: str, change: Change) -> None:
    shutil.copytree(root / "pictures", root / "own")
    change(root / "own")
    assert refused(root, **{field: "images:own"}).startswith(f"data.{field} images:own has ")


@pytest.mark.parametrize("field", ["validationSource", "testSource"])
@pytest.mark.parametrize("name", ["own.zip", "own.tar", "own.tar.gz"])
def test_broken_archive_is_of_the_field_that_has_it(
    root: Path, field: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINMASTER_CACHE", str(root / "cache"))
    put(root / name, b"junk")
    assert refused(root, **{field: f"images:{name}"}).startswith(f"data.{field} images:{name} can't be ")
    (root / name).unlink()
    assert refused(root, **{field: f"images:{name}"}).startswith(f"data.{field} {name}: no such file")
