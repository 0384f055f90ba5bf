"""Iterable datasets: the same items for every number of ranks, from any position, and what is refused before a step."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import IterableDataset
from trainmaster_api.layout import Fingerprint
from trainmaster_api.spec.job import Spec
from trainmaster_trainer.data.inspect import Inspection
from trainmaster_trainer.data.loader import Workers
from trainmaster_trainer.data.own import START, IterableRows, Made, Stream
from trainmaster_trainer.data.own import stream as stream_module
from trainmaster_trainer.data.own.iterable import prepare_iterable
from trainmaster_trainer.data.own.objects import Objects, is_iterable
from trainmaster_trainer.data.own.parts import TRAIN, Parts
from trainmaster_trainer.data.prepared import Prepared
from trainmaster_trainer.data.stream_loader import StreamLoader, stream_loader
from trainmaster_trainer.errors import ConfigurationError, DataError, TrainingError

from tests.unit.trainer.harness import small_job

BATCH = 12


class Numbers:
    """Item i is its number and draws of each RNG, in the order that a shuffled buffer draws; its state has it all."""

    classes = ["even", "odd"]

    def __init__(self, items: int = 157, buffer: int = 5) -> None:
        self.items, self.size, self.at, self.buffer = items, buffer, 0, list[int]()

    def __len__(self) -> int:
        return self.items

    def __iter__(self) -> Iterator[Any]:
        while self.at < self.items or self.buffer:
            while self.at < self.items and len(self.buffer) < self.size:
                self.buffer.append(self.at)
                self.at += 1
            number = self.buffer.pop(int(torch.randint(len(self.buffer), ())))
            yield [float(number), float(np.random.random()), random.random()], number % 2

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "buffer": self.buffer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at, self.buffer = state["at"], state["buffer"]


class Endless(Numbers):
    """The same without an end, and of unknown length."""

    __len__ = None  # type: ignore[assignment]
    held_out = 20

    def __init__(self) -> None:
        super().__init__(10**9)


class Stateless:
    """It says nothing of its position."""

    classes = ["even", "odd"]

    def __init__(self, items: int = 157) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.items):
            yield [float(number), float(torch.rand(()))], number % 2


class BySplit(Numbers):
    """An object for each split, another order in each epoch."""

    def __init__(self, split: str, items: int = 60) -> None:
        super().__init__(items)
        self.start, self.epoch = {"train": 0, "validation": 1000, "test": 2000}[split], 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        for (number, *draws), target in super().__iter__():
            yield [number + self.start, float(self.epoch), *draws], target


class ByRank(Stateless):
    """Each rank reads its own part."""

    def __init__(self, split: str, rank: int, world_size: int) -> None:
        super().__init__(50)
        self.split, self.rank, self.world_size = split, rank, world_size

    def __len__(self) -> int:
        return self.items

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.rank, self.items, self.world_size):
            yield [float(number), float(torch.rand(()))], number % 2


def spec(*, duration: str = "40step", **data: Any) -> Spec:
    steps = {"duration": duration, "validateEvery": "10step", "seed": 3}
    return small_job(
        {
            "spec.training.task": {"name": "classification"},
            "spec.training.data": {"class": "pkg:Stream", "batchSize": BATCH, **data},
            "spec.training.loop": steps,
        }
    ).spec


def objects(target: type, **data: Any) -> Objects:
    return Objects(target, spec(**data).training.data, Path())


def rows(target: type, **data: Any) -> IterableRows:
    return IterableRows(objects(target, **data), spec(**data))


@cache
def known_rows(target: type) -> IterableRows:
    return rows(target)


def stream(target: type, rank: int = 0, world_size: int = 1, micro_batches: int = 1, seed: int = 3) -> Stream:
    return known_rows(target).stream(
        seed=seed, batch_size=BATCH, micro_batches=micro_batches, rank=rank, world_size=world_size
    )


def first(found: Iterator[Made], steps: int) -> list[Made]:
    return list(itertools.islice(found, steps))


def x_of(made: Made) -> torch.Tensor:
    parts = [x for x, _ in made.batches]
    assert all(isinstance(part, torch.Tensor) for part in parts)
    return torch.cat(parts)  # type: ignore[arg-type]


# -- which items ------------------------------------------------------------------------------------------------------
def test_items_that_are_held_out_are_never_trained_on() -> None:
    found = rows(Stateless)
    made = first(found.stream(seed=3, batch_size=BATCH, micro_batches=1, rank=0, world_size=1).steps(START), 30)
    trained = [int(number) for each in made for number in x_of(each)[:, 0]]
    parts = Parts(spec().training.data.split)
    of_train = [number for number in range(157) if parts.of(number) == TRAIN]
    whole = len(of_train) // BATCH * BATCH  # the last, incomplete batch of an epoch is dropped
    assert trained[:whole] == of_train[:whole]
    assert trained[whole : 2 * whole] == of_train[:whole], "the next epoch has the same items"
    held = [int(found.batch(np.array([row]))[0][0, 0]) for row in range(len(found) - len(found.held[TRAIN].items))]  # type: ignore[call-overload,index]
    assert sorted(held) == [number for number in range(157) if parts.of(number) != TRAIN]


def test_order_of_a_stream_that_draws_is_the_same_in_every_epoch_and_run() -> None:
    """Else what is in the test split now would be trained on later."""
    made = first(stream(Numbers).steps(START), 20)
    other = first(stream(Numbers, seed=4).steps(START), 20)
    assert torch.equal(x_of(made[0]), x_of(made[10])), "10 steps are an epoch"
    assert all(torch.equal(x_of(one), x_of(two)) for one, two in zip(made, other, strict=True))


def test_object_for_each_split_draws_by_epoch() -> None:
    made = first(stream(BySplit).steps(START), 10)
    assert [x_of(each)[0, 1].item() for each in made] == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert {int(number) for each in made[:5] for number in x_of(each)[:, 0]} == set(range(60))
    assert not torch.equal(x_of(made[0])[:, 0], x_of(made[5])[:, 0]), "another order"
    found = rows(BySplit)
    numbers = found.batch(np.arange(120))[0][:, 0]  # type: ignore[call-overload,index]
    assert sorted(numbers.tolist()) == [*range(1000, 1060), *range(2000, 2060)]


@pytest.mark.parametrize("target", [Numbers, Stateless, BySplit])
@pytest.mark.parametrize(("world_size", "micro_batches"), [(2, 1), (3, 2), (1, 4)])
def test_ranks_and_micro_batches_change_no_item(target: type, world_size: int, micro_batches: int) -> None:
    whole = first(stream(target).steps(START), 12)
    parts = [first(stream(target, rank, world_size, micro_batches).steps(START), 12) for rank in range(world_size)]
    for step, one in enumerate(whole):
        assert torch.equal(torch.cat([x_of(part[step]) for part in parts]), x_of(one))
        assert all(len(part[step].batches) == micro_batches for part in parts)
        assert all(part[step].position["item"] == one.position["item"] for part in parts)


def test_each_rank_may_read_a_part_of_its_own() -> None:
    parts = [first(stream(ByRank, rank, 2).steps(START), 4) for rank in range(2)]
    numbers = [[x_of(each)[:, 0].tolist() for each in part] for part in parts]
    assert numbers[0][:2] == [[0, 2, 4, 6, 8, 10], [12, 14, 16, 18, 20, 22]]
    assert numbers[1][:2] == [[1, 3, 5, 7, 9, 11], [13, 15, 17, 19, 21, 23]]
    draws = torch.cat([x_of(each)[:, 1] for part in parts for each in part])
    assert len(torch.unique(draws)) == len(draws), "each rank draws other numbers"


# -- resume -----------------------------------------------------------------------------------------------------------
@given(steps=st.integers(0, 30), cost=st.sampled_from([1e-9, 0.01, 1e9]), rank=st.integers(0, 2))
@settings(max_examples=15, deadline=None)
@pytest.mark.parametrize("target", [Numbers, Stateless, BySplit, Endless])
def test_stream_from_any_position_is_that_of_one_that_was_not_interrupted(
    target: type, steps: int, cost: float, rank: int
) -> None:
    """Whether the state is taken after each step or only once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_module, "STATE_COST", cost)
        whole = first(stream(target, rank, 3).steps(START), 40)
        position = whole[steps - 1].position if steps else START
        rest = first(stream(target, rank, 3).steps(position), 40 - steps)
    assert all(torch.equal(x_of(one), x_of(two)) for one, two in zip(rest, whole[steps:], strict=True))
    assert [each.position["item"] for each in rest] == [each.position["item"] for each in whole[steps:]]


