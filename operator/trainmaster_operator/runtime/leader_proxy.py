"""Forwards progress messages to the leader: a Service spreads them over all replicas, and only one uses them."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import aiohttp
from trainmaster_api.names import IMAGES_HEADER, PROGRESS_PATH

FORWARDED = "X-Trainmaster-Forwarded"


class LeaderProxy:
    """The leader as another replica reaches it.

    Args:
        holder: Identity of the leader as in the Lease: `<pod>_<address>_<random>`.
        port: Port of its HTTPS endpoint.
        ca: PEM of the CA that all replicas share.
        name: A name in their certificate.
    """

    def __init__(self, holder: Callable[[], str], port: int, ca: str, name: str) -> None:
        self._holder = holder
        self._port = port
        self._name = name
        self._context = ssl.create_default_context(cadata=ca)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> LeaderProxy:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, body: bytes, authorization: str) -> tuple[int, str]:
        """POST the message to the leader; return its code, 503 if it can't be reached, and what the pods run."""
        parts = self._holder().split("_")
        if self._session is None or len(parts) != 3 or not parts[1]:
            return 503, ""
        address = f"[{parts[1]}]" if ":" in parts[1] else parts[1]
        try:
            async with self._session.post(
                f"https://{address}:{self._port}{PROGRESS_PATH}",
                data=body,
                headers={"Authorization": authorization, FORWARDED: "1"},
                ssl=self._context,
                server_hostname=self._name,
            ) as response:
                return response.status, response.headers.get(IMAGES_HEADER, "")
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 503, ""
