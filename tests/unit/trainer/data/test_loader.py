"""Batches: the same ones from worker processes, in order, from any step, and an error is said in the row's words."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.loading import Loading
from trainmaster_trainer.data.draws import seed_of, seeded
from trainmaster_trainer.data.images.mix import Mix
from trainmaster_trainer.data.loader import Batch, Loader, Workers
from trainmaster_trainer.data.order import Indices, Sampler
from trainmaster_trainer.data.prepared import Prepared
from trainmaster_trainer.data.rows import TensorRows
from trainmaster_trainer.errors import DataError, TrainingError
from trainmaster_trainer.failures import rank_error

ROWS = 40


class Drawn:
    """A row is its number, the epoch, and one draw of each RNG."""

    shape, labels, features, notes = (5,), list[str](), list[str](), ()
    weights: Tensor | None = None

    def __init__(self, broken: int = -1, killed: int = -1) -> None:
        self.broken, self.killed = broken, killed

    def __len__(self) -> int:
        return ROWS

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        return self._rows(indices, lambda row: None, -1)

    def training_batch(self, indices: Indices, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        with seeded(seed, epoch) as seed_row:
            return self._rows(indices, seed_row, epoch)

    def _rows(self, indices: Indices, seed_row: object, epoch: int) -> tuple[Tensor, Tensor]:
        found = []
        for row in map(int, indices):
            if row == self.broken:
                raise DataError(f"row {row} is broken")
            if row == self.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            seed_row(row)  # type: ignore[operator]
            draws = [float(torch.rand(())), float(np.random.random()), random.random()] if epoch >= 0 else [0, 0, 0]
            found.append([row, epoch, *draws])
        return torch.tensor(found), torch.tensor(indices % 2)


class Pictures(Drawn):
    """Rows as images of one channel."""

    shape = (1, 4, 4)  # type: ignore[assignment]

    def _rows(self, indices: Indices, seed_row: object, epoch: int) -> tuple[Tensor, Tensor]:
        x, y = super()._rows(indices, seed_row, epoch)
        return x[:, :1, None, None].repeat(1, 1, 4, 4) / ROWS, y


def loader(rows: Drawn, workers: int, *, rank: int = 0, world_size: int = 1, micro_batches: int = 1) -> Loader:
    numbers = np.arange(ROWS)
    data = Prepared(rows, numbers[:32], numbers[32:36], numbers[36:], torch.zeros(1), torch.ones(1))
    data.move(torch.device("cpu"))
    sampler = Sampler(data.train, 8, seed=3)
    return Loader(
        data, sampler, 12, seed=3, micro_batches=micro_batches, rank=rank, world_size=world_size,
        workers=Workers(workers),
    )  # fmt: skip


def every_step(batches: Loader) -> None:
    for step in range(12):
        list(batches.step(step))


def together(batches: list[Batch]) -> Tensor:
    return torch.cat([batch.x for batch in batches if isinstance(batch.x, Tensor)])


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_change_nothing(workers: int) -> None:
    here, there = loader(Drawn(), 0), loader(Drawn(), workers)
    for step in range(12):
        assert torch.equal(together(list(there.step(step))), together(list(here.step(step))))
        if step == 5:  # an evaluation in between
            assert torch.equal(together(list(there.evaluation([there.data.validation]))),
                               together(list(here.evaluation([here.data.validation]))))  # fmt: skip
    there.close()


def test_ranks_and_micro_batches_change_nothing() -> None:
    whole = together(list(loader(Drawn(), 0).step(7)))
    parts = [together(list(loader(Drawn(), 0, rank=rank, world_size=2, micro_batches=2).step(7))) for rank in range(2)]
    assert torch.equal(torch.cat(parts), whole)


def test_any_step_is_the_first() -> None:
    """A resume, and a step that is asked for out of order, get what an undisturbed run got."""
    whole = [together(list(loader(Drawn(), 0).step(step))) for step in range(12)]
    with_workers = loader(Drawn(), 2)
    for step in (9, 2, 3, 11):
        assert torch.equal(together([with_workers.first(step)]), whole[step])
        assert torch.equal(together(list(with_workers.step(step))), whole[step])
    with_workers.close()


def test_draws_are_a_function_of_seed_epoch_and_row() -> None:
    found = together(list(loader(Drawn(), 0).step(5)))
    for row, epoch, drawn, *_ in found.tolist():
        expected = torch.rand((), generator=torch.Generator().manual_seed(seed_of(3, int(epoch), int(row))))
        assert epoch == 1
        assert drawn == float(expected)
    assert len(set(found[:, 2].tolist())) == len(found)


def test_draws_of_a_row_are_not_seen_outside() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    list(loader(Drawn(), 0).step(0))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_error_of_a_row_is_that_of_the_rank(workers: int) -> None:
    broken = loader(Drawn(broken=3), workers)
    with pytest.raises(TrainingError, match=r"^row 3 is broken$") as caught:
        every_step(broken)
    told = rank_error(caught.value, 0, "")
    assert (told.failure_class, told.message) == (FailureClass.DATA_ERROR, "row 3 is broken")
    broken.close()


def test_killed_worker_process_is_said() -> None:
    killed = loader(Drawn(killed=3), 1)
    with pytest.raises(RuntimeError) as caught:
        every_step(killed)
    told = rank_error(caught.value, 4, "")
    assert told.failure_class is FailureClass.HOST_OUT_OF_MEMORY
    assert told.message == (
        "rank 4: a process that makes batches (data.loading.workers) died by Killed, as it does when memory runs out; "
        "raise cluster.workers.memory or lower data.loading.workers"
    )
    killed.close()


def test_closed_loader_leaves_no_process() -> None:
    def children() -> set[str]:
        return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())

    before = children()
    with_workers = loader(Drawn(), 2)
    list(with_workers.step(0))
    assert len(children() - before) == 2
    with_workers.close()
    assert children() == before


def test_weights_travel_with_their_rows() -> None:
    rows = Drawn()
    rows.weights = torch.arange(float(ROWS))
    (batch,) = loader(rows, 0).step(0)
    assert isinstance(batch.x, Tensor)
    assert batch.weight is not None
    assert torch.equal(batch.weight, batch.x[:, 0])


@pytest.mark.parametrize("workers", [0, 1])
def test_mixed_rows_do_not_depend_on_who_makes_them(workers: int) -> None:
    def batches(rank: int, world_size: int, micro_batches: int) -> tuple[Tensor, Tensor]:
        numbers = np.arange(ROWS)
        data = Prepared(Pictures(), numbers[:32], numbers[32:36], numbers[36:], torch.zeros(1), torch.ones(1))
        data.move(torch.device("cpu"))
        made = Loader(
            data, Sampler(data.train, 8, seed=3), 12, seed=3, micro_batches=micro_batches, rank=rank,
            world_size=world_size, workers=Workers(workers), mix=Mix({"mixup": 0.4, "cutmix": 1.0}, 2),
        )  # fmt: skip
        found = [batch for step in range(5) for batch in made.step(step)]
        made.close()
        size = 8 // world_size
        x = together(found).reshape(5, size, -1)
        return x, torch.cat([batch.y for batch in found]).reshape(5, size, -1)

    x, y = batches(0, 1, 1)
    assert (y > 0).all(dim=-1).any(), "something is mixed"
    for world_size, micro_batches in ((1, 4), (2, 1), (4, 2)):
        parts = [batches(rank, world_size, micro_batches) for rank in range(world_size)]
        assert torch.equal(torch.cat([part[0] for part in parts], dim=1), x)
        assert torch.equal(torch.cat([part[1] for part in parts], dim=1), y)


def test_rows_in_memory_need_no_process() -> None:
    rows = TensorRows(torch.zeros(3, 2), torch.zeros(3), [], [])
    assert Workers.of(Loading(workers=4), rows, torch.device("cpu")).number == 0
    assert Workers.of(Loading(workers=4), Drawn(), torch.device("cpu")).number == 4
    assert Workers.of(Loading(), Drawn(), torch.device("cpu")).number == 0
