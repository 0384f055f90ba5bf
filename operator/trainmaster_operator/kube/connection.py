"""Where the API server is and who we are: one HTTP session, with credentials that may change under it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp

from .ratelimit import TokenBucket

logger = logging.getLogger(__name__)

# The kubelet rotates a projected token well before it expires, and the API server takes the old one meanwhile.
TOKEN_REFRESH_SECONDS = 60.0
# Requests at a time. HTTP/1.1 needs a connection for each; more of them only fill the API server's own queues.
CONNECTIONS = 64


class LoginInfo(Protocol):
    """What a login gives: the part of kopf's ConnectionInfo that is needed here."""

    @property
    def server(self) -> str:
        """Address of the API server."""

    def as_http_headers(self) -> dict[str, str]:
        """Return the Authorization header, if there is one."""

    def as_ssl_context(self) -> ssl.SSLContext:
        """Return a context with the CA and the client certificate."""


class Connection:
    """One HTTP session to the API server, and the limit of requests that all clients of the process share.

    The token is read again every minute and after a 401. The address, the CA and a client certificate are read once:
    a new one of those needs a new process.

    Args:
        login: Reads the credentials.
        user_agent: What the API server's audit log calls us.
        connections: Requests at a time.
        qps: Requests per second in the long run, of all clients together.
        burst: Requests that may go at once after a pause.
    """

    def __init__(
        self,
        login: Callable[[], LoginInfo],
        *,
        user_agent: str,
        connections: int = CONNECTIONS,
        qps: float = 500.0,
        burst: int = 1000,
    ) -> None:
        self.bucket = TokenBucket(qps, burst)
        self._login = login
        self._user_agent = user_agent
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._headers: dict[str, str] = {}
        self._read_at = 0.0
        self.server = ""

    async def __aenter__(self) -> Connection:
        info = self._login()
        self.server = info.server.rstrip("/")
        self._headers = info.as_http_headers()
        self._read_at = asyncio.get_running_loop().time()
        context: ssl.SSLContext | bool = info.as_ssl_context() if self.server.startswith("https:") else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0, keepalive_timeout=30),
            headers={"User-Agent": self._user_agent, "Accept": "application/json"},
            auto_decompress=True,
            trace_configs=[_fence()],
            # A proxy for the world outside is seldom one for the API server.
            trust_env=False,
        )
        self._slots = asyncio.Semaphore(self._connections)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The open session."""
        if self._session is None:
            raise RuntimeError("the connection is not open: use `async with`")
        return self._session

    @property
    def slots(self) -> asyncio.Semaphore:
        """Bounds the requests at a time; watches don't count, they would hold their slot for minutes."""
        return self._slots

    def headers(self) -> dict[str, str]:
        """Return the current Authorization header."""
        if asyncio.get_running_loop().time() - self._read_at > TOKEN_REFRESH_SECONDS:
            self.login_again()
        return self._headers

    def login_again(self) -> bool:
        """Read the credentials again; True if they are new."""
        old = self._headers
        self._read_at = asyncio.get_running_loop().time()
        try:
            self._headers = self._login().as_http_headers()
        except OSError as error:  # the volume is being replaced: what we have is good for a while yet
            logger.warning("can't read the credentials again: %s", error)
        return self._headers != old


def _fence() -> aiohttp.TraceConfig:
    """Call the request's `trace_request_ctx`, if any, to confirm that it may be sent: last right before it is written.

    A new connection takes a while, and so may the turn of the task that writes headers and body (both in one go). A
    process may be stopped and wake up in that while: a check from before is then stale. That
    last one surfaces as a broken connection, and the repetition is asked again.
    """

    async def ask(_: aiohttp.ClientSession, context: Any, __: Any) -> None:
        if context.trace_request_ctx is not None:
            context.trace_request_ctx()

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(ask)
    trace.on_connection_reuseconn.append(ask)
    trace.on_request_chunk_sent.append(ask)
    return trace
