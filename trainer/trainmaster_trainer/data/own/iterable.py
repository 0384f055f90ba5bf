"""A stream as the loop sees it: validation and test are its held-out items, and train has an order but no rows."""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trainmaster_api.spec.job import Spec
from trainmaster_api.types import parse_count

from trainmaster_trainer.data.draws import seeded
from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.data.prepared import STATISTICS_ROWS, Prepared, measure, require_classes
from trainmaster_trainer.errors import ConfigurationError, DataError
from trainmaster_trainer.sample import Sample

from .attributes import read_attributes
from .objects import Objects, has_state, length_of
from .parts import TEST, TRAIN, VALIDATION, Parts
from .returned import Collate, Returned
from .rows import EVALUATION
from .stream import COLLATE, Stream, require_repeatable

HELD_OUT = 2048  # items of validation and of test, unless the dataset has `held_out`
HELD_BYTES = 256 * 2**20  # of validation and of test
READ_AT_ONCE = 32
_END = object()
SIDES = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}


@dataclass(frozen=True)
class Named:
    """What is kept of the object that was read first: what identifies the data."""

    fingerprint: str | None


class IterableRows:
    """The held-out items of a stream, as rows, and what a `Stream` of its train split needs.

    Rows are the items of validation, those of test, and until `forget` the first items of train.

    Args:
        objects: Makes the user's objects.
        spec: The job's.

    Raises:
        ConfigurationError: It isn't what a stream must be.
        DataError: An item can't be used, or a split has none.
    """

    features: list[str]
    weights: Tensor | None = None

    def __init__(self, objects: Objects, spec: Spec) -> None:
        data, self.objects, self.features = spec.training.data, objects, []
        dataset = objects.open("train")
        self.about = read_attributes(dataset, data.label, spec.training.task, None, unit="item")
        self.labels, self.vocabulary = self.about.labels, self.about.vocabulary
        self.dataset = Named(getattr(dataset, "fingerprint", None))
        self.parts = None if objects.by_split else Parts(data.split)
        self.length = length_of(dataset)
        self.has_state = has_state(dataset, data.label)
        limit = _limit(dataset, data.label)
        collate: Collate | None = getattr(dataset, "collate", None)
        if collate is not None and not callable(collate):
            raise ConfigurationError(
                f"data.class {data.label}: `collate` is a {type(collate).__name__}; expected a function"
            )
        self.returned = Returned(self.about, collate)
        require_repeatable(objects)
        self.held = _held_out(objects, self.parts, dataset, limit)
        for side, found in self.held.items():
            if not found.items:
                raise DataError(
                    f"data.class {data.label}: no item of {SIDES[side]} came"
                    + (f" in a stream of {found.read:,}" if self.parts else "")
                )
        self.returned.begin(*self.held[TRAIN].items[0])
        if collate is None:  # what can't be used is said now, and not after hours
            for found in self.held.values():
                self.returned.pairs(found.items)
        self.shape, self.can_be_scaled = self.returned.shape, not self.returned.note
        self.notes = tuple(filter(None, (self.returned.note,)))
        self._items = [item for side in (VALIDATION, TEST, TRAIN) for item in self.held[side].items]

    @property
    def train_length(self) -> int | None:
        """Return the number of items of an epoch of train; None: unknown."""
        if self.length is None or self.parts is None:
            return self.length
        return self.parts.count(self.length, TRAIN)

    def __len__(self) -> int:
        return len(self._items)

    def forget(self) -> None:
        """Forget the items of train that were read for statistics."""
        del self._items[len(self._items) - len(self.held[TRAIN].items) :]
        self.held[TRAIN].items.clear()

    def batch(self, indices: Indices) -> tuple[Sample, Tensor]:
        """Return held-out items; what they draw was drawn when they were read."""
        with seeded(EVALUATION, 0) as seed_row:
            seed_row(COLLATE + int(indices[0]))  # for `collate`
            return self.returned.batch([self._items[index] for index in indices.tolist()])

    def stream(self, *, seed: int, batch_size: int, micro_batches: int, rank: int, world_size: int) -> Stream:
        """Return what a rank trains on."""
        return Stream(
            self.objects, self.returned, self.parts, self.length, seed=seed, batch_size=batch_size,
            micro_batches=micro_batches, rank=rank, world_size=world_size,
        )  # fmt: skip


