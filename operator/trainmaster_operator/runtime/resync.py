"""Reconciles every job once per resync period, and closes the gap that kopf leaves.

kopf doesn't compare a re-list with what it knew: a TrainingJob that was deleted while its watch was interrupted stays
in its memory. So the names and versions (no bodies) are listed every resync period and compared with the cache.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from trainmaster_operator.kube.client import TRAINING_JOBS, Client
from trainmaster_operator.kube.errors import ApiError, NotFoundError
from trainmaster_operator.kube.trainingjob_cache import JobKey, JobStore, key_of, version_of

logger = logging.getLogger(__name__)


async def run(
    client: Client,
    jobs: JobStore,
    namespaces: tuple[str | None, ...],
    period: float,
    changed: Callable[[JobKey, float], None],
    gone: Callable[[JobKey], None],
) -> None:
    """Compare every `period` seconds, until cancelled.

    Args:
        client: Where to list.
        jobs: What we know.
        namespaces: Where to list; None: everywhere.
        period: Seconds, +-10 %.
        changed: Called with each job and the seconds after which to reconcile it, spread over a fifth of the period.
        gone: Called with each job that was known and no longer exists.
    """
    while True:
        await asyncio.sleep(period * random.uniform(0.9, 1.1))
        try:
            for namespace in namespaces:
                await compare(client, jobs, namespace, gone)
        except ApiError as error:
            logger.warning("can't list the TrainingJobs: %s", error)
        for key in jobs:
            changed(key, random.uniform(0.0, period / 5))


async def compare(client: Client, jobs: JobStore, namespace: str | None, gone: Callable[[JobKey], None]) -> None:
    """Drop the jobs that no longer exist, and fetch those that are newer than the cache."""
    known = {key: jobs.get(key) for key in jobs if namespace in (None, key.namespace)}
    listed: dict[JobKey, tuple[str, int]] = {}
    async for items, _ in client.list_pages(TRAINING_JOBS, namespace, metadata_only=True):
        listed |= {key_of(item): (item["metadata"]["uid"], version_of(item)) for item in items}
    for key, body in known.items():
        if body is not None and listed.get(key, ("",))[0] != body["metadata"]["uid"]:
            logger.warning("%s was deleted while its watch was interrupted", key)
            jobs.remove(key, body["metadata"]["uid"])
            gone(key)
    for key, (_, version) in listed.items():
        body = jobs.get(key)
        if body is None or version_of(body) < version:
            try:
                jobs.put(await client.get(TRAINING_JOBS, key.namespace, key.name))
            except NotFoundError:
                continue