def test_state_is_taken_as_often_as_is_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "STATE_COST", 1e9)
    found = first(stream(Numbers).steps(START), 9)
    assert all(each.position["stateItem"] == each.position["item"] for each in found)
    assert found[3].position["state"] != found[4].position["state"], "a copy: the dataset changes its own"
    monkeypatch.setattr(stream_module, "STATE_COST", 1e-9)
    assert len({each.position["stateItem"] for each in first(stream(Numbers).steps(START), 9)}) == 1


def test_position_beyond_the_end_is_refused() -> None:
    position = {"epoch": 0, "item": 500, "state": None, "stateItem": 0}
    with pytest.raises(DataError, match=r"ended after 157 items, before the checkpoint's position, item 500"):
        next(stream(Stateless).steps(position))  # type: ignore[arg-type]


# -- the loader -------------------------------------------------------------------------------------------------------
def loader(target: type, workers: int, rank: int = 0, world_size: int = 1) -> StreamLoader:
    data: Prepared = prepare_iterable(objects(target), spec())
    assert isinstance(data.rows, IterableRows)
    return stream_loader(
        data, data.rows, seed=3, batch_size=BATCH, micro_batches=2, rank=rank, world_size=world_size,
        workers=Workers(workers, prefetch=3),
    )[1]  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
