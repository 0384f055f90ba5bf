"""A namespace on the control plane with an operator in it, and a kubelet that is test code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import kopf
from trainmaster_operator.kube.client import PODS, TRAINING_JOBS, Client, Resource
from trainmaster_operator.kube.connection import Connection
from trainmaster_operator.kube.errors import ApiError, NotFoundError

from testbed.control_plane import ControlPlane, free_port
from tests.factories import make_job

Object = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
NODE = "fake-node"
NAMESPACES = Resource("", "v1", "namespaces", "Namespace")
NODES = Resource("", "v1", "nodes", "Node")
# The garbage collector deletes what a job owned, and quotas are counted; everything that would mind a node without a
# kubelet stays off.
CONTROLLERS = (
    "--controllers=garbage-collector-controller,namespace-controller,serviceaccount-controller,resourcequota-controller"
)


def job(name: str = "digits", workers: int = 2, **run: Any) -> Object:
    """A small valid TrainingJob."""
    return make_job(
        {
            "spec.training.data.batchSize": 60,
            "spec.training.loop.duration": "2ep",
            "spec.storage.uri": "s3://runs/prefix",
            "spec.cluster": {"image": "example.com/trainer:1", "workers": {"count": workers}},
            "spec.run": run,
        },
        name=name,
    )


class Kubelet:
    """Binds the pods of a namespace to a node, runs them, and ends them when they are deleted.

    Attributes:
        start: whether new pods become Running and Ready by themselves.
        stop: whether deleted pods go by themselves; False: the node is dead.
    """

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self.start = True
        self.stop = True
        self.slow_stop = 0.0

    async def run(self) -> None:
        known: set[str] = set()
        while True:
            with suppress(ApiError):
                async for items, _ in self._client.list_pages(PODS, self._namespace):
                    for pod in items:
                        with suppress(ApiError):
                            await self._move(pod, known)
            await asyncio.sleep(0.05)

    async def _move(self, pod: Object, known: set[str]) -> None:
        meta = pod["metadata"]
        if not pod["spec"].get("nodeName"):
            if not meta.get("deletionTimestamp"):
                await self.bind(meta["name"])
        elif meta.get("deletionTimestamp"):
            if self.stop:
                await self._client.delete(PODS, self._namespace, meta["name"], uid=meta["uid"], grace=0)
        elif self.start and meta["uid"] not in known:
            known.add(meta["uid"])
            await self.set(meta["name"], "Running", ready=True)

    async def bind(self, name: str) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        path = Resource("", "v1", f"pods/{name}/binding", "Binding")
        await self._client.create(path, self._namespace, body)

    async def set(
        self, name: str, phase: str, *, ready: bool = False, exit_code: int | None = None, message: str = "",
        reason: str = "Error",
    ) -> None:  # fmt: skip
        """Report a pod's phase, and its container's state to match."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        state: Object = {"running": {"startedAt": now}}
        if exit_code is not None:
            state = {
                "terminated": {
                    "exitCode": exit_code, "reason": "Completed" if exit_code == 0 else reason,
                    "message": message, "startedAt": now, "finishedAt": now,
                }
            }  # fmt: skip
        conditions = [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": now},
            {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": now},
        ]
        container = {
            "name": "trainer", "image": "example.com/trainer:1", "imageID": "", "ready": ready, "restartCount": 0,
            "state": state,
        }  # fmt: skip
        status = {"phase": phase, "conditions": conditions, "containerStatuses": [container]}
        path = Resource("", "v1", f"pods/{name}/status", "Pod")
        await self._client._request(
            "PATCH", "patch", path, path.path(self._namespace).replace("//", "/"), body={"status": status},
            content_type="application/merge-patch+json",
        )  # fmt: skip


class Operator:
    """The operator as a process of its own."""

    def __init__(self, bed: Bed, name: str = "op", **flags: str) -> None:
        self.http_port, self.https_port = free_port(), free_port()
        self.log = bed.folder / f"{name}-{uuid.uuid4().hex[:4]}.log"
        given = {
            "namespaces": bed.namespace,
            "namespace": bed.namespace,
            "pod-name": name,
            "pod-ip": "127.0.0.1",
            "progress-url": f"https://127.0.0.1:{self.https_port}/v1/progress",
            "http-port": str(self.http_port),
            "https-port": str(self.https_port),
            "lease-seconds": "3",
            "log-format": "text",
            **{key.replace("_", "-"): value for key, value in flags.items()},
        }
        argv = [sys.executable, "-m", "trainmaster_operator", *(f"--{key}={value}" for key, value in given.items())]
        path = os.pathsep.join(str(ROOT / part) for part in ("crds", "operator"))
        env = {**os.environ, "KUBECONFIG": str(bed.plane.kubeconfig), "PYTHONPATH": path}
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(argv, env=env, stdout=out, stderr=subprocess.STDOUT)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait until it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 20)


