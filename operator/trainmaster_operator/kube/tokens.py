"""Who holds a service-account token, by TokenReview."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from .client import TOKEN_REVIEWS, Client

POD_UID = "authentication.kubernetes.io/pod-uid"
# A token is bound to its pod, and callers compare the pod with the live one each time, so a cached answer can't outlive
# the pod. The time only bounds how long a token counts after it has expired.
CACHE_SECONDS = 600.0
CACHE_SIZE = 10_000
REVIEWS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class TokenIdentity:
    """The pod that a token was issued to."""

    namespace: str
    pod_uid: str


class TokenReviewer:
    """Answers TokenReviews for one audience; remembers good tokens (by their hash), never bad ones."""

    def __init__(self, client: Client, audience: str) -> None:
        self._client = client
        self._audience = audience
        self._good: OrderedDict[bytes, tuple[float, TokenIdentity]] = OrderedDict()
        self._slots = asyncio.Semaphore(REVIEWS_AT_ONCE)

    async def review(self, token: str) -> TokenIdentity | None:
        """Return the pod of a token; None if the token is invalid, for another audience, or not bound to a pod."""
        digest, now = hashlib.sha256(token.encode()).digest(), asyncio.get_running_loop().time()
        known = self._good.get(digest)
        if known is not None and known[0] > now:
            return known[1]
        async with self._slots:
            identity = await self._ask(token)
        self._good.pop(digest, None)
        if identity is not None:
            self._good[digest] = (now + CACHE_SECONDS, identity)
            while len(self._good) > CACHE_SIZE:
                self._good.popitem(last=False)
        return identity

    async def _ask(self, token: str) -> TokenIdentity | None:
        body = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.kind,
            "spec": {"token": token, "audiences": [self._audience]},
        }
        status: dict[str, Any] = (await self._client.create(TOKEN_REVIEWS, None, body)).get("status") or {}
        if not status.get("authenticated") or self._audience not in (status.get("audiences") or []):
            return None
        user = status.get("user") or {}
        parts = str(user.get("username", "")).split(":")  # system:serviceaccount:<namespace>:<name>
        uids = (user.get("extra") or {}).get(POD_UID) or []
        if len(parts) != 4 or parts[:2] != ["system", "serviceaccount"] or len(uids) != 1:
            return None
        return TokenIdentity(namespace=parts[2], pod_uid=uids[0])
