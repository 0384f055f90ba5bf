"""The arms of the step benchmark. Each runs in a process of its own: `python -m tests.bench.step_arms ARM STEPS`."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name
from torch.utils.data import DataLoader, TensorDataset
from trainmaster_api.messages import Outcome
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.backends.torch.loop import fit
from trainmaster_trainer.backends.torch.optim import build_optimizer
from trainmaster_trainer.context import Context, Report, ReportKind, Signal
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.models import build_model
from trainmaster_trainer.storage.store import open_store

from tests.factories import make_job

WARM_SHARE = 0.1  # of the steps; they are not counted
BATCH, LR, WEIGHT_DECAY, CLIP, WARMUP_SHARE, LOG_EVERY = 32, 1e-3, 0.01, 1.0, 0.05, 50


def job(steps: int, every: str) -> TrainingJob:
    """Digits, one hidden layer; one validation at the very end, so that what is measured is steps."""
    changes = {
        "spec.training.data.batchSize": BATCH,
        "spec.training.model.args": {"hidden": [128]},
        "spec.training.optimizer": {"name": "adamw", "lr": LR, "weightDecay": WEIGHT_DECAY},
        "spec.training.schedule": {"name": "cosine", "warmup": f"{WARMUP_SHARE:.0%}"},
        "spec.training.loop": {"duration": f"{steps}step", "validateEvery": f"{steps}step", "clipNorm": CLIP},
        "spec.checkpoint.every": every,
    }
    return TrainingJob.model_validate(make_job(changes, name="step"))


class Clock:
    """Time per step from the end of the warm-up to the last step, on the wall and of the processor."""

    def __init__(self, steps: int) -> None:
        self.steps, self.warm = steps, int(steps * WARM_SHARE)
        self.began_step, self.began, self.began_cpu = -1, 0.0, 0.0

    def passed(self, step: int) -> None:
        """The first call at or after the warm-up starts the clock."""
        if self.began_step < 0 and step >= self.warm:
            self.began_step, self.began, self.began_cpu = step, time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """`ms` on the wall and `cpu_ms` of all threads, per step, now that all steps are done."""
        wall, cpu = time.perf_counter() - self.began, time.process_time() - self.began_cpu
        steps = self.steps - self.began_step
        return {"ms": 1000 * wall / steps, "cpu_ms": 1000 * cpu / steps}


def ours(steps: int, every: str = "auto") -> dict[str, float]:
    """`fit` as a job runs it: guard, logging, metrics, schedule, control points, checkpoints."""
    clock = Clock(steps)
    found: dict[str, float] = {}
    saves = 0

    def report(said: Report) -> None:
        nonlocal saves
        if said.kind is ReportKind.STEP:
            clock.passed(said.step)
        elif said.kind is ReportKind.VALIDATION:  # after the last step, and it counts: a disadvantage of ours
            found.update(clock.read())
        elif said.kind is ReportKind.CHECKPOINT and not found and clock.began_step >= 0:
            saves += 1

    with tempfile.TemporaryDirectory(prefix="trainmaster-bench-") as folder:
        store = open_store(folder, None, "us-east-1", {})
        device = torch.device("cpu")
        result = fit(
            Context(job(steps, every), 0, 1, device, 1, store, folder, Path(folder), Path(folder), _GoOn(), report)
        )
    assert result.outcome is Outcome.COMPLETE
    return found | {"saves": saves, "accuracy": result.test_metrics["test/accuracy"]}


class _GoOn:
    def poll(self) -> Signal:
        return Signal.CONTINUE


def plain(steps: int) -> dict[str, float]:
    """What the PyTorch tutorials write: DataLoader over a TensorDataset, AdamW, clip, schedule, a loss now and then."""
    data, model = _start(steps)
    x, y = data.batch(data.train)
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    warmup = int(steps * WARMUP_SHARE)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, 1.0, warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup),
        ],
        [warmup],
    )
    clock, losses = Clock(steps), []
    model.train()
    for step, (features, target) in enumerate(_endless(loader), start=1):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(features), target)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        if step % LOG_EVERY == 0:
            losses.append(loss.item())
        clock.passed(step)
        if step == steps:
            break
    return clock.read() | {"accuracy": _accuracy(data, model)}


def floor(steps: int) -> dict[str, float]:
    """The same arithmetic and nothing else: fused optimizer, indexed batches; no schedule, guard, log or checkpoint."""
    data, model = _start(steps)
    optimizer = build_optimizer(job(steps, "auto").spec.training.optimizer, model)
    x, y = data.batch(data.train)
    parameters = list(model.parameters())
    clock = Clock(steps)
    model.train()
    per_epoch = len(x) // BATCH
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(x)).split(BATCH)
        rows = order[step % per_epoch]
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.passed(step + 1)
    return clock.read() | {"accuracy": _accuracy(data, model)}


def _start(steps: int) -> tuple[Prepared, nn.Module]:
    asked = job(steps, "auto")
    data = load_data(asked, Path(), {})
    data.move(torch.device("cpu"))
    torch.manual_seed(0)
    return data, build_model(asked.spec.training.model, data.inputs, 10)


def _endless(loader: DataLoader[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    while True:
        yield from loader


@torch.no_grad()
def _accuracy(data: Prepared, model: nn.Module) -> float:
    x, y = data.batch(data.test)
    return float((model.eval()(x).argmax(dim=1) == y).double().mean())


ARMS: dict[str, Callable[[int], dict[str, float]]] = {
    "ours": ours,
    "ours-saving": lambda steps: ours(steps, "1s"),
    "plain": plain,
    "floor": floor,
}

if __name__ == "__main__":
    # one thread each: a second one gains nothing on matrices this small, and waits for the first on a busy machine
    torch.set_num_threads(1)
    print(json.dumps(ARMS[sys.argv[1]](int(sys.argv[2]))))
