"""The operator's certificate on a real API server: what someone takes away comes back."""

from __future__ import annotations

import base64
from typing import Any

from trainmaster_operator.kube.client import SECRETS, WEBHOOKS

from tests.integration.operator_harness import Bed, job

SECRET = "trainmaster-operator-tls"


async def test_secret_and_ca_come_back(here: Bed) -> None:
    """With the same CA, which running jobs trust, and without a new start."""
    webhook = f"tls-{here.namespace}"
    hook = {
        "name": "validate.trainmaster.dev",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {"service": {"name": "none", "namespace": here.namespace}},
    }
    body: dict[str, Any] = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": webhook},
        "webhooks": [hook],
    }
    await here.client.create(WEBHOOKS, None, body)
    operator = here.operator(webhook=webhook, resync_seconds="0.5")

    async def bundle() -> Any:
        return (await here.client.get(WEBHOOKS, None, webhook))["webhooks"][0]["clientConfig"].get("caBundle")

    async def secret() -> Any:
        return (await here.client.get(SECRETS, here.namespace, SECRET))["data"]

    first = await here.until(bundle, "the CA in the webhook")
    kept = await secret()
    assert first == kept["ca.crt"]
    assert base64.b64decode(first).startswith(b"-----BEGIN CERTIFICATE")

    found = await here.client.get(WEBHOOKS, None, webhook)
    found["webhooks"][0]["clientConfig"].pop("caBundle")
    await here.client.replace(WEBHOOKS, found)
    assert await here.until(bundle, "the CA in the webhook again") == first

    uid = (await here.client.get(SECRETS, here.namespace, SECRET))["metadata"]["uid"]
    await here.client.delete(SECRETS, here.namespace, SECRET, uid=uid)
    assert await here.until(secret, "the Secret again") == kept

    await here.client.delete(WEBHOOKS, None, webhook, uid=found["metadata"]["uid"])
    said = "TrainingJobs are not validated at admission"

    async def warned() -> bool:
        return said in operator.log.read_text()

    await here.until(warned, "a warning that the webhook is gone")
    assert operator.process.poll() is None


async def test_without_its_webhook_the_operator_works(here: Bed) -> None:
    """The webhook can never stand in the way, its absence included."""
    operator = here.operator(webhook=f"absent-{here.namespace}", resync_seconds="0.5")
    await here.submit(job())
    await here.until_condition("Provisioned")
    assert operator.process.poll() is None
    assert "TrainingJobs are not validated at admission" in operator.log.read_text()
