"""Batches of a stream: the loader of a dataset that has no rows to ask for, only a position to continue from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from trainmaster_trainer.errors import ConfigurationError, TrainingError
from trainmaster_trainer.failures import rank_error
from trainmaster_trainer.kernel import die_with_parent
from trainmaster_trainer.sample import Batch, apply

from .loader import Workers
from .order import Indices
from .own import START, IterableRows, Made, Position, Stream
from .prepared import Prepared


class StreamOrder:
    """What the loop asks of an order: how long an epoch is, and in which one it is.

    Args:
        batch_size: Items per step over all ranks.
        steps_per_epoch: Steps of an epoch; None: unknown, and nothing is counted in epochs.
    """

    def __init__(self, batch_size: int, steps_per_epoch: int | None) -> None:
        self.batch_size, self._known, self.read = batch_size, steps_per_epoch, 0
        """`read`: epoch of the newest step, where only the stream knows it."""

    @property
    def steps_per_epoch(self) -> int:
        """Return the steps of an epoch; 1 where that is unknown, so that a duration in steps is what it is."""
        return self._known or 1

    def epoch(self, step: int) -> int:
        """Return the epoch of a step, from 0."""
        return self.read if self._known is None else step // self._known


class StreamLoader:
    """Batches of a rank: those of each step, in the stream's order, and those of an evaluation.

    Args:
        data: The held-out items, and how everything is scaled.
        order: Learns in which epoch the stream is.
        stream: What the rank trains on.
        micro_batches: Number of batches that a step is divided into.
        rank: This rank.
        world_size: Number of ranks.
        workers: Whether a process reads ahead: the items are one sequence, so there is one at most.
    """

    def __init__(
        self,
        data: Prepared,
        order: StreamOrder,
        stream: Stream,
        *,
        micro_batches: int = 1,
        rank: int = 0,
        world_size: int = 1,
        workers: Workers,
    ) -> None:
        self.data, self._order, self._stream, self._workers = data, order, stream, workers
        self._rank, self._world_size = rank, world_size
        self.micro_batch = max(1, order.batch_size // world_size // micro_batches)
        self._position = START
        self._made: Iterator[Made] | None = None
        self._first: Made | None = None

    def step(self, step: int) -> Iterator[Batch]:
        """Yield the micro-batches of the next step, on the device."""
        made, self._first = self._first or self._next(), None
        self._position = made.position
        self._order.read = made.position["epoch"]
        for x, y in made.batches:
            yield Batch(*self.data.scaled(x, y))

    def first(self, step: int) -> Batch:
        """Return the first micro-batch of the next step, a copy: the position stays, and `step` returns it again."""
        self._first = self._first or self._next()
        x, y = self._first.batches[0]
        return Batch(*self.data.scaled(apply(x, lambda each: each.clone()), y.clone()))

    def evaluation(self, batches: Iterable[Indices]) -> Iterator[Batch]:
        """Yield batches of held-out items, on the device."""
        for indices in batches:
            yield Batch(*self.data.scaled(*self.data.rows.batch(indices)))

    def state(self) -> Position:
        """Return the position after the newest step: not that of what was read ahead."""
        return self._position

    def restore(self, positions: Sequence[Position | None]) -> None:
        """Continue from a checkpoint, and say how.

        Args:
            positions: Of each rank that wrote it.

        Raises:
            ConfigurationError: They are of another number of ranks, and each rank has read a part of its own.
        """
        own = positions[self._rank if len(positions) == self._world_size else 0]
        if own is None:
            self._say("run.resumeFrom: that run has no position in a stream; this one begins at its start", warn=True)
            return
        if self._stream.by_rank and len(positions) != self._world_size:
            raise ConfigurationError(
                f"run.resumeFrom: that run had {len(positions)} workers, each with a part of the stream of its own; "
                f"{self._world_size} can't continue it"
            )
        self.close()
        self._position = own
        skipped = own["item"] - (own["stateItem"] if own["state"] is not None else 0)
        where = f"epoch {own['epoch']}, item {own['item']:,}"
        if own["state"] is not None:
            self._say(f"resume: from the dataset's state at item {own['stateItem']:,}, to {where}", warn=False)
        elif skipped:
            self._say(f"resume: by skipping {skipped:,} items, to {where}", warn=True)

    def close(self) -> None:
        """End what reads ahead."""
        self._made, self._first = None, None

    def _say(self, sentence: str, *, warn: bool) -> None:
        self.data.said = (*self.data.said, sentence)
        self.data.warnings = (*self.data.warnings, *((sentence,) if warn else ()))

    def _next(self) -> Made:
        if self._made is None:
            self._made = self._begin()
        made = next(self._made)
        if isinstance(made, TrainingError):  # of the process that reads
            raise made
        return made

    def _begin(self) -> Iterator[Made]:
        if self._workers.number == 0:
            return self._stream.steps(self._position)
        return iter(
            DataLoader(
                _Ahead(self._stream, self._position, self._rank),
                batch_size=None,
                num_workers=1,
                prefetch_factor=self._workers.prefetch,
                collate_fn=_as_it_is,
                worker_init_fn=_begin_process,
                pin_memory=self._workers.pin,
                multiprocessing_context="fork",
                generator=torch.Generator(),  # else its seed is drawn from the RNG that dropout draws from
            )
        )


class _Ahead(IterableDataset[Any]):
    """Reads steps in a process of its own."""

    def __init__(self, stream: Stream, position: Position, rank: int) -> None:
        self._stream, self._position, self._rank = stream, position, rank

    def __iter__(self) -> Iterator[Made | TrainingError]:
        """Yield steps; an error is yielded, because its traceback tells whose it is."""
        try:
            yield from self._stream.steps(self._position)
        except Exception as error:  # noqa: BLE001 - classified here, raised in the rank
            yield rank_error(error, self._rank, "")


def _as_it_is(made: Any) -> Any:
    return made


def _begin_process(number: int) -> None:
    die_with_parent()


def stream_loader(
    data: Prepared, rows: IterableRows, *, seed: int, batch_size: int, micro_batches: int, rank: int, world_size: int,
    workers: Workers,
) -> tuple[StreamOrder, StreamLoader]:  # fmt: skip
    """Return the order and the batches of a stream.

    Args:
        data: The prepared data, whose rows are `rows`.
        rows: The stream.
        seed: `loop.seed`.
        batch_size: Items per step over all ranks.
        micro_batches: Number of batches that a step is divided into.
        rank: This rank.
        world_size: Number of ranks.
        workers: Whether a process reads ahead.
    """
    length = rows.train_length
    order = StreamOrder(batch_size, None if length is None else length // batch_size)
    stream = rows.stream(
        seed=seed, batch_size=batch_size, micro_batches=micro_batches, rank=rank, world_size=world_size
    )
    loader = StreamLoader(
        data, order, stream, micro_batches=micro_batches, rank=rank, world_size=world_size, workers=workers
    )
    return order, loader
