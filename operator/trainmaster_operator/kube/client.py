"""A small async client of the Kubernetes API: plain dicts in, plain dicts out.

Typed models of every object cost more CPU than the request itself, so there are none. All verbs are safe to repeat:
a create whose answer got lost meets AlreadyExistsError, a delete NotFoundError, a guarded update ConflictError, and
callers treat those as what they are.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from .connection import Connection
from .errors import ApiError, FencedError, UnauthorizedError, UnreachableError, WebhookError, from_status
from .ratelimit import backoff

logger = logging.getLogger(__name__)

Object = dict[str, Any]
Observer = Callable[[str, str, int, float], None]

PAGE = 500
TRIES = 5
RETRIED_CODES = frozenset({429, 500, 502, 503, 504})
WATCH_SECONDS = 300
# The API server sends a bookmark about every 60 s, so a stream that is silent for longer is dead.
WATCH_SILENCE_SECONDS = 90.0
# The API server ends a watch whose reader lags by some hundred events, which a burst of pods is.
WATCH_BUFFER = 2 * 1024 * 1024
MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object as the API's paths name it."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """`v1`, or `group/version`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of an object, or of the collection."""
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        parts += [f"namespaces/{namespace}"] if namespace else []
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
SECRETS = Resource("", "v1", "secrets", "Secret")
EVENTS = Resource("", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview")
WEBHOOKS = Resource(
    "admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration"
)
TRAINING_JOBS = Resource("trainmaster.dev", "v1alpha1", "trainingjobs", "TrainingJob")


class Client:
    """Verbs of the API, with retries and typed errors, under the connection's limit of the request rate.

    Args:
        connection: An open connection; all its clients share one limit.
        timeout: Seconds for one request.
        observe: Called with (verb, kind, code, seconds) after each request.
        may_write: Asked right before a write is sent; False raises FencedError. A replica that was stopped and wakes
            up after its lease has ended is caught here, whatever it was in the middle of.
        urgent: Requests are counted, but don't wait in line: a leader that waits behind the writes of a thousand jobs
            would lose its lease.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        timeout: float = 15.0,
        observe: Observer | None = None,
        may_write: Callable[[], bool] | None = None,
        urgent: bool = False,
    ) -> None:
        self._may_write = may_write
        self._urgent = urgent
        self._connection = connection
        self._timeout = aiohttp.ClientTimeout(total=timeout, connect=5.0)
        self._observe = observe

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """Return one object."""
        return await self._request("GET", "get", resource, resource.path(namespace, name))

    async def create(
        self, resource: Resource, namespace: str | None, body: Mapping[str, Any], *, strict: bool = False
    ) -> Object:
        """Create an object and return it as stored; raises AlreadyExistsError.

        Args:
            resource: Kind of the object.
            namespace: Where to create it.
            body: The object.
            strict: Refuse (InvalidError) a field that the kind doesn't have, instead of dropping it.
        """
        query = {"fieldValidation": "Strict"} if strict else None
        return await self._request("POST", "create", resource, resource.path(namespace), body=body, query=query)

    async def replace(self, resource: Resource, body: Mapping[str, Any], subresource: str | None = None) -> Object:
        """PUT an object or its status; with metadata.resourceVersion set, raises ConflictError if it has changed."""
        meta = body["metadata"]
        path = resource.path(meta.get("namespace"), meta["name"], subresource)
        return await self._request("PUT", "update", resource, path, body=body)

    async def patch(self, resource: Resource, namespace: str | None, name: str, body: Mapping[str, Any]) -> Object:
        """Apply a JSON merge patch."""
        path = resource.path(namespace, name)
        return await self._request("PATCH", "patch", resource, path, body=body, content_type=MERGE_PATCH)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str,
        grace: int | None = None,
        propagation: str | None = None,
    ) -> Object:
        """Delete the object of that very UID.

        Raises NotFoundError when it is gone, ConflictError when the name belongs to another object by now.
        """
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if propagation is not None:
            options["propagationPolicy"] = propagation
        return await self._request("DELETE", "delete", resource, resource.path(namespace, name), body=options)

    async def list_pages(
        self, resource: Resource, namespace: str | None = None, *, labels: str = "", metadata_only: bool = False
    ) -> AsyncIterator[tuple[list[Object], str]]:
        """Yield a consistent list page by page, as (items, resource version of the list).

        Raises GoneError when the list took so long that its snapshot has been compacted: begin again.
        """
        query = {"limit": str(PAGE)}
        if labels:
            query["labelSelector"] = labels
        accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1" if metadata_only else None
        while True:
            path = resource.path(namespace)
            page = await self._request("GET", "list", resource, path, query=query, accept=accept)
            yield page.get("items") or [], page["metadata"]["resourceVersion"]
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def watch(
        self, resource: Resource, namespace: str | None, resource_version: str, *, labels: str = ""
    ) -> AsyncIterator[tuple[str, Object]]:
        """Yield events (type, object) after a resource version, bookmarks included, until the server closes the stream.

        Raises GoneError when the version has expired, UnreachableError when the stream breaks or falls silent.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        if labels:
            query["labelSelector"] = labels
        started = time.monotonic()
        url = self._connection.server + resource.path(namespace)
        timeout = aiohttp.ClientTimeout(total=None, connect=5.0, sock_read=WATCH_SILENCE_SECONDS)
        try:
            async with self._connection.session.get(
                url,
                params=query,
                headers=self._connection.headers(),
                timeout=timeout,
                read_bufsize=WATCH_BUFFER,
            ) as response:
                self._record("watch", resource, response.status, started)
                if response.status == 401:
                    self._connection.login_again()
                if response.status != 200:
                    raise self._error(response, await response.read())
                async for line in _lines(response.content):
                    yield _watch_event(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(0, type(error).__name__, str(error) or "the watch fell silent") from error

    async def _request(
        self,
        method: str,
        verb: str,
        resource: Resource,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str | None = None,
    ) -> Object:
        data = orjson.dumps(body) if body is not None else None
        headers = {"Content-Type": content_type} if data is not None else {}
        if accept:
            headers["Accept"] = accept
        failures = 0
        while True:
            await self._take_turn()
            try:
                return await self._once(method, verb, resource, path, query, data, headers)
            except ApiError as error:
                failures += 1
                if not self._may_retry(error, failures):
                    raise
                delay = max(error.retry_after or 0.0, backoff(failures, 0.2, 5.0))
                logger.debug("%s %s: %s; retrying in %.1f s", method, path, error, delay)
            await asyncio.sleep(delay)

    async def _take_turn(self) -> None:
        if self._urgent:
            self._connection.bucket.reserve()
        else:
            await self._connection.bucket.acquire()

    def _may_retry(self, error: ApiError, failures: int) -> bool:
        if isinstance(error, UnauthorizedError):
            return failures == 1 and self._connection.login_again()
        if isinstance(error, WebhookError):  # its timeout alone is seconds, and callers retry with a longer back-off
            return False
        return failures < TRIES and (isinstance(error, UnreachableError) or error.code in RETRIED_CODES)

    async def _once(
        self,
        method: str,
        verb: str,
        resource: Resource,
        path: str,
        query: Mapping[str, str] | None,
        data: bytes | None,
        headers: Mapping[str, str],
    ) -> Object:
        url = self._connection.server + path
        async with self._connection.slots:
            fence = self._fence(method, path) if method != "GET" else None
            if fence is not None:
                fence()
            started = time.monotonic()
            try:
                async with self._connection.session.request(
                    method,
                    url,
                    params=query,
                    data=data,
                    headers={**self._connection.headers(), **headers},
                    timeout=self._timeout,
                    trace_request_ctx=fence,
                ) as response:
                    payload = await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._record(verb, resource, 0, started)
                raise UnreachableError(
                    0, type(error).__name__, str(error) or f"no answer to {method} {path}"
                ) from error
        self._record(verb, resource, response.status, started)
        if response.status >= 400:
            raise self._error(response, payload)
        result: Object = orjson.loads(payload)
        return result

    def _fence(self, method: str, path: str) -> Callable[[], None]:
        def ask() -> None:
            if self._may_write is not None and not self._may_write():
                raise FencedError(0, "NotLeader", f"{method} {path} was not sent")

        return ask

    def _error(self, response: aiohttp.ClientResponse, payload: bytes) -> ApiError:
        try:
            status = orjson.loads(payload)
        except orjson.JSONDecodeError:  # a load balancer's page, not the API server's answer
            status = {"message": payload[:200].decode(errors="replace")}
        if not isinstance(status, dict):
            status = {"message": str(status)[:200]}
        after = response.headers.get("Retry-After", "")
        return from_status(response.status, status, float(after) if after.isdigit() else None)

    def _record(self, verb: str, resource: Resource, code: int, started: float) -> None:
        if self._observe is not None:
            self._observe(verb, resource.kind, code, time.monotonic() - started)


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield the lines of a stream, of any length; a last line without a newline is an error."""
    rest = bytearray()
    async for chunk in stream.iter_any():
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            rest += chunk[start:end]
            if rest:
                yield bytes(rest)
                rest.clear()
            start = end + 1
        rest += chunk[start:]
    if rest:
        raise UnreachableError(0, "TruncatedEvent", f"the watch ended within an event, after {len(rest)} bytes")


def _watch_event(line: bytes) -> tuple[str, Object]:
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise UnreachableError(0, "MalformedEvent", f"{error} in an event of {len(line)} bytes") from error
    kind, body = event["type"], event["object"]
    if kind == "ERROR":
        raise from_status(int(body.get("code") or 500), body)
    return kind, body