def test_state_is_that_of_the_last_step_and_not_of_what_was_read_ahead(workers: int) -> None:
    found = loader(Numbers, workers)
    expected = first(stream(Numbers).steps(START), 6)
    drawn = torch.get_rng_state()
    warm = found.first(0)
    assert found.state() == START, "the warm-up reads a batch that is trained on later"
    for step in range(6):
        batches = list(found.step(step))
        assert len(batches) == 2
        if step == 0:
            assert torch.equal(batches[0].x, warm.x)  # type: ignore[arg-type]
        assert found.state()["item"] == expected[step].position["item"]
    assert torch.equal(torch.get_rng_state(), drawn), "dropout draws the same masks"
    found.close()


class Broken(Stateless):
    def __iter__(self) -> Iterator[Any]:
        for number, item in enumerate(super().__iter__()):
            if number >= 2000:
                raise RuntimeError("the line is dead")
            yield item if number < 1000 else ([1.0], 7)


@pytest.mark.parametrize("workers", [0, 1])
def test_error_is_said_in_the_words_of_the_item(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainmaster_trainer.data.own.iterable.HELD_OUT", 20)
    monkeypatch.setattr(Broken.__init__, "__defaults__", (5000,))
    found = loader(Broken, workers)
    with pytest.raises(TrainingError, match=r"item 1000 has shape \[1\] and item 0 \[2\]") as caught:
        _ = [list(found.step(step)) for step in range(500)]
    assert caught.value.failure_class == DataError("").failure_class
    found.close()


def test_other_number_of_ranks_continues_a_stream_that_all_read() -> None:
    positions = first(stream(Numbers, 0, 2).steps(START), 5)
    found = loader(Numbers, 0, rank=2, world_size=3)
    found.restore([positions[4].position] * 2)
    assert found.state() == positions[4].position
    assert found.data.warnings == ()
    assert "resume: from the dataset's state at item" in found.data.said[-1]


def test_other_number_of_ranks_cannot_continue_parts_of_their_own() -> None:
    positions = [first(stream(ByRank, rank, 2).steps(START), 2)[1].position for rank in range(2)]
    found = loader(ByRank, 0, rank=0, world_size=3)
    with pytest.raises(
        ConfigurationError, match=r"that run had 2 workers, each with a part of the stream of its own; 3"
    ):
        found.restore(positions)


def test_resume_without_a_state_says_what_it_skips() -> None:
    found, position = loader(Stateless, 0), first(stream(Stateless).steps(START), 3)[2].position
    found.restore([position])
    assert (
        found.data.warnings[-1] == f"resume: by skipping {position['item']} items, to epoch 0, item {position['item']}"
    )
    found = loader(Stateless, 0)
    found.restore([None])
    assert "that run has no position in a stream" in found.data.warnings[-1]


# -- what is said, and refused, before the first step -----------------------------------------------------------------
def test_what_is_held_out_is_bounded_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Endless, "held_out", 9)
    said = prepare_iterable(objects(Endless), spec()).said
    assert said == (
        "pkg:Stream is read in its own order; split by position (split.seed): validation the first 9 items, test the "
        "first 9 items",
        "resume: from the dataset's own state",
    )
    monkeypatch.setattr("trainmaster_trainer.data.own.iterable.HELD_BYTES", 100)
    assert "validation the first 1 items" in prepare_iterable(objects(Endless), spec()).said[0]


