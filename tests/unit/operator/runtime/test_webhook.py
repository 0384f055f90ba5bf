"""The CA in our webhook configuration."""

from __future__ import annotations

import asyncio
import base64
import copy
from typing import Any

import pytest
from trainmaster_operator.kube.errors import ConflictError
from trainmaster_operator.runtime import webhook


class Api:
    """One webhook configuration, and how often it was written."""

    def __init__(self, *bundles: str | None) -> None:
        hooks = [{"name": f"h{i}", "clientConfig": {"caBundle": b} if b else {}} for i, b in enumerate(bundles)]
        self.body: dict[str, Any] = {"metadata": {"name": "w", "resourceVersion": "7"}, "webhooks": hooks}
        self.writes = 0
        self.fail: Exception | None = None

    async def get(self, resource: object, namespace: str | None, name: str) -> dict[str, Any]:
        assert (resource, namespace, name) == (webhook.WEBHOOKS, None, "w")
        return copy.deepcopy(self.body)

    async def replace(self, resource: object, body: dict[str, Any]) -> dict[str, Any]:
        if self.fail:
            raise self.fail
        assert body["metadata"]["resourceVersion"] == "7", "the write must be guarded"
        self.body, self.writes = body, self.writes + 1
        return body


def bundles(api: Api) -> list[str]:
    return [base64.b64decode(hook["clientConfig"]["caBundle"]).decode() for hook in api.body["webhooks"]]


async def test_fills_in_what_is_missing_or_old() -> None:
    api = Api(None, base64.b64encode(b"old").decode())
    assert await webhook.ensure_ca(api, "w", "PEM")  # type: ignore[arg-type]
    assert bundles(api) == ["PEM", "PEM"]


async def test_writes_nothing_when_it_is_right() -> None:
    api = Api(base64.b64encode(b"PEM").decode())
    assert not await webhook.ensure_ca(api, "w", "PEM")  # type: ignore[arg-type]
    assert api.writes == 0


async def test_goes_on_after_a_conflict_and_after_someone_took_it_away(monkeypatch: pytest.MonkeyPatch) -> None:
    api, rounds = Api(None), 0
    api.fail = ConflictError(409, "Conflict", "changed")

    async def turn(seconds: float) -> None:
        nonlocal rounds
        assert seconds == 300.0
        rounds += 1
        if rounds == 1:
            assert api.writes == 0
            api.fail = None
        elif rounds == 2:
            assert bundles(api) == ["PEM"]
            del api.body["webhooks"][0]["clientConfig"]["caBundle"]
        else:
            raise asyncio.CancelledError

    monkeypatch.setattr(webhook.asyncio, "sleep", turn)
    with pytest.raises(asyncio.CancelledError):
        await webhook.maintain(api, "w", "PEM", 300.0)  # type: ignore[arg-type]
    assert api.writes == 2
