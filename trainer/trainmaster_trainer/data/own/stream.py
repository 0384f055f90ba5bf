"""The items of a stream that a rank trains on, with the position after each step: what a resume begins with."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor

from trainmaster_trainer.data.draws import SeedRow, seeded
from trainmaster_trainer.errors import ConfigurationError, DataError
from trainmaster_trainer.sample import Sample

from .objects import Objects, has_state
from .parts import TRAIN, Parts
from .returned import Returned
from .rows import EVALUATION

STATE_COST = 0.01  # share of the time that states of the dataset may take
COLLATE = 2**40  # first number of what `collate` draws by: no stream is as long


class Position(TypedDict):
    """Where a stream is, between two steps.

    Attributes:
        epoch: Epoch, from 0.
        item: Number of items of the epoch that were read, of all splits.
        state: The dataset's own state; None: it has none, or hasn't been asked in this epoch.
        stateItem: Number of items that were read when the state was taken: the others are skipped.
    """

    epoch: int
    item: int
    state: Any
    stateItem: int


START = Position(epoch=0, item=0, state=None, stateItem=0)


class Made(NamedTuple):
    """A step of a rank.

    Attributes:
        batches: Its micro-batches, not scaled.
        position: The position after it.
    """

    batches: list[tuple[Sample, Tensor]]
    position: Position


class Stream:
    """Reads steps for one rank.

    Every rank reads the same items and takes its part of each batch, unless the dataset divides itself. Nothing is kept
    between epochs: an object is made for each, so what comes is a function of the epoch and of the dataset's state.

    Args:
        objects: Makes the user's objects.
        returned: Checks what they yield.
        parts: Divides the items; None: there is an object for each split.
        length: Number of items that an epoch has; None: unknown.
        seed: `loop.seed`.
        batch_size: Items per step over all ranks.
        micro_batches: Number of batches that a step is divided into.
        rank: This rank.
        world_size: Number of ranks.
    """

    def __init__(
        self,
        objects: Objects,
        returned: Returned,
        parts: Parts | None,
        length: int | None,
        *,
        seed: int,
        batch_size: int,
        micro_batches: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._objects, self._returned, self._parts, self._length = objects, returned, parts, length
        self._seed, self._batch_size, self._micro_batches = seed, batch_size, micro_batches
        self._rank, self._world_size = rank, world_size
        self._share = batch_size // world_size
        self.by_rank = objects.by_rank

    def steps(self, position: Position) -> Iterator[Made]:
        """Yield steps without end, from a position on.

        Raises:
            DataError: An item can't be used, or the stream ends where it must not.
        """
        while True:
            yield from self._epoch(position)
            position = Position(epoch=position["epoch"] + 1, item=0, state=None, stateItem=0)

    def _epoch(self, position: Position) -> Iterator[Made]:
        epoch = position["epoch"]
        dataset = self._objects.open("train", epoch, self._rank, self._world_size)
        states = _States(dataset, self._objects.label)
        state, at = (position["state"], position["stateItem"]) if states.can_be_taken else (None, 0)
        if state is not None:
            dataset.load_state_dict(copy.deepcopy(state))  # which may keep it, and change it
        else:
            at = 0
        items = iter(dataset)
        at = self._skip(items, epoch, at, position["item"])
        steps = 0
        while self._length is None or not self.by_rank or steps < self._length // self._batch_size:
            read = self._read(items, epoch, at)
            if read.mine is None:
                self._require_end(position, read.at, steps)
                return
            at, steps = read.at, steps + 1
            state, state_at = states.taken(at)
            yield Made(self._batches(read.mine, epoch), Position(epoch=epoch, item=at, state=state, stateItem=state_at))

    def _skip(self, items: Iterator[Any], epoch: int, at: int, to: int) -> int:
        """Read the items between the dataset's state and the position: no state was taken there."""
        with self._drawing(epoch) as seed_row:
            for number in range(at, to):
                seed_row(self._number(number))
                if next(items, _END) is _END:
                    raise DataError(
                        f"data.class {self._objects.label}: the stream ended after {number:,} items, before the "
                        f"checkpoint's position, item {to:,}: it isn't the same as before"
                    )
        return to

    def _read(self, items: Iterator[Any], epoch: int, at: int) -> _Read:
        """Read the items of one step."""
        wanted = self._share if self.by_rank else self._batch_size
        first = 0 if self.by_rank else self._rank * self._share
        mine, taken = list[tuple[int, Any]](), 0
        with self._drawing(epoch) as seed_row:
            while taken < wanted:
                seed_row(self._number(at))
                item = next(items, _END)
                if item is _END:
                    return _Read(at, None)
                if self._parts is None or self._parts.of(at) == TRAIN:
                    if first <= taken < first + self._share:
                        mine.append((at, item))
                    taken += 1
                at += 1
        return _Read(at, mine)

    def _batches(self, mine: list[tuple[int, Any]], epoch: int) -> list[tuple[Sample, Tensor]]:
        size = self._share // self._micro_batches
        found = []
        with self._drawing(epoch) as seed_row:
            for start in range(0, self._share, size):
                seed_row(COLLATE + self._number(mine[start][0]))
                found.append(self._returned.batch(mine[start : start + size]))
        return found

    def _drawing(self, epoch: int) -> AbstractContextManager[SeedRow]:
        # Items that are divided by their position must be the same in every epoch and in every run, or what is in the
        # test split today would be trained on tomorrow: a stream that shuffles with these draws depends on them.
        return seeded(self._seed, epoch) if self._parts is None else seeded(EVALUATION, 0)

    def _number(self, item: int) -> int:
        """Return the number that an item's draws follow from: another one on each rank with a part of its own."""
        return item * self._world_size + self._rank if self.by_rank else item

    def _require_end(self, begun: Position, items: int, steps: int) -> None:
        """Reject an epoch without a step, which would be followed by the next one for all time, and a wrong length."""
        label = self._objects.label
        if steps == 0 and begun["item"] == 0:
            raise DataError(
                f"data.class {label}: the stream of epoch {begun['epoch']} ended after {items:,} items, fewer than one "
                "batch of train; lower data.batchSize"
            )
        if self._length is not None and not self.by_rank and items != self._length:
            raise DataError(
                f"data.class {label}: the stream of epoch {begun['epoch']} has {items:,} items and len() is "
                f"{self._length:,}; epochs are counted by len(): correct it, or remove it and give durations in steps"
            )


