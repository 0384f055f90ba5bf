"""The training data of a Trainer: what its order depends on, and whether it is the same again after a restart."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from trainmaster_api.messages import Resume

from trainmaster_trainer.backends.script.session import Session
from trainmaster_trainer.checkpoint.state import get_rng, set_rng

DRAWS = (
    "the dataset, sampler or collator draws random numbers: a resumed epoch draws others for its first batches, so it "
    "is exact only where they don't matter"
)


def generators(loader: Any) -> list[torch.Generator]:
    """Return the generators that a loader and its samplers own."""
    holders: list[Any] = [loader]
    found: dict[int, torch.Generator] = {}
    while holders and len(found) < 16:
        holder = holders.pop()
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator):
            found[id(generator)] = generator
        inner = [getattr(holder, name, None) for name in ("sampler", "batch_sampler")]
        holders += [each for each in inner if each is not None and each is not holder]
    return list(found.values())


def seen() -> tuple[Any, ...]:
    """Return the random states of this process's processor, to be compared."""
    _, keys, position, *_ = np.random.get_state()
    return torch.get_rng_state(), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, random.getstate()


def has_drawn(before: tuple[Any, ...]) -> bool:
    """Return whether anything has drawn since `seen`."""
    now = seen()
    return not (torch.equal(before[0], now[0]) and torch.equal(before[1], now[1]) and before[2:] == now[2:])


def judge(session: Session, trainer: Any, loader: Any) -> None:
    """Say how exactly the data of a training resumes."""
    args, promise = trainer.args, session.promise
    if args.ignore_data_skip:
        promise(Resume.SCRIPT, "ignore_data_skip: a resumed epoch begins with its first batch again")
    if not isinstance(loader, DataLoader):
        name = type(loader).__name__
        promise(Resume.SCRIPT, f"the training data comes from a {name}: how a resumed epoch reads it isn't known")
    elif isinstance(loader.dataset, IterableDataset):
        promise(
            Resume.LOADER,
            "the train set is iterable: a resumed epoch reads and drops what was read before, which is exact only if "
            "it yields the same samples again",
        )
    elif loader.num_workers and _draws_in_worker(loader):
        promise(Resume.LOADER, DRAWS)


class _Probe(Dataset[bool]):
    """Whether reading one sample draws; asked in a worker, because a dataset may open its files at the first one."""

    def __init__(self, dataset: Any, collate: Any) -> None:
        self._dataset, self._collate = dataset, collate

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> bool:
        before = seen()
        self._collate([self._dataset[index]])
        return has_drawn(before)


def _draws_in_worker(loader: Any) -> bool:
    before = get_rng()
    try:
        probe = DataLoader(
            _Probe(loader.dataset, loader.collate_fn),
            batch_size=None,
            num_workers=1,
            multiprocessing_context=loader.multiprocessing_context,
        )
        return bool(next(iter(probe)))
    except Exception:  # noqa: BLE001 - the user's code; the training will say what is wrong with it
        return True
    finally:
        set_rng(before)
