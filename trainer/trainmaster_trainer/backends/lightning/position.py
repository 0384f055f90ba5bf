"""Where the training's DataLoaders are: the random states at the start of a pass, and the batches handed out since.

`DataLoader.__iter__` is replaced in place, so it holds for every subclass and for names that were imported before.
A resumed pass begins with the same random states and skips as many batches. In this process that is done in the
sampler, and no data is read; worker processes make the batches again, with the draws that they made then.

Reading the random states takes 50 µs, a tenth of a small step, so it is done only before the batches that a save may
follow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from trainmaster_trainer.checkpoint.state import get_rng, set_rng


class Track:
    """One training loader of a fit; a loader that is made again during the fit continues its track."""

    def __init__(self, may_save: Callable[[], bool]) -> None:
        self.may_save = may_save
        self.pending: dict[str, Any] | None = None
        """Where a resumed fit has to continue."""
        self.fetched = 0
        self.states: deque[dict[str, Any]] = deque(maxlen=4)
        """What was before each of the newest fetches; `before` is None: the random states weren't read."""
        self.passes = 0


class Positions:
    """The training loaders of a fit."""

    active: Positions | None = None
    """Of the fit that runs."""

    def __init__(self, trainer: Any, may_save: Callable[[], bool]) -> None:
        """Track the loaders of a trainer's fit.

        Args:
            trainer: Lightning's.
            may_save: Whether `state` may be asked for once the next batch has begun.
        """
        self._trainer, self._may_save = trainer, may_save
        self._tracks: list[Track] = []
        self.begun = 0
        """Batches that training has begun with."""

    @property
    def loaders(self) -> list[Any]:
        """What the training reads."""
        return _flat(self._trainer.train_dataloader)

    def track(self, loader: Any) -> Track | None:
        """Return the track of a loader; None: it isn't one of the training, or is read by a validation."""
        if not self._trainer.training:
            return None
        found = [index for index, each in enumerate(self.loaders) if each is loader]
        return self._at(found[0]) if found else None

    def _at(self, index: int) -> Track:
        while len(self._tracks) <= index:
            self._tracks.append(Track(self._may_save))
        return self._tracks[index]

    def state(self) -> list[dict[str, Any] | None]:
        """Return the positions before the batch that training has just begun with."""
        found: list[dict[str, Any] | None] = []
        for track in self._tracks:
            # an iterable without a length is read one batch ahead
            ahead = max(0, track.fetched - self.begun) if len(self._tracks) == 1 else 0
            found.append(track.states[-1 - min(ahead, len(track.states) - 1)] if track.states else None)
        return found

    @property
    def are_known(self) -> bool:
        """Whether the random states before that batch were read."""
        return all(each is None or each["before"] is not None for each in self.state())

    def load(self, state: list[dict[str, Any] | None]) -> None:
        """Continue at these positions."""
        for index, position in enumerate(state):
            self._at(index).pending = position


def install() -> Callable[[], None]:
    """Let DataLoader keep track of its position, in this process.

    Returns:
        What undoes it.
    """
    original = DataLoader.__iter__
    if hasattr(original, "_trainmaster"):
        return lambda: None

    def positioned(self: DataLoader[Any]) -> Any:
        track = Positions.active.track(self) if Positions.active is not None else None
        return original(self) if track is None else _Positioned(self, original, track)

    positioned._trainmaster = True  # type: ignore[attr-defined]

    def undo() -> None:
        DataLoader.__iter__ = original  # type: ignore[method-assign]

    DataLoader.__iter__ = positioned  # type: ignore[method-assign]
    return undo


class _Positioned(Iterator[Any]):
    # A pass begins at once, as it does without us: what the program draws or seeds before the first batch comes after.
    # A resumed one begins with its first batch: Lightning makes the iterator before it has restored all states.
    def __init__(self, loader: DataLoader[Any], make: Callable[[DataLoader[Any]], Any], track: Track) -> None:
        self._loader, self._make, self._track = loader, make, track
        self._iterator: Any = None
        self._start: dict[str, Any] = {}
        self._first: dict[str, Any] = {}  # the order is drawn with the first batch
        self._given = 0
        self._again = False
        self._is_ahead = isinstance(loader.dataset, IterableDataset)
        if track.pending is None:
            self._open()

    def __len__(self) -> int:
        return len(self._loader)

    def __next__(self) -> Any:
        if self._iterator is None:
            self._open()
        states = self._track.states
        is_needed = self._is_ahead or self._given == 0 or self._track.may_save()
        before = self._random() if is_needed else None
        if self._given == 0 and before is not None:
            self._first = before
        states.append(
            {
                "start": self._start,
                "first": self._first,
                "before": before,
                "given": self._given,
                "again": self._again,
            }
        )
        try:
            batch = next(self._iterator)
        except StopIteration:
            states.pop()
            raise
        self._given += 1
        self._track.fetched += 1
        return batch

    def _open(self) -> None:
        position, self._track.pending = self._track.pending, None
        keeps_workers = self._loader.num_workers > 0 and self._loader.persistent_workers
        self._again = keeps_workers and self._track.passes > 0
        self._track.passes += 1
        if position is None:
            self._start = self._random()
            self._iterator = self._make(self._loader)
            return
        if position["again"]:
            self._make(self._loader)  # workers that are kept draw their seed in the first pass only
            self._again = True
        self._start, self._first, self._given = position["start"], position["first"], position["given"]
        self._restore(self._start)
        self._iterator = self._make(self._loader)
        self._restore(self._first)
        is_here = self._loader.num_workers == 0 and not isinstance(self._loader.dataset, IterableDataset)
        skipped = getattr(self._iterator, "_sampler_iter", self._iterator) if is_here else self._iterator
        for _ in range(self._given):
            next(skipped, None)
        self._restore(position["before"])

    def _random(self) -> dict[str, Any]:
        return {"process": get_rng(), "own": [each.get_state() for each in self._generators()]}

    def _restore(self, state: dict[str, Any]) -> None:
        set_rng(state["process"])
        for generator, own in zip(self._generators(), state["own"], strict=False):
            generator.set_state(own)

    def _generators(self) -> list[torch.Generator]:
        batches = self._loader.batch_sampler
        holders = (self._loader, self._loader.sampler, batches, getattr(batches, "sampler", None))
        found = [getattr(each, "generator", None) for each in holders]
        return list({id(each): each for each in found if isinstance(each, torch.Generator)}.values())


def _flat(loaders: Any) -> list[Any]:
    if isinstance(loaders, dict):
        return [each for value in loaders.values() for each in _flat(value)]
    if isinstance(loaders, list | tuple):
        return [each for value in loaders for each in _flat(value)]
    return [] if loaders is None else [loaders]
