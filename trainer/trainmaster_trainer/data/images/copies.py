"""Copies of one image file: between splits, where they make scores too good, and in two classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import numpy.typing as npt

from trainmaster_trainer.data.division import Division
from trainmaster_trainer.data.duplicates import copies
from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.data.sentences import first_of
from trainmaster_trainer.data.split import SPLITS

from .content import Content
from .errors import UnreadableError

MOST_BYTES = 8 * 2**30
"""What is read at most to compare files of equal size."""
MOST_PAIRS = 3
_THREADS = 8


class Comparison:
    """Images compared by their bytes, when that is first asked for.

    Args:
        content: The images.
        most: Bytes that are read at most to compare files of equal size; None: no limit.
    """

    def __init__(self, content: Content, most: int | None) -> None:
        self.content, self.most = content, most

    @cached_property
    def _found(self) -> tuple[Indices, list[str]]:
        return file_ids(self.content, most=self.most)

    @property
    def ids(self) -> Indices:
        """Return for each image the number of the first one with the same bytes."""
        return self._found[0]

    def check(self, classes: Indices, labels: Sequence[str], division: Division) -> tuple[str, ...]:
        """Return warnings about a split of images, a sentence each.

        Args:
            classes: Class of each image.
            labels: Names of the classes.
            division: The split.
        """
        found = [*self._found[1], *_shared(self.content, self.ids, division)]
        return (*found, *two_classes(self.content, self.ids, classes), *_missing_classes(classes, labels, division))


def most_compared(*, is_asked: bool) -> int | None:
    """Return how many bytes are read at most to find copies: as many as it takes where `dedupe` asks for it."""
    return None if is_asked else MOST_BYTES


def _shared(content: Content, ids: Indices, division: Division) -> Iterator[str]:
    """Yield what is in two splits."""
    train, validation, test = division.parts
    for rows, others, words, why, remedy in (
        (
            train,
            np.concatenate([validation, test]),
            "train {} of validation or test",
            "the scores will be too good",
            "Set data.dedupe: true to remove them from train",
        ),
        (
            validation,
            test,
            "validation {} of test",
            "the test isn't independent of the choice of the checkpoint",
            "Remove the copies from the data",
        ),
    ):
        leaked = copies(ids, rows, others)
        if len(leaked.rows):
            are = "is a copy of an image" if len(leaked.rows) == 1 else "are copies of images"
            pairs = _pairs(content, leaked.rows, leaked.others)
            yield f"{_count(leaked.rows)} of {words.format(are)} ({pairs}): {why}. {remedy}"


def two_classes(content: Content, ids: Indices, classes: Indices) -> Iterator[str]:
    """Yield a warning of copies in two classes.

    Args:
        content: The images.
        ids: For each image the number of the first one with the same bytes.
        classes: Class of each.
    """
    differs = np.flatnonzero(classes != classes[ids])
    if len(differs):
        yield (
            f"{_count(differs)} with a copy in another class ({_pairs(content, differs, ids[differs])}): one of the "
            "two is labeled wrong. Remove it"
        )


def file_ids(content: Content, among: Indices | None = None, *, most: int | None) -> tuple[Indices, list[str]]:
    """Return for each image the number of the first one with the same bytes, and why they weren't compared, if so.

    Only files of equal size are read.

    Args:
        content: The images.
        among: Those that are compared, in order; default: all.
        most: Bytes that are read at most; None: no limit.
    """
    sizes = content.sizes()
    ids = np.arange(len(sizes), dtype=np.int64)
    among = ids if among is None else among
    _, group, counts = np.unique(sizes[among], return_inverse=True, return_counts=True)
    alike = among[counts[group] > 1]
    total = int(sizes[alike].sum())
    if most is not None and total > most:
        return ids, [
            f"copies of images weren't looked for: {_count(alike)} have the size of another one, {total:,} bytes in "
            f"total, and at most {most:,} are read for it; data.dedupe: true reads them all"
        ]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="copies") as threads:
        hashes = threads.map(lambda index: _hash(content, int(index)), alike)
        first: dict[bytes, int] = {}
        for index, digest in zip(alike.tolist(), hashes, strict=True):
            ids[index] = first.setdefault(digest, index) if digest else index
    return ids, []


def _hash(content: Content, index: int) -> bytes:
    try:
        return hashlib.sha256(content.read(index)).digest()
    except UnreadableError:
        return b""  # it is named when it is decoded


def _missing_classes(classes: Indices, labels: Sequence[str], division: Division) -> list[str]:
    found = []
    for name, rows in zip(SPLITS, division.parts, strict=True):
        counts = np.bincount(classes[rows], minlength=len(labels))
        lacking = [labels[int(index)] for index in np.flatnonzero(counts == 0)]
        if lacking:
            why = "can't be learned" if name == "train" else "don't count in its metrics"
            some = first_of([f"`{label}`" for label in lacking], between=", ")
            remedy = "Add" if division.by == "sources" else "Set data.split.by: stratified, or add"
            found.append(f"the {name} split has no image of class {some}: they {why}. {remedy} images of them")
    return found


def _pairs(content: Content, rows: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> str:
    pairs = zip(rows[:MOST_PAIRS].tolist(), others[:MOST_PAIRS].tolist(), strict=True)
    some = "; ".join(f"{content.name(row)} = {content.name(other)}" for row, other in pairs)
    return some + ("; ..." if len(rows) > MOST_PAIRS else "")


def _count(rows: npt.NDArray[np.int64]) -> str:
    return "1 image" if len(rows) == 1 else f"{len(rows):,} images"
