"""The check before the first step: whether code of the user's own resumes exactly, proved on two steps.

One step is made, so that whatever keeps something has something to keep. Its state is saved as a checkpoint is, and
loaded into a second instance of everything. Then both make the next step from the same random states on the same
batch: what isn't equal to the bit afterwards depends on something that no checkpoint has.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist

from trainmaster_trainer.checkpoint.state import State, get_rng, set_rng
from trainmaster_trainer.data.loader import Loader
from trainmaster_trainer.data.own.stream import same
from trainmaster_trainer.data.stream_loader import StreamLoader
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.sample import Batch

from .builder import OPT_OUT, Setup, build_again, gather_ranks, share_state
from .hidden import Hidden, hidden_between

ADVICE = (
    "put it into a buffer (register_buffer) or, in a recipe, into `state`; or set `model.resumes_exactly = False` to "
    "train without exact resume"
)


def require(setup: Setup, step: Callable[[Setup], None], warm_up: Callable[[Setup], None]) -> list[str]:
    """Prove that a resume is exact; leaves weights, optimizer, states and random states as they were. Collective.

    Args:
        setup: The run, before its first step and warmed up.
        step: Makes an optimizer step.
        warm_up: What precedes the first step.

    Returns:
        Warnings, a sentence each.

    Raises:
        ConfigurationError: It isn't; with the attribute that no checkpoint has.
    """
    if not getattr(setup.model, OPT_OUT, True):
        return [f"{setup.label} sets {OPT_OUT} = False: that it resumes exactly isn't checked"]
    once = _Once(setup.loader, setup.step, setup.spec.training.loop.gradient_accumulation)
    probe = _on(setup, once)
    before = _taken(probe)
    step(probe)
    if not _fits(probe):
        _restore(probe, before)
        return ["that this run resumes exactly isn't checked: GPU memory doesn't hold a second instance of the model"]
    saved = _saved(probe)
    other = _on(build_again(setup, setup.loader), once)
    warm_up(other)
    _restore(other, saved)
    hidden = hidden_between(_places(probe), _places(other))
    found = []
    for each in (probe, other):
        set_rng(saved.ranks[setup.context.rank]["rng"], setup.context.device)
        step(each)
        found.append(_taken(each))
    differing = "" if int(probe.bad_steps) else next(_differing(_compared(found[0]), _compared(found[1])), "")
    _restore(probe, before)
    del other
    gc.collect()
    return _judged(setup, differing, hidden)


def _judged(setup: Setup, differing: str, hidden: list[Hidden]) -> list[str]:
    """Return warnings, or raise; the same on every rank."""
    shared: list[Any] = [(differing, hidden)]
    if setup.context.world_size > 1:
        shared = [None] * setup.context.world_size
        dist.all_gather_object(shared, (differing, hidden))
    differing, hidden = next((each for each in shared if each[0]), shared[0])
    named = ", ".join(str(each) for each in hidden[:10])
    if differing and (hidden or setup.context.device.type == "cpu"):
        what = (
            f"no checkpoint has {named}"
            if hidden
            else "something that no checkpoint has changes the step, and no attribute of model, loss or optimizer: "
            "a global variable, or one of an enclosing function?"
        )
        raise ConfigurationError(
            f"{setup.label} doesn't resume exactly: after save and load {differing} differs one step later; {what}; "
            f"{ADVICE}"
        )
    if differing:
        return [
            f"{setup.label} may not resume exactly: after save and load {differing} differs one step later, by GPU "
            "kernels that add in another order each time, or by a variable that no checkpoint has"
        ]
    if hidden:
        return [
            f"no checkpoint has {named}: the check before the first step found no effect on training; if there is "
            f"one later, {ADVICE}"
        ]
    return []


class _Once:
    """Batches of the check: one of the run's micro-batches for each step, made again, so that nothing is consumed."""

    def __init__(self, loader: Loader | StreamLoader, start: int, micro_batches: int) -> None:
        self._loader, self._start, self._micro_batches = loader, start, micro_batches

    def step(self, step: int) -> Iterator[Batch]:
        """Yield a step's micro-batches: another one than the warm-up had, which would leave the same values behind."""
        batch = self._loader.first(step + 1)
        for _ in range(self._micro_batches):  # ranks reduce their gradients in the last one only
            yield batch

    def first(self, step: int) -> Batch:
        """Return the same."""
        return self._loader.first(self._start)


def _on(setup: Setup, once: _Once) -> Setup:
    """Return a setup of the same objects with counters and batches of its own."""
    return dataclasses.replace(
        setup,
        loader=once,  # type: ignore[arg-type]  # all that a step asks for
        early=None,
        bad_steps=torch.zeros_like(setup.bad_steps),
        loss_sum=torch.zeros_like(setup.loss_sum),
        grad_norm=torch.zeros_like(setup.grad_norm),
    )


def _taken(setup: Setup) -> State:
    mine = {"rng": get_rng(setup.context.device), "lossSum": float(setup.loss_sum)}
    ranks = [mine] * setup.context.world_size  # each rank compares with itself
    return State.capture(setup.model, setup.optimizer, ranks, setup.loop_state(), setup.parts_state())


def _saved(setup: Setup) -> State:
    """Return what every rank would get of a checkpoint: rank 0's weights, buffers and states. Collective."""
    ranks, state = gather_ranks(setup), None
    if setup.context.rank == 0:
        captured = State.capture(setup.model, setup.optimizer, ranks, setup.loop_state(), setup.parts_state())
        state = State.from_files(captured.files())
    found = share_state(setup.context, state)
    assert found is not None
    return found


def _restore(setup: Setup, state: State) -> None:
    setup.restore(copy.deepcopy(state))  # an optimizer may keep the tensors that it is given


def _compared(state: State) -> dict[str, Any]:
    return {"model": state.model, "optimizer": state.optimizer, "state": state.parts, "random": state.ranks[0]}


def _differing(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Yield what isn't equal to the bit, by its place."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from _differing(one[key], other[key], f"{path}.{key}" if path else str(key))
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from _differing(*pair, path=f"{path}[{index}]")
    elif not same(one, other):
        yield path.replace("random.rng", "the random state of").replace("random.lossSum", "the loss")


def _places(setup: Setup) -> dict[str, Any]:
    """Return the objects of a setup that may hide something, by a word for each."""
    task: Any = setup.task
    recipe = getattr(task, "recipe", None)
    loss = recipe.loss if recipe is not None else task.loss.training
    metrics = {} if recipe is None else {f"state[{name!r}]": each for name, each in recipe.state.items()}
    return {"model": setup.model, "loss": loss, "optimizer": setup.optimizer, **metrics}


def _fits(setup: Setup) -> bool:
    """Return whether a second instance fits into the memory of the GPU of every rank; collective."""
    device = setup.context.device
    if device.type != "cuda":
        return True
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    fits = torch.tensor(int(free > torch.cuda.max_memory_allocated(device)), device=device)
    if setup.context.world_size > 1:
        dist.all_reduce(fits, op=dist.ReduceOp.MIN)
    return bool(fits)
