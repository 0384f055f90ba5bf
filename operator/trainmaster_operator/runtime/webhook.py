"""Keeps the CA of our own endpoint in our own ValidatingWebhookConfiguration.

The operator makes its certificate itself, so nobody else knows the CA; and what an installer applies again comes
without it. Until it is there, the API server can't call the webhook and does what its failurePolicy says.
"""

from __future__ import annotations

import asyncio
import base64
import logging

from trainmaster_operator.kube.client import Client, Resource
from trainmaster_operator.kube.errors import ApiError, ConflictError

logger = logging.getLogger(__name__)

WEBHOOKS = Resource(
    "admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration"
)


async def ensure_ca(client: Client, name: str, ca: str) -> bool:
    """Put the CA (PEM) into every webhook of the configuration; True if something had to be written."""
    body = await client.get(WEBHOOKS, None, name)
    bundle = base64.b64encode(ca.encode()).decode()
    stale = [hook for hook in body.get("webhooks", []) if hook["clientConfig"].get("caBundle") != bundle]
    for hook in stale:
        hook["clientConfig"]["caBundle"] = bundle
    if stale:
        await client.replace(WEBHOOKS, body)
    return bool(stale)


async def maintain(client: Client, name: str, ca: str, seconds: float) -> None:
    """Look every so many seconds, until cancelled."""
    while True:
        try:
            if await ensure_ca(client, name, ca):
                logger.info("put our CA into the webhook configuration %s", name)
        except ConflictError:
            logger.debug("another replica was faster at the webhook configuration %s", name)
        except ApiError as error:
            logger.warning("can't put our CA into the webhook configuration %s: %s", name, error)
        await asyncio.sleep(seconds)
