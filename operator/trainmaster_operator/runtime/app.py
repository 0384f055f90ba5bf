"""The wiring: what runs in the operator's process, who tells whom, and in which order it starts and ends."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from aiohttp import web
from trainmaster_api import __version__, names
from trainmaster_api.messages import ProgressMessage

from trainmaster_operator import manifests
from trainmaster_operator.kube.client import PODS, SERVICES, TRAINING_JOBS, Client, Object, Resource
from trainmaster_operator.kube.connection import Connection
from trainmaster_operator.kube.errors import ApiError, ForbiddenError, NotFoundError
from trainmaster_operator.kube.lease import Elector, LeaseTimes
from trainmaster_operator.kube.reflector import Reflector
from trainmaster_operator.kube.tokens import TokenReviewer
from trainmaster_operator.kube.trainingjob_cache import JobKey, JobStore, key_of
from trainmaster_operator.policy.snapshot import PodView
from trainmaster_operator.reconcile import Caches, Reconciler

from . import health, kopf_adapter, resync, tls
from .config import Config
from .endpoint import Endpoint
from .leader_proxy import LeaderProxy
from .metrics import Metrics
from .progress import ProgressStore
from .queue import KeyedQueue

logger = logging.getLogger(__name__)

SELECTOR = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY},{names.LABEL_JOB}"
# The pods of a job change state together: one reconcile sees them all.
POD_NEWS_SECONDS = 0.1
CRD_POLL_SECONDS = 5.0
WEBHOOK_TRIES = 5

V = TypeVar("V")


class App:
    """One replica of the operator."""

    def __init__(self, config: Config, connection: Connection) -> None:
        self._config = config
        self.metrics = Metrics()
        # Token reviews and reads; everything that touches a job goes through the fenced client. All share one limit.
        self._client = Client(connection, observe=self.metrics.request)
        seconds = config.lease_seconds
        times = LeaseTimes(duration=seconds, deadline=seconds * 2 / 3, period=seconds / 5)
        lease = Client(connection, observe=self.metrics.request, urgent=True)
        self.elector = Elector(lease, config.own_namespace, config.lease_name, config.identity, times=times)
        self._fenced = Client(connection, observe=self.metrics.request, may_write=self.elector.is_leader)
        self.jobs = JobStore()
        self.queue: KeyedQueue[JobKey] = KeyedQueue(
            self._reconcile, concurrency=config.concurrency, metrics=self.metrics
        )
        self.progress = ProgressStore(self.queue.add)
        self.pods = self._reflector(PODS, PodView.from_pod)
        self.services: Reflector[str, bool] = Reflector(
            self._client,
            SERVICES,
            namespaces=config.namespaces,
            labels=",".join(f"{key}={value}" for key, value in names.heads_labels().items()),
            key=lambda body: str(body["metadata"]["namespace"]),
            trim=manifests.is_heads_service,
            changed=self._heads_service_changed,
        )
        self._reconciler: Reconciler | None = None
        self._kopf = kopf_adapter.KopfThread(self._seen, self._deleted, config.namespaces)
        self._lag = health.LoopLag()

    async def run(self) -> None:
        """Run until told to stop (SIGTERM, SIGINT: returns), or until a part fails or the lease is lost (raises)."""
        config = self._config
        certificates = await self._certificates()
        self._reconciler = Reconciler(
            self._fenced,
            Caches(self.jobs, self.pods, self.services, self.progress),
            dataclasses.replace(config.defaults, progress_ca=certificates.ca),
            status_written=self._count_failures,
            enqueue=self.queue.add,
        )
        leader = LeaderProxy(lambda: self.elector.holder, config.https_port, certificates.ca, config.progress_names[0])
        tokens = TokenReviewer(self._client, names.PROGRESS_AUDIENCE)
        endpoint = Endpoint(
            tokens,
            self.progress,
            self._head_of,
            self.elector.is_leader,
            leader,
            self.metrics,
            lambda job: manifests.settings_problems(job, config.defaults),
            self._images_of,
        )
        probes = health.application(self._health(), self.metrics)
        context = certificates.server_context()
        async with (
            _serving(probes, config.http_port, None),
            _serving(endpoint.application(), config.https_port, context),
            leader,
        ):
            await self._wait_for_crd()
            await self._run_parts(tls.follow(self._certificates, certificates, context, config.resync_seconds))

    async def _run_parts(self, certificates: Coroutine[Any, Any, None]) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        stopped = asyncio.create_task(_wait(stop), name="stop")
        work = asyncio.create_task(self._work(), name="queue")
        election = asyncio.create_task(self.elector.run(), name="election")
        others = [
            asyncio.create_task(self._kopf.run(), name="kopf"),
            asyncio.create_task(self.pods.run(), name="pods"),
            asyncio.create_task(self.services.run(), name="services"),
            asyncio.create_task(self._lag.run(), name="loop lag"),
            asyncio.create_task(self._resync(), name="resync"),
            asyncio.create_task(certificates, name="certificates"),
        ]
        try:
            done, _ = await asyncio.wait([stopped, work, election, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            # first stop writing, then release the lease, then stop the rest
            await _cancel(work)
            await _cancel(election)
            await self.elector.release()
            self._kopf.stop()
            await _cancel(stopped, *others)
        for task in done - {stopped}:
            task.result()
            sys.exit(f"{task.get_name()} ended unexpectedly")

    async def _certificates(self, have: tls.Certificates | None = None) -> tls.Certificates:
        config = self._config
        if config.tls_files is not None:
            made = tls.from_files(*config.tls_files)
        else:
            where = (config.own_namespace, config.tls_secret)
            made = await tls.ensure(self._client, *where, config.progress_names, have)
        if config.webhook:
            await self._publish_ca(made.ca, WEBHOOK_TRIES if have is None else 1)
        return made

    async def _publish_ca(self, ca: str, tries: int) -> None:
        """Give the API server the CA of our webhook. Without it nothing but validation at admission is missing."""
        problem: ApiError | None = None
        for number in range(tries):
            if number:
                await asyncio.sleep(1.0)
            try:
                await tls.publish(self._client, self._config.webhook, ca)
                return
            except (NotFoundError, ForbiddenError) as error:  # Helm creates it a moment after the Deployment
                problem = error
        logger.warning(
            "TrainingJobs are not validated at admission: ValidatingWebhookConfiguration %s: %s; retrying in %.0f s",
            self._config.webhook, problem, self._config.resync_seconds,
        )  # fmt: skip

    async def _wait_for_crd(self) -> None:
        """Wait until the CRD exists: kopf looks for it once, at its start."""
        while True:
            try:
                async for _ in self._client.list_pages(TRAINING_JOBS, next(iter(self._config.namespaces), None)):
                    return
            except NotFoundError:
                logger.warning(
                    "the cluster has no CustomResourceDefinition for TrainingJobs: install it; checking again in 5 s"
                )
            await asyncio.sleep(CRD_POLL_SECONDS)

    async def _work(self) -> None:
        await self.pods.synced.wait()
        await self.services.synced.wait()
        await self.elector.acquired.wait()
        await self.queue.run()

    async def _resync(self) -> None:
        await resync.run(
            self._client,
            self.jobs,
            self._config.namespaces or (None,),
            self._config.resync_seconds,
            self.queue.add,
            self._forget,
        )

    async def _reconcile(self, key: JobKey) -> float | None:
        assert self._reconciler is not None
        return await self._reconciler(key)

    def _reflector(self, resource: Resource, trim: Callable[[Object], V]) -> Reflector[JobKey, V]:
        return Reflector(
            self._client,
            resource,
            namespaces=self._config.namespaces,
            labels=SELECTOR,
            key=_owner_key,
            trim=trim,
            changed=lambda key: self.queue.add(key, POD_NEWS_SECONDS) if self.jobs.get(key) else None,
        )

    def _heads_service_changed(self, namespace: str) -> None:
        """Reconcile the jobs of a namespace whose Service was deleted or changed."""
        if not any(self.services.get(namespace)):
            for key in self.jobs:
                if key.namespace == namespace:
                    self.queue.add(key, POD_NEWS_SECONDS)

    def _seen(self, body: Object) -> None:
        if self.jobs.put(body):
            self.queue.add(key_of(body))

    def _deleted(self, body: Object) -> None:
        key = key_of(body)
        if self.jobs.remove(key, body["metadata"]["uid"]):
            self._forget(key)

    def _forget(self, key: JobKey) -> None:
        self.progress.forget(key)
        self.queue.forget(key)
        if self._reconciler is not None:
            self._reconciler.forget(key)

    def _head_of(self, message: ProgressMessage) -> str | None:
        for pod in self.pods.get(JobKey(message.namespace, message.name)):
            ours = pod.role == names.ROLE_HEAD and pod.owner_uid == message.uid
            if ours and pod.attempt == message.attempt and not pod.ended:
                return pod.uid
        return None

    def _images_of(self, message: ProgressMessage) -> list[str]:
        pods = self.pods.get(JobKey(message.namespace, message.name))
        return [pod.image_id for pod in pods if pod.owner_uid == message.uid and pod.attempt == message.attempt]

    def _count_failures(self, old: Object, new: Object) -> None:
        counted = {attempt["attempt"] for attempt in old.get("attempts") or () if attempt.get("failureClass")}
        for attempt in new.get("attempts") or ():
            if attempt.get("failureClass") and attempt["attempt"] not in counted:
                self.metrics.attempt_failed(attempt["failureClass"])

    def _health(self) -> health.Health:
        limit, found = health.Health.limit, health.Health()
        found.live["loop"] = limit(lambda: self._lag.worst, health.LOOP_LAG_LIMIT, "lag of the event loop")
        found.live["queue"] = limit(
            lambda: self.queue.oldest() if self.elector.is_leader() else 0.0,
            health.QUEUE_AGE_LIMIT,
            "wait of the oldest job in the queue",
        )
        for name, cache in (("pods", self.pods), ("services", self.services)):
            found.live[name] = limit(_when_synced(cache), health.STREAM_AGE_LIMIT, f"pause of the watch of {name}")
            found.ready[name] = _listed(cache)
        self._export()
        return found

    def _export(self) -> None:
        gauge = self.metrics.gauge
        gauge("trainmaster_leader", "1 if this replica is the leader.", lambda: float(self.elector.is_leader()))
        gauge("trainmaster_queue_depth", "TrainingJobs waiting to be reconciled.", lambda: float(len(self.queue)))
        gauge("trainmaster_queue_running", "TrainingJobs being reconciled.", lambda: float(self.queue.running))
        gauge("trainmaster_loop_lag_seconds", "Maximum event loop lag of the last minute.", lambda: self._lag.worst)
        gauge("trainmaster_cached_pods", "Pods in the cache.", lambda: float(len(self.pods)))
        self.metrics.gauges(
            "trainmaster_cache_age_seconds",
            "Seconds since a watch last received anything.",
            "kind",
            lambda: {"Pod": self.pods.age(), "Service": self.services.age()},
        )
        self.metrics.gauges("trainmaster_jobs", "TrainingJobs by phase.", "phase", lambda: {**self.jobs.phases()})


def _when_synced(cache: Reflector[Any, Any]) -> Callable[[], float]:
    return lambda: cache.idle() if cache.synced.is_set() else 0.0


def _listed(cache: Reflector[Any, Any]) -> health.Check:
    return lambda: None if cache.synced.is_set() else "not listed yet"


async def main(config: Config) -> None:
    """Run one replica."""
    # with the replica's name, so that an audit log shows which one wrote
    agent = f"trainmaster-operator/{__version__} ({config.pod_name})"
    async with Connection(kopf_adapter.login, user_agent=agent, qps=config.qps, burst=config.burst) as connection:
        await App(config, connection).run()


@contextlib.asynccontextmanager
async def _serving(app: web.Application, port: int, context: ssl.SSLContext | None) -> AsyncIterator[None]:
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    await web.TCPSite(runner, None, port, ssl_context=context).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _owner_key(body: Object) -> JobKey:
    return JobKey(body["metadata"]["namespace"], body["metadata"]["labels"][names.LABEL_JOB])
