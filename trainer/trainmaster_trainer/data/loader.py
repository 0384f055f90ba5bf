"""Batches of a run: taken from memory, or made ahead by worker processes; what they hold depends on the step alone.

torch's DataLoader moves the work: it starts the processes, keeps the order, pins memory. What it is given are whole
micro-batches by row number, so there is no loader state to resume from: a new iterator begins at any step.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from trainmaster_api.spec.loading import Loading

from trainmaster_trainer.errors import TrainingError
from trainmaster_trainer.failures import rank_error
from trainmaster_trainer.kernel import die_with_parent
from trainmaster_trainer.sample import Batch, Sample

from .images.mix import Mix
from .order import Indices, Sampler
from .prepared import Prepared
from .rows import Rows, TensorRows

MOST_WORKERS = 8


class Work(NamedTuple):
    """A batch to be made.

    Attributes:
        rows: Row numbers.
        rounds: Round of each row, whose random draws it gets; None: not for training, nothing is drawn.
        step: Optimizer step that it is a part of.
        following: The row after the last one in the step's batch, to mix it with; the first one after the last.
        following_round: Its round.
    """

    rows: Indices
    rounds: Indices | None
    step: int = 0
    following: int = 0
    following_round: int = 0


class Maker:
    """Makes batches of rows; what a worker process has a copy of.

    Args:
        rows: The rows.
        seed: Seed of the random draws.
        rank: For the words of an error.
        mix: How rows of a training batch are blended; None: they aren't.
    """

    def __init__(self, rows: Rows, seed: int, rank: int, mix: Mix | None) -> None:
        self.rows, self.seed, self.rank, self.mix = rows, seed, rank, mix

    def make(self, work: Work) -> Batch:
        """Return samples and targets, not scaled, in the memory of this process, and the weights of mixed rows."""
        if work.rounds is None:
            return Batch(*self.rows.batch(work.rows))
        if self.mix is None:
            return Batch(*self._training(work.rows, work.rounds))
        # each row is mixed with the one after it in the step's batch, also where another rank has that one
        rows = np.append(work.rows, work.following)
        x, y = self._training(rows, np.append(work.rounds, work.following_round))
        assert isinstance(x, Tensor)
        weights: Tensor | None = getattr(self.rows, "weights", None)
        w = None if weights is None else weights[torch.from_numpy(rows)]
        return Batch(*self.mix.apply(x[:-1], y[:-1], x[1:], y[1:], self.seed, work.step, w))

    def _training(self, rows: Indices, rounds: Indices) -> tuple[Sample, Tensor]:
        for_training = getattr(self.rows, "training_batch", None)
        if for_training is None:
            return self.rows.batch(rows)
        found: tuple[Sample, Tensor] = for_training(rows, rounds, self.seed)
        return found

    def __getitem__(self, work: Work) -> Batch | TrainingError:
        """Make a batch in a worker process; an error is returned, because its traceback tells whose it is."""
        try:
            return self.make(work)
        except Exception as error:  # noqa: BLE001 - classified here, raised in the rank
            return rank_error(error, self.rank, "")


@dataclass(frozen=True)
class Workers:
    """Processes that make batches.

    Attributes:
        number: Of this rank; 0: none, the rank makes them itself.
        prefetch: Batches that each makes ahead.
        pin: Whether batches go to a GPU.
    """

    number: int
    prefetch: int = 2
    pin: bool = False

    @classmethod
    def of(cls, loading: Loading, rows: Rows, device: torch.device) -> Workers:
        """Return what a job asks for; by default where samples have to be decoded, as many as there are free cores."""
        if isinstance(rows, TensorRows) and rows.in_memory:
            return cls(0)
        default = min(MOST_WORKERS, torch.get_num_threads() - 1) if getattr(rows, "is_decoded", False) else 0
        number = default if loading.workers is None else loading.workers
        return cls(number, loading.prefetch, pin=device.type == "cuda")


class Pool:
    """Makes batches in order, ahead of their use. The processes start with the first `map` and stay for the next.

    Args:
        maker: What makes them.
        workers: Who does; `number` may be 0.
    """

    def __init__(self, maker: Maker, workers: Workers) -> None:
        self._maker, self._workers = maker, workers
        self._queue: Iterable[Work] = ()
        self._loader: DataLoader[Any] | None = None

    def map(self, queue: Iterable[Work]) -> Iterator[Batch]:
        """Yield a batch for each piece of work, in order.

        Ending one iterator before the next begins is up to the caller.

        Raises:
            TrainingError: A row can't be read, with the class and the words of the process that tried.
        """
        if self._workers.number == 0:
            yield from map(self._maker.make, queue)
            return
        self._queue = queue
        if self._loader is None:
            self._loader = self._start()
        for made in self._loader:
            if isinstance(made, TrainingError):
                raise made
            yield made

    def close(self) -> None:
        """End the processes."""
        self._loader = None  # torch ends them when the last reference is gone

    def __iter__(self) -> Iterator[Work]:
        """Yield the work of the current `map`: this is the DataLoader's sampler, read in the rank's process."""
        return iter(self._queue)

    def _start(self) -> DataLoader[Any]:
        # A forked process has no threads, and the S3 client needs its own: there the processes are forked from a server
        # that has never had a client. Elsewhere a fork is faster, and takes what can't be pickled.
        is_remote = getattr(self._maker.rows, "is_remote", False)
        context = multiprocessing.get_context("forkserver" if is_remote else "fork")
        context.set_forkserver_preload([__name__])  # torch is imported once, and not by each process
        return DataLoader(
            self._maker,  # type: ignore[arg-type]  # has what a map-style dataset needs
            batch_size=None,
            sampler=self,
            num_workers=self._workers.number,
            prefetch_factor=self._workers.prefetch,
            collate_fn=_as_it_is,
            worker_init_fn=_begin,
            pin_memory=self._workers.pin,
            persistent_workers=True,
            multiprocessing_context=context,
            generator=torch.Generator(),  # else its seed is drawn from the RNG that dropout draws from
        )


def _as_it_is(made: Any) -> Any:
    return made


def _begin(number: int) -> None:
    die_with_parent()


class Loader:
    """Batches of a rank: those of each step, and those of an evaluation.

    Args:
        data: The rows.
        sampler: Which rows a step sees.
        total_steps: Number of steps of the run.
        seed: Seed of the random draws.
        micro_batches: Number of batches that a step is divided into.
        rank: This rank.
        world_size: Number of ranks.
        workers: Processes that make them.
        mix: How rows of a training batch are blended.
    """

    def __init__(
        self,
        data: Prepared,
        sampler: Sampler,
        total_steps: int,
        *,
        seed: int,
        micro_batches: int = 1,
        rank: int = 0,
        world_size: int = 1,
        workers: Workers = Workers(0),
        mix: Mix | None = None,
    ) -> None:
        self.data, self._sampler, self._total_steps = data, sampler, total_steps
        self._micro_batches, self._rank, self._world_size = micro_batches, rank, world_size
        self.micro_batch = max(1, sampler.batch_size // world_size // micro_batches)
        maker = Maker(data.rows, seed, rank, mix)
        # one of each, because the steps that are made ahead stay so while the validation split is evaluated
        self._training, self._evaluation, self._here = (
            Pool(maker, workers),
            Pool(maker, workers),
            Pool(maker, Workers(0)),
        )
        self._made: Iterator[Batch] = iter(())
        self._next = -1

    def step(self, step: int) -> Iterator[Batch]:
        """Yield the micro-batches of a step, on the device."""
        if not self.data.is_on_device and step != self._next:
            later = range(step, self._total_steps)
            self._made = self._training.map(work for each in later for work in self._works(each))
        self._next = step + 1
        yield from self._finished(self._works(step), self._made)

    def first(self, step: int) -> Batch:
        """Return the first micro-batch of a step. `step` makes it again, so the caller may change it."""
        works = self._works(step)[:1]
        return next(self._finished(works, self._here.map(works)))

    def evaluation(self, batches: Iterable[Indices]) -> Iterator[Batch]:
        """Yield batches of given rows, on the device and without random draws."""
        works = [Work(rows, None) for rows in batches]
        yield from self._finished(works, self._evaluation.map(works))

    def close(self) -> None:
        """End the worker processes."""
        self._made = iter(())
        for pool in (self._training, self._evaluation):
            pool.close()

    def _finished(self, works: list[Work], made: Iterator[Batch]) -> Iterator[Batch]:
        for work in works:
            if self.data.is_on_device:
                yield Batch(*self.data.batch(work.rows), self.data.weight(work.rows))
                continue
            x, y, mixed = next(made)
            x, y = self.data.scaled(x, y)
            yield Batch(x, y, self.data.weight(work.rows) if mixed is None else mixed.to(y.device, non_blocking=True))

    def _works(self, step: int) -> list[Work]:
        # A pure function of seed, step and rank: this is why a resume needs no state of a data loader, and why the rows
        # of a step don't depend on the number of workers.
        rows = self._sampler.indices(step, self._rank, self._world_size)
        rounds = self._sampler.rounds(step, self._rank, self._world_size)
        after = step, (self._rank + 1) % self._world_size, self._world_size
        following = np.append(rows, self._sampler.indices(*after)[:1])
        following_rounds = np.append(rounds, self._sampler.rounds(*after)[:1])
        size = len(rows) // self._micro_batches
        ends = range(size, size * self._micro_batches + 1, size)
        return [
            Work(
                rows[end - size : end], rounds[end - size : end], step, int(following[end]), int(following_rounds[end])
            )
            for end in ends
        ]