class _Read(NamedTuple):
    at: int
    mine: list[tuple[int, Any]] | None


_END = object()


class _States:
    """Takes a dataset's state as often as is cheap."""

    def __init__(self, dataset: Any, label: str) -> None:
        self.can_be_taken = has_state(dataset, label)
        self._dataset, self._label = dataset, label
        self._state: Any = None
        self._at, self._next = 0, 0.0

    def taken(self, at: int) -> tuple[Any, int]:
        """Return the newest state, and after how many items it was taken."""
        if self.can_be_taken and (began := time.perf_counter()) >= self._next:
            self._state, self._at = take_state(self._dataset, self._label), at
            ended = time.perf_counter()
            # a buffer that is shuffled may be large; what was read since is skipped by a resume, which is as exact
            self._next = ended + (ended - began) / STATE_COST
        return self._state, self._at


def take_state(dataset: Any, label: str) -> Any:
    """Return a copy of a dataset's state.

    Raises:
        ConfigurationError: A checkpoint can't hold it.
    """
    state = dataset.state_dict()
    wrong = _not_plain(state, "state_dict()")
    if wrong:
        raise ConfigurationError(
            f"data.class {label}: {wrong}; a checkpoint holds tensors, numbers, text, lists and dicts (of an array: "
            "`.tolist()`, or a tensor)"
        )
    return copy.deepcopy(state)


def _not_plain(value: Any, path: str) -> str:
    """Return what a checkpoint can't hold, and where it is; else an empty string."""
    if type(value) in (dict, list, tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in pairs:
            if type(key) not in (str, int):
                return f"{path} has the key {key!r}, a {type(key).__name__}"
            if found := _not_plain(each, f"{path}[{key!r}]"):
                return found
        return ""
    if value is None or type(value) in (bool, int, float, str, bytes) or isinstance(value, Tensor):
        return ""
    return f"{path} is a {type(value).__module__}.{type(value).__name__}"


# -- the check before the first step ----------------------------------------------------------------------------------
PROBED = 3  # items


def require_repeatable(objects: Objects) -> None:
    """Reject a stream that isn't the same when it is read again, and one whose state doesn't lead back.

    Raises:
        ConfigurationError: What a resume would begin with isn't what came next.
    """
    dataset = objects.open("train")
    first = _probe(dataset, 0, PROBED - 1)
    state = take_state(dataset, objects.label) if has_state(dataset, objects.label) else None
    if len(first.items) < PROBED - 1:
        return
    expected = _probe(dataset, PROBED - 1, PROBED, first.iterator).items
    if state is None or not objects.by_split:
        again = _probe(objects.open("train"), 0, PROBED).items
        for number, (one, other) in enumerate(zip([*first.items, *expected], again, strict=False)):
            if not same(one, other):
                raise ConfigurationError(
                    f"data.class {objects.label}: item {number} isn't the same when the stream is read again, so "
                    + ("a resume can't skip to its position" if objects.by_split else "items can't be divided by their")
                    + ("" if objects.by_split else " position")
                    + "; draw from numpy's, torch's or Python's global RNG, which is seeded for each item"
                    + (", or add state_dict and load_state_dict" if objects.by_split else ", or take `split`")
                )
    if state is None:
        return
    resumed = objects.open("train")
    resumed.load_state_dict(state)
    found = _probe(resumed, PROBED - 1, PROBED).items
    if len(found) != len(expected) or not all(map(same, found, expected)):
        repeats = bool(found) and same(found[0], first.items[-1])
        raise ConfigurationError(
            f"data.class {objects.label}: after load_state_dict of the state at item {PROBED - 1}, "
            + (
                f"item {PROBED - 2} comes again: count the item before `yield`, not after it"
                if repeats
                else "another item comes than without it; the state must have everything that the next item depends on"
            )
        )


class _Probed(NamedTuple):
    items: list[Any]
    iterator: Iterator[Any]


def _probe(dataset: Any, start: int, stop: int, items: Iterator[Any] | None = None) -> _Probed:
    found: list[Any] = []
    with seeded(EVALUATION, 0) as seed_row:
        items = iter(dataset) if items is None else items
        for number in range(start, stop):
            seed_row(number)
            item = next(items, _END)
            if item is _END:
                break
            found.append(copy.deepcopy(item))  # which the stream may change
    return _Probed(found, items)


def same(one: Any, other: Any) -> bool:
    """Return whether two items are equal to the bit; of objects that can't be compared, that they are."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if "__eq__" not in {name for kind in type(one).__mro__[:-1] for name in vars(kind)}:
        return True
    equal: bool = one == other or (one != one and other != other)  # NaN
    return equal
