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
from trainmaster_trainer.data.loader import Loader, Workers
from trainmaster_trainer.data.order import Indices, Sampler
from trainmaster_trainer.data.prepared import Prepared
from trainmaster_trainer.data.rows import TensorRows
from trainmaster_trainer.errors import DataError, TrainingError
from trainmaster_trainer.failures import rank_error
from trainmaster_trainer.sample import Batch

ROWS = 40


class Drawn:
    """A row is its number, its round, and one draw of each RNG."""

    shape, labels, features, notes = (5,), list[str](), list[str](), ()
    weights: Tensor | None = None

    def __init__(self, broken: int = -1, killed: int = -1) -> None:
        self.broken, self.killed = broken, killed

    def __len__(self) -> int:
        return ROWS

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        return self._rows(indices, lambda row, round_number: None, np.full(len(indices), -1))

    def training_batch(self, indices: Indices, rounds: Indices, seed: int) -> tuple[Tensor, Tensor]:
        with seeded(seed) as seed_row:
            return self._rows(indices, seed_row, rounds)

    def _rows(self, indices: Indices, seed_row: object, rounds: Indices) -> tuple[Tensor, Tensor]:
        found = []
        for row, round_number in zip(indices.tolist(), rounds.tolist(), strict=True):
            if row == self.broken:
                raise DataError(f"row {row} is broken")
            if row == self.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            seed_row(row, round_number)  # type: ignore[operator]
            draws = (
                [float(torch.rand(())), float(np.random.random()), random.random()] if round_number >= 0 else [0, 0, 0]
            )
            found.append([row, round_number, *draws])
        return torch.tensor(found), torch.tensor(indices % 2)


class Pictures(Drawn):
    """Rows as images of one channel."""

    shape = (1, 4, 4)  # type: ignore[assignment]

    def _rows(self, indices: Indices, seed_row: object, rounds: Indices) -> tuple[Tensor, Tensor]:
        x, y = super()._rows(indices, seed_row, rounds)
        return x[:, :1, None, None].repeat(1, 1, 4, 4) / ROWS, y


def loader(
    rows: Drawn, workers: int, *, rank: int = 0, world_size: int = 1, micro_batches: int = 1,
    classes: Indices | None = None, mix: Mix | None = None,
) -> Loader:  # fmt: skip
    numbers = np.arange(ROWS)
    data = Prepared(rows, numbers[:32], numbers[32:36], numbers[36:], torch.zeros(1), torch.ones(1))
    data.move(torch.device("cpu"))
    sampler = Sampler(data.train, 8, seed=3, classes=classes)
    return Loader(
        data, sampler, 12, seed=3, micro_batches=micro_batches, rank=rank, world_size=world_size,
        workers=Workers(workers), mix=mix,
    )  # fmt: skip


FEW = (np.arange(32) % 8 != 0).astype(np.int64)
"""Classes of the train split: 4 rows of the first, which a balanced epoch has four times, and 28 of the second."""
MIX = Mix({"mixup": 0.4, "cutmix": 1.0}, 2)


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


def test_balanced_row_draws_otherwise_at_each_appearance() -> None:
    made = loader(Drawn(), 0, classes=FEW)
    found = torch.cat([together(list(made.step(step))) for step in range(12)])
    few = found[found[:, 0] == 8]
    assert len(few) == 12, "four times in each of three epochs"
    assert sorted(few[:, 1].tolist()) == list(range(12))
    for column in (2, 3, 4):
        assert len(torch.unique(few[:, column])) == 12
    for row, number, drawn, *_ in found.tolist():
        expected = torch.rand((), generator=torch.Generator().manual_seed(seed_of(3, int(number), int(row))))
        assert drawn == float(expected)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("mix", [None, MIX], ids=["plain", "mixed"])
def test_balanced_rows_do_not_depend_on_who_makes_them(workers: int, mix: Mix | None) -> None:
    """Nor on the step a run begins with: 3 is in the middle of a round of both classes."""

    def batches(first: int, **division: int) -> Tensor:
        rows = Pictures() if mix else Drawn()
        rows.weights = torch.arange(float(ROWS))
        made = loader(rows, workers, classes=FEW, mix=mix, **division)
        found = []
        for step in range(first, 6):
            parts = list(made.step(step))
            weight = torch.cat([part.weight for part in parts if part.weight is not None])
            y = torch.cat([part.y for part in parts])
            x = together(parts).flatten(1)
            found.append(torch.cat([x, y.reshape(len(x), -1), weight[:, None]], dim=1))
        made.close()
        return torch.stack(found)

    whole = batches(0)
    assert torch.equal(batches(3), whole[3:])
    for world_size, micro_batches in ((1, 4), (2, 2), (4, 1)):
        parts = [
            batches(3, rank=rank, world_size=world_size, micro_batches=micro_batches) for rank in range(world_size)
        ]
        assert torch.equal(torch.cat(parts, dim=1), whole[3:])


def test_mixed_partner_has_a_round_of_its_own() -> None:
    """The last row of a rank is mixed with another rank's first one as that rank sees it, and not in its own round."""

    class Rounds(Pictures):
        def _rows(self, indices: Indices, seed_row: object, rounds: Indices) -> tuple[Tensor, Tensor]:
            x, y = super()._rows(indices, seed_row, rounds)
            return torch.from_numpy(rounds).float()[:, None, None, None].expand(x.shape), y

    mix = Mix({"mixup": 1.0}, 2)
    differ = 0
    for step in range(12):
        made = loader(Rounds(), 0, rank=1, world_size=4, classes=FEW, mix=mix)
        (batch,) = made.step(step)
        order = Sampler(np.arange(32), 8, 3, FEW)
        rounds = order.rounds(step)[2:5]
        differ += int(rounds[1] != rounds[2])
        low, high = sorted(rounds[1:].tolist())
        assert isinstance(batch.x, Tensor)
        value = float(batch.x[1, 0, 0, 0])
        assert low <= value <= high
        if low != high:
            assert low < value < high
    assert differ > 3


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
        made = loader(
            Pictures(), workers, rank=rank, world_size=world_size, micro_batches=micro_batches, mix=MIX
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


@pytest.mark.parametrize("workers", [0, 1])
def test_weight_of_a_mixed_row_is_that_of_both(workers: int) -> None:
    rows, mix = Pictures(), Mix({"mixup": 0.4}, 2)
    rows.weights = torch.arange(float(ROWS)) + 1
    made, plain = loader(rows, workers, mix=mix, micro_batches=2), loader(Pictures(), 0, mix=mix)
    for step in range(6):
        own = Sampler(np.arange(32), 8, 3).indices(step) + 1.0
        (batch,) = plain.step(step)
        classes = own % 2 == 0  # of row - 1: `Drawn` has the classes of even and odd rows
        at = int(np.flatnonzero(classes != np.roll(classes, -1))[0])
        ratio = float(batch.y[at, int(classes[at])])
        weight = torch.cat([part.weight for part in made.step(step) if part.weight is not None])
        np.testing.assert_allclose(weight.numpy(), ratio * own + (1 - ratio) * np.roll(own, -1), rtol=1e-5)
    made.close()


def test_rows_in_memory_need_no_process() -> None:
    rows = TensorRows(torch.zeros(3, 2), torch.zeros(3), [], [])
    assert Workers.of(Loading(workers=4), rows, torch.device("cpu")).number == 0
    assert Workers.of(Loading(workers=4), Drawn(), torch.device("cpu")).number == 4
    assert Workers.of(Loading(), Drawn(), torch.device("cpu")).number == 0
