"""Part of `spec.training.data`: who makes the samples, and how far ahead."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainmaster_api.types import Model


class Loading(Model):
    """Who makes the samples. It changes the speed and never the result: order and random draws don't depend on it."""

    workers: Annotated[int, Field(ge=0, le=64)] | None = None
    """Number of processes per rank that read, decode and augment samples ahead of the training; 0: the rank does it
    itself. Default: for images, the rank's CPUs minus one, at most 8; for a dataset of your own 0. Tables are in memory
    and need none."""
    prefetch: Annotated[int, Field(ge=1, le=64)] = 2
    """Number of batches that each of these processes makes ahead. They wait in /dev/shm, which has a quarter of
    `cluster.workers.memory`."""
