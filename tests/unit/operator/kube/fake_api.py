"""A few hundred milliseconds of API server: objects in memory, list, watch, resource versions, and faults on demand."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from trainmaster_operator.kube.client import Client
from trainmaster_operator.kube.connection import Connection

Object = dict[str, Any]


@dataclass
class Login:
    server: str
    token: str = "good"

    def as_http_headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def as_ssl_context(self) -> Any:
        raise AssertionError("plain HTTP")


@dataclass
class Fault:
    """What to do to the next request that matches.

    action: `reset` (before it is carried out), `drop` (after), for a watch `truncate`, `end` or `gone`, or an HTTP
    status.
    """

    method: str
    action: str | int
    match: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    reason: str = "Injected"
    message: str = ""


class FakeApi:
    def __init__(self) -> None:
        self.version = 100
        self.objects: dict[str, Object] = {}  # by path
        self.events: list[tuple[int, str, str, Object]] = []  # version, collection, type, object
        self.compacted = 0
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.asked: list[tuple[str, dict[str, str]]] = []  # verb, query
        self.token = "good"
        self.page = 500
        self.news = asyncio.Condition()
        self.watches: set[asyncio.Task[Any]] = set()
        self.before_answer: Callable[[str, str], Any] | None = None

    # what a test does to the cluster, without a request

    def put(self, collection: str, name: str, event: bool = True, **fields: Any) -> Object:
        path = f"{collection}/{name}"
        old = self.objects.get(path)
        self.version += 1
        parts = collection.split("/")
        meta = {"name": name, "uid": old["metadata"]["uid"] if old else str(uuid.uuid4())}
        if "namespaces" in parts:
            meta["namespace"] = parts[parts.index("namespaces") + 1]
        given = {k: v for k, v in (fields.pop("metadata", None) or {}).items() if k not in ("uid", "resourceVersion")}
        body = {**fields, "metadata": {**given, **meta, "resourceVersion": str(self.version)}}
        self.objects[path] = body
        if event:
            self._emit(collection, "MODIFIED" if old else "ADDED", body)
        return body

    def drop(self, collection: str, name: str, event: bool = True) -> None:
        body = self.objects.pop(f"{collection}/{name}")
        self.version += 1
        gone = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        if event:
            self._emit(collection, "DELETED", gone)

    def break_watches(self) -> None:
        for task in self.watches:
            task.cancel()

    def count(self, prefix: str) -> int:
        return sum(line.startswith(prefix) for line in self.requests)

    def queries(self, verb: str) -> list[dict[str, str]]:
        """The query of each request of a verb."""
        return [query for asked, query in self.asked if asked == verb]

    def _emit(self, collection: str, kind: str, body: Object) -> None:
        self.events.append((self.version, collection, kind, body))
        self._notify()

    def _notify(self) -> None:
        async def wake() -> None:
            async with self.news:
                self.news.notify_all()

        self._waking = asyncio.ensure_future(wake())

    # the server

    async def handle(self, request: web.Request) -> web.StreamResponse:
        watch = request.query.get("watch") == "true"
        verb = "WATCH" if watch else request.method
        self.requests.append(f"{verb} {request.path}")
        self.asked.append((verb, dict(request.query)))
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return self._status(401, "Unauthorized")
        fault = next((f for f in self.faults if f.method == verb and f.match in request.path), None)
        if fault is not None:
            self.faults.remove(fault)
            if isinstance(fault.action, int):
                return self._status(fault.action, fault.reason, fault.headers, fault.message)
            if fault.action == "reset":
                self._abort(request)
        if watch:
            return await self._watch(request, fault)
        answer = await self._answer(request)
        if fault is not None and fault.action == "drop":
            self._abort(request)
        return answer

    @staticmethod
    def _abort(request: web.Request) -> None:
        assert request.transport is not None
        request.transport.abort()
        raise asyncio.CancelledError

    async def _answer(self, request: web.Request) -> web.Response:
        path, body = request.path, await request.json() if request.can_read_body else {}
        if request.method == "GET" and path in self.objects:
            return web.json_response(self.objects[path])
        if request.method == "GET" and path.rsplit("/", 1)[-1] in ("pods", "trainingjobs", "services"):
            return self._list(request)
        if request.method == "POST":
            if f"{path}/{body['metadata']['name']}" in self.objects:
                return self._status(409, "AlreadyExists")
            name = body["metadata"]["name"]
            return web.json_response(self.put(path, name, **{**body, "metadata": body["metadata"]}), status=201)
        if path not in self.objects:
            return self._status(404, "NotFound")
        if request.method == "DELETE":
            wanted = (body.get("preconditions") or {}).get("uid")
            if wanted and wanted != self.objects[path]["metadata"]["uid"]:
                return self._status(409, "Conflict")
            found = self.objects[path]
            self.drop(*path.rsplit("/", 1))
            return web.json_response(found)
        if body["metadata"].get("resourceVersion") not in (None, self.objects[path]["metadata"]["resourceVersion"]):
            return self._status(409, "Conflict")
        return web.json_response(self.put(*path.rsplit("/", 1), **body))

    def _list(self, request: web.Request) -> web.Response:
        prefix = request.path + "/"
        names = sorted(p for p in self.objects if p.startswith(prefix))
        start = int(request.query.get("continue") or 0)
        meta: Object = {"resourceVersion": str(self.version)}
        if start + self.page < len(names):
            meta["continue"] = str(start + self.page)
        items = [self.objects[name] for name in names[start : start + self.page]]
        return web.json_response({"metadata": meta, "items": items})

    async def _watch(self, request: web.Request, fault: Fault | None) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        if (fault is not None and fault.action == "gone") or since < self.compacted:
            await self._line(response, "ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "old"})
            return response
        if fault is not None and fault.action == "end":
            return response
        task = asyncio.current_task()
        assert task is not None
        self.watches.add(task)
        try:
            while True:
                for version, collection, kind, body in list(self.events):
                    if version > since and collection == request.path:
                        if fault is not None and fault.action == "truncate":
                            await response.write(json.dumps({"type": kind, "object": body}).encode()[:-10])
                            return response
                        await self._line(response, kind, body)
                since = self.version
                async with self.news:
                    await self.news.wait()
        finally:
            self.watches.discard(task)

    async def bookmark(self, response: web.StreamResponse) -> None:
        await self._line(response, "BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}})

    @staticmethod
    async def _line(response: web.StreamResponse, kind: str, body: Object) -> None:
        await response.write(json.dumps({"type": kind, "object": body}).encode() + b"\n")

    @staticmethod
    def _status(code: int, reason: str, headers: dict[str, str] | None = None, message: str = "") -> web.Response:
        body = {"kind": "Status", "code": code, "reason": reason, "message": message or f"injected {reason}"}
        return web.json_response(body, status=code, headers=headers)


@asynccontextmanager
async def serve(api: FakeApi) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0)
    try:
        yield str(server.make_url("/"))
    finally:
        api.break_watches()
        await server.close()


@asynccontextmanager
async def connect(api: FakeApi, **options: Any) -> AsyncIterator[Client]:
    async with serve(api) as url, Connection(lambda: Login(url, api.token), user_agent="test") as connection:
        yield Client(connection, **options)


async def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait for a condition; fail after the time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is anything at all
            await asyncio.sleep(0.005)