def prepare_iterable(objects: Objects, spec: Spec) -> Prepared:
    """Return the splits of a stream, and the statistics of the first items of train.

    Args:
        objects: Makes the user's objects.
        spec: The job's.

    Raises:
        ConfigurationError: The job asks for what a stream doesn't have.
        DataError: An item can't be used, or a split has none.
    """
    training = spec.training
    _require_possible(spec)
    rows = IterableRows(objects, spec)
    require_classes(rows, training)
    _require_steps(rows, spec)
    counts = np.cumsum([0, *(len(rows.held[side].items) for side in (VALIDATION, TEST, TRAIN))])
    validation, test, train = (np.arange(*pair, dtype=np.int64) for pair in itertools.pairwise(counts))
    said, warnings = _said(rows, training.data.label)
    found = Prepared(
        rows, train, validation, test, torch.zeros(1), torch.ones(1), notes=rows.notes, said=(*said, *warnings),
        warnings=warnings,
    )  # fmt: skip
    measure(found, normalize=training.data.normalize)
    rows.forget()
    found.train = train[:0]
    return found


# -- what is read before the first step -------------------------------------------------------------------------------
class _Held:
    """Items of one split, up to a number and a size.

    Attributes:
        items: With their positions in the stream.
        is_cut: Whether there may be more.
        read: Number of items of the stream that were read, of all splits.
    """

    def __init__(self, limit: int) -> None:
        self.items: list[tuple[int, Any]] = []
        self.is_cut, self.read = False, 0
        self._limit, self._bytes = limit, 0

    @property
    def is_full(self) -> bool:
        """Return whether no more is kept."""
        return len(self.items) >= self._limit or self._bytes >= HELD_BYTES

    def add(self, number: int, item: Any) -> None:
        """Keep a copy of an item: what it is a view of, the stream may free or change."""
        own, size = _copied(item)
        self.items.append((number, own))
        self._bytes += size


def _held_out(objects: Objects, parts: Parts | None, dataset: Any, limit: int) -> dict[int, _Held]:
    """Return the first items of validation and test, and of train for the statistics."""
    held = {TRAIN: _Held(STATISTICS_ROWS), VALIDATION: _Held(limit), TEST: _Held(limit)}
    if parts is not None:
        _read(dataset, held, parts)
        return held
    for side, found in held.items():
        _read(dataset if side == TRAIN else objects.open(SIDES[side]), {side: found}, None)
    return held


def _read(dataset: Any, held: dict[int, _Held], parts: Parts | None) -> None:
    side = next(iter(held))  # of all items, where there are no parts
    read, is_cut = 0, False
    for number, item in _drawn(iter(dataset)):
        if all(each.is_full for each in held.values()):
            is_cut = True
            break
        found = held[side if parts is None else parts.of(number)]
        if found.is_full:
            found.is_cut = True
        else:
            found.add(number, item)
        read = number + 1
    for found in held.values():
        found.is_cut, found.read = found.is_cut or is_cut, read


def _drawn(items: Iterator[Any]) -> Iterator[tuple[int, Any]]:
    """Yield items with their numbers, each with draws of its own."""
    for start in itertools.count(0, READ_AT_ONCE):  # setting the generators and putting them back takes time
        with seeded(EVALUATION, 0) as seed_row:
            read = []
            for number in range(start, start + READ_AT_ONCE):
                seed_row(number)
                item = next(items, _END)
                if item is _END:
                    break
                read.append((number, item))
        yield from read
        if len(read) < READ_AT_ONCE:
            return