def test_what_is_held_out_is_all_there_is() -> None:
    found = prepare_iterable(objects(BySplit), spec())
    assert (len(found.validation), len(found.test), len(found.train)) == (60, 60, 0)
    assert found.said[0].endswith("split an object for each: validation 60 items, test 60 items")
    assert len(found.rows) == 120, "items of train are forgotten after the statistics"


def test_statistics_are_those_of_the_first_items_of_train() -> None:
    found = prepare_iterable(objects(Stateless), spec())
    parts = Parts(spec().training.data.split)
    numbers = [number for number in range(157) if parts.of(number) == TRAIN]
    assert found.mean[0].item() == pytest.approx(np.mean(numbers))
    assert found.std[0].item() == pytest.approx(np.std(numbers), rel=1e-6)


def test_stream_without_a_state_is_a_warning() -> None:
    (warning,) = prepare_iterable(objects(Stateless), spec()).warnings
    assert warning == (
        "pkg:Stream has no state_dict and load_state_dict: a resume reads the items of its epoch again and skips them"
    )


def test_epochs_of_an_unknown_length_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"has no __len__, .* loop.duration: 4ep is in epochs; give steps"):
        prepare_iterable(objects(Stateless), spec(duration="4ep"))
    prepare_iterable(objects(Numbers), spec(duration="4ep"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"split": {"by": "stratified"}}, r"data.split.by: stratified needs rows that are known before the first step"),
        ({"sampling": "balanced", "dedupe": True}, r"data.sampling: balanced needs .*; data.dedupe is for tables"),
    ],
)
def test_what_needs_rows_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        prepare_iterable(objects(Numbers), spec(**data))


def made_of(base: type, **changes: Any) -> type:
    return type("Changed", (base,), changes)


def counts_late(self: Any) -> Iterator[Any]:
    while self.at < self.items:
        yield [float(self.at)], 0
        self.at += 1


def draws_of_its_own(self: Any) -> Iterator[Any]:
    while self.at < self.items:
        self.at += 1
        yield [float(np.random.default_rng().random())], 0


def forgets(self: Any) -> Iterator[Any]:
    for number in self.order:
        self.at += 1
        yield [float(number)], 0