class Bed:
    """A namespace of its own, admin access to it, a kubelet, and operators."""

    def __init__(self, plane: ControlPlane, client: Client, namespace: str, folder: Path) -> None:
        self.plane = plane
        self.client = client
        self.namespace = namespace
        self.folder = folder
        self.kubelet = Kubelet(client, namespace)
        self.operators: list[Operator] = []

    def operator(self, name: str = "op", **flags: str) -> Operator:
        self.operators.append(Operator(self, name, **flags))
        return self.operators[-1]

    async def submit(self, body: Object) -> Object:
        return await self.client.create(TRAINING_JOBS, self.namespace, body)

    async def get(self, name: str = "digits") -> Object:
        return await self.client.get(TRAINING_JOBS, self.namespace, name)

    async def edit(self, patch: Object, name: str = "digits") -> Object:
        return await self.client.patch(TRAINING_JOBS, self.namespace, name, patch)

    async def delete(self, name: str = "digits") -> None:
        uid = (await self.get(name))["metadata"]["uid"]
        await self.client.delete(TRAINING_JOBS, self.namespace, name, uid=uid, propagation="Background")

    async def list(self, resource: Resource = PODS) -> list[Object]:
        pages = [items async for items, _ in self.client.list_pages(resource, self.namespace)]
        return [item for items in pages for item in items]

    async def names(self, resource: Resource = PODS) -> set[str]:
        return {item["metadata"]["name"] for item in await self.list(resource)}

    async def pod_uids(self) -> dict[str, str]:
        return {item["metadata"]["name"]: item["metadata"]["uid"] for item in await self.list()}

    async def condition(self, kind: str, name: str = "digits") -> Object:
        """A condition of the job, or {}."""
        conditions = ((await self.get(name)).get("status") or {}).get("conditions") or []
        return next((item for item in conditions if item["type"] == kind), {})

    async def until(self, check: Callable[[], Awaitable[Any]], what: str, seconds: float = 60.0) -> Any:
        """Wait until an async check is truthy; fail with what was waited for and the operator's log."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(NotFoundError):
                if found := await check():
                    return found
            await asyncio.sleep(0.05)
        logs = "\n".join(operator.log.read_text()[-4000:] for operator in self.operators)
        jobs = json.dumps([item.get("status") for item in await self.list(TRAINING_JOBS)], indent=1)
        raise AssertionError(f"not within {seconds} s: {what}\n{jobs}\n{sorted(await self.names())}\n{logs}")

    async def until_condition(self, kind: str, status: str = "True", name: str = "digits", reason: str = "") -> Object:
        async def check() -> Any:
            found = await self.condition(kind, name)
            return found if found.get("status") == status and reason in ("", found["reason"]) else None

        result: Object = await self.until(check, f"{kind}={status} {reason}")
        return result

    async def until_looked(self, operator: Operator, times: int) -> None:
        """Wait until an operator has looked at a job so many times more: at each resync, and for news."""
        before = await reconciles(operator)

        async def has_looked() -> bool:
            return await reconciles(operator) >= before + times

        await self.until(has_looked, f"{times} more reconciles")

    async def until_rest(self, operator: Operator, seconds: float = 1.0) -> None:
        """Wait until an operator has looked at the job, and then at nothing for so long.

        After that a test may say what it has not written: without a look at the job this would be true of any operator.
        """
        seen, since = 0.0, time.monotonic()

        async def rests() -> bool:
            nonlocal seen, since
            if (now := await reconciles(operator)) != seen:
                seen, since = now, time.monotonic()
            return seen > 0 and time.monotonic() - since > seconds

        await self.until(rests, "an operator that has looked at the job and rests")

    async def until_names(self, names: set[str], resource: Resource = PODS) -> None:
        async def check() -> bool:
            return await self.names(resource) == names

        await self.until(check, f"exactly {sorted(names)}")


@asynccontextmanager
async def bed(plane: ControlPlane, folder: Path) -> AsyncIterator[Bed]:
    """A fresh namespace; everything that was started in it is ended."""
    os.environ["KUBECONFIG"] = str(plane.kubeconfig)

    def login() -> Any:
        return kopf.login_with_kubeconfig(settings=kopf.OperatorSettings())

    namespace = f"t-{uuid.uuid4().hex[:6]}"
    async with Connection(login, user_agent="test") as connection:
        client = Client(connection)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        await client.create(NAMESPACES, None, body)
        accounts = Resource("", "v1", "serviceaccounts", "ServiceAccount")
        made = Bed(plane, client, namespace, folder)

        async def has_account() -> Any:
            return await client.get(accounts, namespace, "default")

        await made.until(has_account, "the default service account")
        kubelet = asyncio.create_task(made.kubelet.run())
        try:
            yield made
        finally:
            kubelet.cancel()
            for operator in made.operators:
                operator.process.kill()
                operator.process.wait()


def audit(path: Path, since: int = 0, agent: str = "trainmaster-operator", namespace: str = "") -> list[Object]:
    """Requests in the audit log after a byte offset: verb, resource, subresource, name, code."""
    found = []
    with path.open("rb") as lines:
        lines.seek(since)
        for line in lines:
            entry = json.loads(line)
            ref = entry.get("objectRef") or {}
            if agent in entry.get("userAgent", "") and namespace in ("", ref.get("namespace", "")):
                keys = ("resource", "subresource", "name", "namespace")
                found.append({"verb": entry["verb"], "code": entry["responseStatus"]["code"]}
                             | {key: ref.get(key, "") for key in keys})  # fmt: skip
    return found


def size(path: Path) -> int:
    """Bytes of the audit log by now: an offset for `audit`."""
    return path.stat().st_size


def writes(entries: list[Object]) -> list[Object]:
    """Those that change a job or what belongs to it."""
    reads = ("get", "list", "watch")
    own = ("leases", "tokenreviews")
    return [entry for entry in entries if entry["verb"] not in reads and entry["resource"] not in own]


async def leads(operator: Operator) -> bool:
    """Whether the operator says that it leads."""
    return (await scrape(operator)).get("trainmaster_leader") == "1.0"


async def reconciles(operator: Operator) -> float:
    """How often the operator has looked at a job."""
    return float((await scrape(operator)).get("trainmaster_reconcile_seconds_count", 0))


async def scrape(operator: Operator) -> dict[str, str]:
    """The operator's metrics; {} while it doesn't answer."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session,
            session.get(f"http://127.0.0.1:{operator.http_port}/metrics") as response,
        ):
            lines = (await response.text()).splitlines()
    except (aiohttp.ClientError, TimeoutError):
        return {}
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return dict(pairs)  # type: ignore[arg-type]