def _copied(value: Any) -> tuple[Any, int]:
    """Return a copy that shares no memory with a larger array, and about how many bytes it has."""
    if isinstance(value, Tensor):
        return value.detach().clone(), value.nbytes
    if isinstance(value, np.ndarray):
        return value.copy(), value.nbytes
    if type(value) in (list, tuple):
        pairs = [_copied(each) for each in value]
        return type(value)(each for each, _ in pairs), 56 + sum(size for _, size in pairs)
    if type(value) is dict:
        named = {key: _copied(each) for key, each in value.items()}
        return {key: each for key, (each, _) in named.items()}, 64 + sum(size for _, size in named.values())
    return copy.deepcopy(value), sys.getsizeof(value)


# -- rules ------------------------------------------------------------------------------------------------------------
def _limit(dataset: Any, label: str) -> int:
    found = getattr(dataset, "held_out", HELD_OUT)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise ConfigurationError(
            f"data.class {label}: `held_out` is {found!r}; expected how many items of validation and of test are used"
        )
    return found


def _require_possible(spec: Spec) -> None:
    """Reject what needs rows with numbers."""
    data = spec.training.data
    problems = []
    if data.split.by not in (None, "random"):
        problems.append(f"data.split.by: {data.split.by} needs rows that are known before the first step; remove it")
    if data.sampling != "uniform":
        problems.append(f"data.sampling: {data.sampling} needs the class of every row; use uniform")
    if data.dedupe:
        problems.append("data.dedupe is for tables and images; remove it")
    if problems:
        raise ConfigurationError(f"data.class {data.label} is an iterable dataset: {'; '.join(problems)}")


def _require_steps(rows: IterableRows, spec: Spec) -> None:
    """Reject epochs where their length is unknown, and an epoch without a step."""
    training, length = spec.training, rows.train_length
    if length is not None:
        if length < training.data.batch_size:
            raise ConfigurationError(
                f"data.batchSize {training.data.batch_size} is more than the {length:,} items of the train split of "
                f"{training.data.label}; at most {length} is possible"
            )
        return
    fields = {
        "loop.duration": training.loop.duration,
        "loop.validateEvery": training.loop.validate_every,
        "schedule.warmup": training.schedule.warmup,
        "checkpoint.every": spec.checkpoint.every,
    }
    counted = [f"{name}: {value}" for name, value in fields.items() if _is_in_epochs(value)]
    if counted:
        raise ConfigurationError(
            f"data.class {training.data.label} has no __len__, so the number of steps in an epoch is unknown, and "
            f"{', '.join(counted)} {'is' if len(counted) == 1 else 'are'} in epochs; give steps (1000step), or define "
            "__len__"
        )


def _is_in_epochs(value: str) -> bool:
    if value == "auto":
        return False
    number, unit = parse_count(value)
    return unit == "ep" and number > 0  # no warm-up is `0ep`, too


def _said(rows: IterableRows, label: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what the user is told of the stream, and of that what isn't as it might be."""
    amounts = ", ".join(
        f"{SIDES[side]} {'the first ' if rows.held[side].is_cut else ''}{len(rows.held[side].items):,} items"
        for side in (VALIDATION, TEST)
    )
    how = "by position (split.seed)" if rows.parts is not None else "an object for each"
    said = [f"{label} is read in its own order; split {how}: {amounts}"]
    if rows.length is not None:
        said.append(f"train has {rows.train_length:,} items in an epoch")
    if rows.objects.by_rank:
        said.append("each rank reads a part of its own (rank, world_size): a resume needs the same number of workers")
    if rows.has_state:
        return (*said, "resume: from the dataset's own state"), ()
    return tuple(said), (
        f"{label} has no state_dict and load_state_dict: a resume reads the items of its epoch again and skips them",
    )
