"""Runs `fit` without Ray: one rank in this process, or several with gloo in processes of their own."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from trainmaster_api.layout import run_path
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.backends.torch.loop import fit
from trainmaster_trainer.context import Context, Report, Result, Signal
from trainmaster_trainer.data import Prepared
from trainmaster_trainer.data.loader import Loader
from trainmaster_trainer.data.order import Indices, Sampler
from trainmaster_trainer.data.rows import Rows
from trainmaster_trainer.storage.store import Store

from tests.factories import Changes, make_job


class Recording:
    """Reports of a run, and a control that stops at a step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.reports: list[Report] = []
        self.stop_at = stop_at
        self.step = 0

    def report(self, report: Report) -> None:
        self.reports.append(report)
        self.step = max(self.step, report.step)

    def poll(self) -> Signal:
        return Signal.STOP if self.stop_at is not None and self.step >= self.stop_at else Signal.CONTINUE


SMALL: Changes = {
    "metadata.uid": "u",
    "spec.training.data.batchSize": 64,
    "spec.training.model.args": {"hidden": [32], "dropout": 0.1},
    "spec.training.loop": {"duration": "4ep", "clipNorm": 1.0, "seed": 3},
}


def small_job(*changes: Changes) -> TrainingJob:
    """A job of some seconds: digits, 4 epochs, unless `changes` say otherwise; taken as it is, without `validate`."""
    return TrainingJob.model_validate(make_job(SMALL, *changes, name="t"))


def make_context(
    job: TrainingJob,
    root: Path,
    *,
    attempt: int = 1,
    rank: int = 0,
    world_size: int = 1,
    recording: Recording | None = None,
) -> Context:
    """A context on the CPU with storage under `root`."""
    recording = recording or Recording()
    path = root / run_path("default", job.metadata.name, "u")
    return Context(
        job, rank, world_size, torch.device("cpu"), attempt, Store(str(path), patience=2.0), str(path), root, root,
        recording, recording.report,
    )  # fmt: skip


def loader_of(data: Prepared) -> Loader:
    """What makes batches of these rows, here, for an evaluation."""
    return Loader(data, Sampler(data.train, 1, seed=0), 0, seed=0)


def run_store(job: TrainingJob, root: Path) -> Store:
    return Store(str(root / run_path("default", job.metadata.name, "u")))


def train(job: TrainingJob, root: Path, *, attempt: int = 1, recording: Recording | None = None) -> Result:
    """One rank, here."""
    return fit(make_context(job, root, attempt=attempt, recording=recording))


def _rank(rank: int, world_size: int, meeting: str, body: Callable[..., None], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size)
    try:
        body(rank, world_size, *args)
    finally:
        dist.destroy_process_group()
    # A group that DDP has used outlives its destruction (torch 2.13 keeps a reference), and gloo's threads then meet
    # the destructors at the interpreter's end: one run in some dozens aborted. Ray ends its workers this way too.
    sys.stdout.flush()
    os._exit(0)


def spawn(world_size: int, body: Callable[..., None], *args: Any) -> None:
    """Run `body(rank, world_size, *args)` in processes with a gloo group."""
    with tempfile.TemporaryDirectory() as folder:  # a file, not a port: nobody else can take it
        mp.spawn(_rank, args=(world_size, f"{folder}/store", body, args), nprocs=world_size, join=True)


def train_ranks(job: TrainingJob, root: Path, world_size: int, *, attempt: int = 1, stop_at: int | None = None) -> None:
    """Several ranks; what they leave is under `root`."""
    spawn(world_size, _fit_rank, job, root, attempt, stop_at)


def _fit_rank(rank: int, world_size: int, job: TrainingJob, root: Path, attempt: int, stop_at: int | None) -> None:
    fit(make_context(job, root, attempt=attempt, rank=rank, world_size=world_size, recording=Recording(stop_at)))


def weights(job: TrainingJob, root: Path) -> bytes:
    """The packaged model's weights file."""
    content = run_store(job, root).get("model/model.safetensors")
    assert content is not None
    return content


def samples(source: Rows | Prepared, indices: Indices) -> Tensor:
    """The samples of some rows, which are one tensor."""
    x, _ = source.batch(indices)
    assert isinstance(x, Tensor)
    return x
