"""The device, the threads and the process group of a rank."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.errors import PortTaken

from .threads import use_threads

COLLECTIVE_TIMEOUT = timedelta(seconds=600)


@contextmanager
def join(job: TrainingJob, world_size: int, cpus: float | None) -> Iterator[torch.device]:
    """Set this process up as a rank for the block: `Backend.join` of torch."""
    device = find_device()
    use_threads(cpus, world_size)
    with process_group(world_size, "nccl" if job.spec.cluster.workers.gpus and device.type == "cuda" else "gloo"):
        yield device


def find_device() -> torch.device:
    """Return the device to train on: the first GPU that this process sees, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def process_group(world_size: int, backend: str) -> Iterator[None]:
    """Initialize torch.distributed for the block, from torchrun's environment variables.

    Raises:
        PortTaken: Rank 0 can't listen on its port.
    """
    if world_size == 1:
        yield
        return
    try:
        dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    except RuntimeError as error:
        text = str(error)
        if "EADDRINUSE" in text or "address already in use" in text.lower():
            raise PortTaken(f"the rendezvous port is taken: {text.splitlines()[0][:200]}") from error
        raise
    yield
    dist.destroy_process_group()
