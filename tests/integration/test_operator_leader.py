"""Two replicas: one acts. And the endpoint that trainers push progress to."""

from __future__ import annotations

import asyncio
import base64
import signal
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from trainmaster_api.messages import CheckpointRef, ProgressMessage, TrainerState
from trainmaster_api.names import PROGRESS_AUDIENCE
from trainmaster_operator.kube.client import SECRETS, Resource

from tests.integration.operator_harness import Bed, Object, Operator, audit, job, leads, scrape, size, writes


async def two(here: Bed) -> tuple[Operator, Operator]:
    """A leader and a standby."""
    first = here.operator("first")
    await here.until(lambda: leads(first), "the first one leads")
    second = here.operator("second")

    async def ready() -> bool:
        return "trainmaster_leader" in await scrape(second)

    await here.until(ready, "the second one stands by")
    assert not await leads(second)
    return first, second


async def test_leader_that_outslept_its_lease_writes_nothing(here: Bed, audit_log: Path) -> None:
    first, second = await two(here)
    await here.submit(job("before"))
    await here.until_condition("Provisioned", name="before")
    # it is stopped in the middle of its work: ten jobs have just been made
    await asyncio.gather(*(here.submit(job(f"j{index}")) for index in range(10)))
    first.process.send_signal(signal.SIGSTOP)
    await here.until(lambda: leads(second), "the second one leads")
    await asyncio.gather(
        *(
            here.until_condition(
                "Provisioned",
                name=f"j{index}",
            )
            for index in range(10)
        )
    )
    offset = size(audit_log)
    first.process.send_signal(signal.SIGCONT)
    assert await asyncio.to_thread(first.process.wait, 25) == 1, first.log.read_text()
    assert "lost the lease" in first.log.read_text()
    assert writes(audit(audit_log, offset, "(first)", here.namespace)) == []
    pods = await here.names()
    assert len(pods) == 3 * 11
    assert await leads(second)


async def test_a_leader_that_ends_in_order_is_followed_at_once(here: Bed) -> None:
    first, second = await two(here)
    assert await first.end() == 0
    await here.until(lambda: leads(second), "the second one leads", 5)
    await here.submit(job())
    await here.until_condition("Provisioned")


class Trainer:
    """Pushes progress as the head pod does."""

    def __init__(self, here: Bed, operator: Operator, body: Object) -> None:
        self.here = here
        self.operator = operator
        self.body = body
        self.ca = ""

    async def token(self, pod: str, audience: str = PROGRESS_AUDIENCE) -> str:
        uid = (await self.here.pod_uids())[pod]
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": "default"},
            "spec": {
                "audiences": [audience],
                "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid},
            },
        }
        path = Resource("", "v1", "serviceaccounts/default/token", "TokenRequest")
        answer = await self.here.client.create(path, self.here.namespace, request)
        return str(answer["status"]["token"])

    def message(self, **fields: Any) -> ProgressMessage:
        given = {
            "namespace": self.here.namespace, "name": "digits", "uid": self.body["metadata"]["uid"], "attempt": 1,
            "state": TrainerState.TRAINING, "step": 10, "total_steps": 100,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }  # fmt: skip
        return ProgressMessage(**given | fields)

    async def push(self, token: str, message: ProgressMessage | bytes, operator: Operator | None = None) -> int:
        if not self.ca:
            secret = await self.here.client.get(SECRETS, self.here.namespace, "digits-run")
            self.ca = base64.b64decode(secret["data"]["progress-ca.crt"]).decode()
        data = message if isinstance(message, bytes) else message.model_dump_json(exclude_none=True).encode()
        port = (operator or self.operator).https_port
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"https://127.0.0.1:{port}/v1/progress", data=data, headers={"Authorization": f"Bearer {token}"},
                ssl=ssl.create_default_context(cadata=self.ca),
            ) as response,
        ):  # fmt: skip
            return response.status


async def test_progress_is_taken_from_the_attempts_own_head_only(here: Bed, audit_log: Path) -> None:
    operator = here.operator()
    body = await here.submit(job())
    await here.until_condition("Provisioned")
    trainer = Trainer(here, operator, body)
    head = await trainer.token("digits-1-head")
    assert await trainer.push(head, trainer.message()) == 204
    assert await trainer.push("", trainer.message()) == 401
    assert await trainer.push("not.a.token", trainer.message()) == 401
    assert (
        await trainer.push(await trainer.token("digits-1-head", "https://kubernetes.default.svc"), trainer.message())
        == 401
    )
    assert await trainer.push(await trainer.token("digits-1-w-0"), trainer.message()) == 403
    assert await trainer.push(head, trainer.message(attempt=2)) == 403
    assert await trainer.push(head, trainer.message(uid="another")) == 403
    assert await trainer.push(head, trainer.message(name="other")) == 403
    assert await trainer.push(head, b"{}") == 400
    assert await trainer.push(head, b" " * 70_000) == 413
    found = [await trainer.push(head, trainer.message(step=step)) for step in range(40)]
    assert found.count(204) >= 10
    assert found[-1] == 429
    reviews = [e for e in audit(audit_log, agent="(op)") if e["resource"] == "tokenreviews"]
    assert len(reviews) <= 6, "a good token is asked about once"


async def test_progress_transitions_are_not_throttled(here: Bed, audit_log: Path) -> None:
    operator = here.operator()
    body = await here.submit(job())
    await here.until_condition("Provisioned")
    trainer = Trainer(here, operator, body)
    token = await trainer.token("digits-1-head")
    offset = size(audit_log)
    await trainer.push(token, trainer.message(step=50, eta_seconds=90, metric="val/loss", metrics={"val/loss": 0.25}))
    await here.until_condition("Running")
    progress = (await here.get())["status"]["progress"]
    assert (progress["percent"], progress["metric"], progress["eta"]) == ("50%", "val/loss=0.25", "1m30s")
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    saved = CheckpointRef(step=50, attempt=1, uri="s3://runs/x", time=now)
    await trainer.push(token, trainer.message(step=51, checkpoint=saved))
    await here.until_condition("Checkpointed")
    for step in range(52, 60):
        await trainer.push(token, trainer.message(step=step, checkpoint=saved))
        await asyncio.sleep(0.2)
    assert len(writes(audit(audit_log, offset, "(op)", here.namespace))) <= 3

    async def caught_up() -> bool:
        return bool((await here.get())["status"]["progress"]["step"] == 59)

    await here.until(caught_up, "the newest figures", 15)