class Forgetful(Numbers):
    """Its order is drawn when it begins, and not in its state."""

    def __iter__(self) -> Iterator[Any]:
        order = np.random.permutation(self.items)
        while self.at < self.items:
            self.at += 1
            yield [float(order[self.at - 1])], 0


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (made_of(Numbers, __iter__=counts_late), r"item 1 comes again: count the item before `yield`, not after it"),
        (Forgetful, r"another item comes than without it; the state must have everything"),
        (made_of(Stateless, __iter__=draws_of_its_own, at=0), r"item 0 isn't the same when the stream is read again"),
        (made_of(BySplit, __iter__=draws_of_its_own), r"another item comes than without it"),
        (made_of(Numbers, state_dict=lambda self: {"at": np.arange(2)}), r"state_dict\(\)\['at'\] is a numpy.ndarray"),
        (made_of(Numbers, state_dict=lambda self: {1.5: 2}), r"state_dict\(\) has the key 1.5, a float"),
        (made_of(Numbers, load_state_dict=None), r"has `state_dict` and no `load_state_dict`; a resume needs both"),
        (made_of(Numbers, held_out=0), r"`held_out` is 0; expected how many items"),
        (made_of(Numbers, targets=[1]), r"`targets` is for datasets whose rows have numbers"),
        (made_of(Numbers, collate=3), r"`collate` is a int; expected a function"),
    ],
)  # fmt: skip
def test_stream_that_cannot_be_resumed_is_refused(target: type, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        rows(target)


class OnlyRank(Numbers):
    def __init__(self, rank: int) -> None:
        super().__init__()


class WithoutSplit(Numbers):
    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (OnlyRank, r"takes only one of `rank` and `world_size`"),
        (WithoutSplit, r"takes `rank` and `world_size` without `split`"),
    ],
)
def test_constructor_that_divides_half_of_it_is_refused(target: type, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        objects(target)


def test_argument_that_is_given_is_the_users_own() -> None:
    found = Objects(BySplit, spec(args={"split": "train"}).training.data, Path())
    assert not found.by_split


@pytest.mark.parametrize(
    ("items", "length", "message"),
    [
        (100, 157, r"the stream of epoch 0 has 100 items and len\(\) is 157"),
        (157, 100, r"the stream of epoch 0 has 157 items and len\(\) is 100"),
    ],
)
def test_length_that_is_not_true_is_refused(items: int, length: int, message: str) -> None:
    target = made_of(Numbers, __len__=lambda self: length)
    found = Objects(target, spec(args={"items": items}).training.data, Path())
    with pytest.raises(DataError, match=message):
        first(IterableRows(found, spec()).stream(
            seed=0, batch_size=BATCH, micro_batches=1, rank=0, world_size=1).steps(START), 30)  # fmt: skip


def test_stream_of_too_few_items_is_refused() -> None:
    found = Objects(Stateless, spec(args={"items": 30}).training.data, Path())
    made = IterableRows(found, spec()).stream(seed=0, batch_size=48, micro_batches=1, rank=0, world_size=1)
    with pytest.raises(DataError, match=r"epoch 0 ended after 30 items, fewer than one batch of train; lower"):
        next(made.steps(START))
    with pytest.raises(DataError, match=r"no item of (validation|test) came in a stream of 3$"):
        IterableRows(Objects(Stateless, spec(args={"items": 3}).training.data, Path()), spec())


def test_items_are_checked_before_the_first_step() -> None:
    target = made_of(Stateless, __iter__=lambda self: iter([([0.0], 0)] * 50 + [([0.0], 5)] + [([0.0], 0)] * 50))
    with pytest.raises(DataError, match=r"item 50 has class 5; expected 0 \.\. 1"):
        rows(target)


class Torchs(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


def test_dataset_of_torch_is_iterable_though_its_base_has_getitem() -> None:
    assert is_iterable(Torchs)
    assert is_iterable(Torchs())
    assert is_iterable(Numbers())
    assert not is_iterable([1])
    assert not is_iterable(torch.utils.data.TensorDataset(torch.zeros(1)))


def test_stream_is_shown_as_one() -> None:
    for target, words in ((Numbers, "a stream of 157 items"), (Stateless, "a stream of unknown length")):
        shown = Inspection("job", "pkg:Stream", prepare_iterable(objects(target), spec()), Fingerprint(source="x"))
        assert shown.heading() == (f"pkg:Stream: {words}",)
