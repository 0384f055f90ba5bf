"""Where the training's DataLoaders are: the random states at the start of a pass, and the batches handed out since.

`DataLoader.__iter__` is replaced in place, so it holds for every subclass and for names that were imported before.
A resumed pass begins with the same random states and skips as many batches. In this process that is done in the
sampler, and no data is read; worker processes make the batches again, with the draws that they made then.
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

    def __init__(self, pending: dict[str, Any] | None = None) -> None:
        self.pending = pending
        """Where a resumed fit has to continue."""
        self.fetched = 0
        self.states: deque[dict[str, Any]] = deque(maxlen=4)
        """What was before each of the newest fetches."""
        self.passes = 0


class Positions:
    """The training loaders of a fit."""

    active: Positions | None = None
    """Of the fit that runs."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
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
            self._tracks.append(Track())
        return self._tracks[index]

    def state(self) -> list[dict[str, Any] | None]:
        """Return the positions before the batch that training has just begun with."""
        found: list[dict[str, Any] | None] = []
        for track in self._tracks:
            # an iterable without a length is read one batch ahead
            ahead = max(0, track.fetched - self.begun) if len(self._tracks) == 1 else 0
            found.append(track.states[-1 - min(ahead, len(track.states) - 1)] if track.states else None)
        return found

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
    # Nothing happens before the first batch: Lightning makes the iterator before it has restored all states.
    def __init__(self, loader: DataLoader[Any], make: Callable[[DataLoader[Any]], Any], track: Track) -> None:
        self._loader, self._make, self._track = loader, make, track
        self._iterator: Any = None
        self._start: dict[str, Any] = {}
        self._given = 0
        self._again = False

    def __len__(self) -> int:
        return len(self._loader)

    def __next__(self) -> Any:
        if self._iterator is None:
            self._open()
        states = self._track.states
        states.append({"start": self._start, "given": self._given, "before": self._random(), "again": self._again})
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
        self._start, self._given = position["start"], position["given"]
        self._restore(self._start)
        self._iterator = self._make(self._loader)
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
