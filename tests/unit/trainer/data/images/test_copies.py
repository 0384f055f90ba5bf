"""Copies of image files in two splits or classes, and classes that a split lacks, are said before the first step."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.data.fingerprint import take
from trainmaster_trainer.data.images import copies as module

from tests.unit.trainer.harness import small_job

ROWS = 60


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files of one size each, so that the size alone tells nothing."""
    for number in range(ROWS):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number:02}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return tmp_path


def job_of(**data: Any) -> TrainingJob:
    asked = {"source": "images:pictures", "imageSize": 8, "batchSize": 2} | data
    return small_job({"spec.training.data": asked, "spec.training.task": {"name": "classification"}})


def loaded(root: Path, **data: Any) -> Prepared:
    return load_data(job_of(**data), root, {})


def paths(data: Prepared) -> list[str]:
    rows: Any = data.rows
    return [rows.content.name(row) for row in range(len(rows))]


def test_split_without_copies_says_nothing(root: Path) -> None:
    assert loaded(root).warnings == ()


@pytest.mark.parametrize("count", [1, 5])
def test_copies_between_splits(root: Path, count: int) -> None:
    first = loaded(root)
    names, folder = paths(first), root / "pictures"
    # each into an image of the same class in another split; numbers and split stay as they are
    classes = first.rows.row_classes  # type: ignore[attr-defined]
    expected: list[str] = []
    held = sorted([*first.validation, *first.test])
    for row in sorted(first.train.tolist()):
        other = next((each for each in held if classes[each] == classes[row]), None)
        if other is None or len(expected) == count:
            continue
        held.remove(other)
        (folder / names[row]).write_bytes((folder / names[other]).read_bytes())
        expected.append(f"{names[row]} = {names[other]}")
    (warning,) = loaded(root).warnings
    some = "; ".join(expected[:3]) + ("; ..." if count > 3 else "")
    are = "1 image of train is a copy of an image" if count == 1 else f"{count} images of train are copies of images"
    assert (
        warning
        == f"{are} of validation or test ({some}): the scores will be too good. Set data.dedupe: true to remove "
        "them from train"
    )


def test_copies_in_train_are_nobodys_business(root: Path) -> None:
    data = loaded(root)
    names, folder = paths(data), root / "pictures"
    classes = data.rows.row_classes  # type: ignore[attr-defined]
    one, other = [row for row in sorted(data.train.tolist()) if classes[row] == 0][:2]
    (folder / names[one]).write_bytes((folder / names[other]).read_bytes())
    assert loaded(root).warnings == ()


def test_copy_in_another_class(root: Path) -> None:
    data = loaded(root)
    names, folder = paths(data), root / "pictures"
    classes = data.rows.row_classes  # type: ignore[attr-defined]
    one = next(row for row in sorted(data.train.tolist()) if classes[row] == 0)
    other = next(row for row in sorted(data.train.tolist()) if classes[row] == 1)
    (folder / names[other]).write_bytes((folder / names[one]).read_bytes())
    assert loaded(root).warnings == (
        f"1 image with a copy in another class ({names[other]} = {names[one]}): one of the two is labeled wrong. "
        "Remove it",
    )


def test_classes_that_a_split_lacks(root: Path) -> None:
    for number in range(3):
        path = root / "pictures" / "rare" / f"{number}.bmp"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), number, dtype=np.uint8)).save(path)
    data = loaded(root, split={"by": "random", "seed": 1})
    expected = [
        name
        for name, rows in (("train", data.train), ("validation", data.validation), ("test", data.test))
        if not any(paths(data)[row].startswith("rare/") for row in rows)
    ]
    assert expected
    assert [words.split(":")[0] for words in data.warnings] == [
        f"the {name} split has no image of class `rare`" for name in expected
    ]


def test_too_much_to_compare_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (root / "pictures" / "a" / "00.bmp").stat().st_size
    monkeypatch.setattr(module, "MOST_BYTES", ROWS * size - 1)
    (warning,) = loaded(root).warnings
    assert warning.startswith(
        f"copies of images weren't looked for: 60 images have the size of another one, {ROWS * size:,}"
    )
    assert loaded(root, dedupe=True).warnings == ()  # asked for, they are


# -- dedupe -----------------------------------------------------------------------------------------------------------


def pack(root: Path, kind: str) -> str:
    """Return the source that has the pictures, packed if asked."""
    if kind != "pictures":
        form = {"zip": "zip", "tar": "tar", "tar.gz": "gztar"}[kind]
        shutil.make_archive(str(root / "packed"), form, root / "pictures")
        return f"images:packed.{kind}"
    return "images:pictures"


@pytest.mark.parametrize("kind", ["pictures", "zip", "tar", "tar.gz"])
def test_dedupe_removes_copies_from_train(root: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of validation and of test, whatever their class; not those within train, nor between the other two."""
    monkeypatch.setenv("TRAINMASTER_CACHE", str(root / "cache"))
    first = loaded(root)
    folder, names = root / "pictures", paths(first)
    classes = first.rows.row_classes  # type: ignore[attr-defined]
    train = first.train.tolist()
    is_same = [bool(classes[row] == classes[first.validation[0]]) for row in train]
    same, other = train[is_same.index(True)], train[is_same.index(False)]
    third, fourth, fifth = [row for row in train if row not in (same, other)][:3]
    for to, of in (
        (same, first.validation[0]), (other, first.validation[0]), (third, first.test[0]), (fifth, fourth),
        (first.validation[1], first.test[1]),
    ):  # fmt: skip
        (folder / names[to]).write_bytes((folder / names[of]).read_bytes())
    source = pack(root, kind)
    before = take(job_of(source=source), root, {})
    plain, clean = loaded(root, source=source), loaded(root, source=source, dedupe=True)
    assert any(words.startswith("3 images of train are copies") for words in plain.warnings)
    assert clean.train.tolist() == [row for row in plain.train.tolist() if row not in (same, other, third)]
    assert clean.validation.tolist() == plain.validation.tolist()
    assert clean.test.tolist() == plain.test.tolist()
    assert "data.dedupe: 3 images of train are copies of images of validation or test and were removed" in clean.about()
    assert not any("images of train are copies" in words for words in clean.warnings)
    assert any(words.startswith("1 image of validation is a copy") for words in clean.warnings)
    assert any("with a copy in another class" in words for words in clean.warnings)
    assert take(job_of(source=source, dedupe=True), root, {}).digest == before.digest


def test_copies_between_sources(root: Path) -> None:
    """A folder for each split; a name in one folder is another file in the next."""
    names = [f"{'ab'[number % 2]}/{number:02}.bmp" for number in range(8)]
    for folder, start in (("val", 100), ("test", 200)):
        for number, name in enumerate(names):
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(start + number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
    own = {"validationSource": "images:val", "testSource": "images:test"}
    assert loaded(root, **own).warnings == ()
    (root / "test" / names[2]).write_bytes((root / "pictures" / names[4]).read_bytes())
    (warning,) = loaded(root, **own).warnings
    assert warning.startswith(
        "1 image of train is a copy of an image of validation or test (pictures/a/04.bmp = test/a/02.bmp)"
    )
    clean = loaded(root, dedupe=True, **own)
    every = sorted(path.relative_to(root / "pictures").as_posix() for path in (root / "pictures").rglob("*.bmp"))
    assert sorted(every[row] for row in clean.train.tolist()) == [name for name in every if name != names[4]]
    assert clean.warnings == ()
