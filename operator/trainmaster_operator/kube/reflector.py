"""A cache of the objects of one kind, kept by list and watch, and consistent after a gap in the watch.

It stores a trimmed view instead of the object: a cached pod costs half a kilobyte instead of ten. Responses to our own
writes go into the cache at once (`observe`), so a reconcile never plans on a state older than its own writes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .client import Client, Object, Resource
from .errors import ApiError, GoneError
from .ratelimit import backoff

logger = logging.getLogger(__name__)

# Last views of deleted objects: how a pod ended can often be read from them, but they may be incomplete or missing.
GONE_KEYS = 2_000
GONE_PER_KEY = 8

V = TypeVar("V")
K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class _Item(Generic[K, V]):
    namespace: str
    key: K
    version: int
    view: V


@dataclass(slots=True)
class _Stream:
    seen: int = 0  # the stream has delivered everything up to this resource version
    synced: bool = False
    alive_at: float = 0.0
    tried_at: float = 0.0


class Reflector(Generic[K, V]):
    """Views of all objects of a kind that a label selector selects, grouped by key.

    Args:
        client: Where to list and watch.
        resource: The kind.
        namespaces: Only these, with a stream each; empty: all, with one stream.
        labels: Label selector, evaluated by the server.
        key: Key of an object, under which `get` finds its view.
        trim: Returns the view of an object. A change that doesn't affect the view is ignored.
        changed: Called with a key after something under it has changed; must not block.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        namespaces: tuple[str, ...] = (),
        labels: str = "",
        key: Callable[[Object], K],
        trim: Callable[[Object], V],
        changed: Callable[[K], None],
    ) -> None:
        self._client = client
        self._resource = resource
        self._streams = {namespace: _Stream() for namespace in namespaces or (None,)}
        self._labels = labels
        self._key = key
        self._trim = trim
        self._changed = changed
        self._items: dict[str, _Item[K, V]] = {}
        self._by_key: dict[K, dict[str, V]] = {}
        self._gone: OrderedDict[K, deque[V]] = OrderedDict()
        self.synced = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: K) -> tuple[V, ...]:
        """Return the views of all objects under a key."""
        return tuple(self._by_key.get(key, {}).values())

    def gone(self, key: K) -> tuple[V, ...]:
        """Return the last views of recently deleted objects under a key, as far as remembered."""
        return tuple(self._gone.get(key, ()))

    def keys(self) -> list[K]:
        """Return the keys that have objects."""
        return list(self._by_key)

    def age(self) -> float:
        """Return the seconds since the most silent stream last received anything: how stale the cache may be."""
        now = asyncio.get_running_loop().time()
        return max(now - stream.alive_at for stream in self._streams.values())

    def idle(self) -> float:
        """Return the seconds since the task of some stream last did anything, failing included: whether it hangs."""
        now = asyncio.get_running_loop().time()
        return max(now - max(stream.alive_at, stream.tried_at) for stream in self._streams.values())

    def observe(self, body: Object) -> None:
        """Store an object from the response to our own write, unless the stream has already passed its version.

        A response may be read after the events that follow it: without the comparison, a pod that is already deleted
        would reappear, and stay until the next list.
        """
        meta = body["metadata"]
        stream = self._streams.get(meta.get("namespace")) or self._streams.get(None)
        if stream is not None and int(meta["resourceVersion"]) > stream.seen:
            self._store(body)

    async def run(self) -> None:
        """List, then watch, until cancelled. A watch resumes at its last version, or lists again if it has expired."""
        async with asyncio.TaskGroup() as tasks:
            for namespace, stream in self._streams.items():
                tasks.create_task(self._follow(namespace, stream))

    async def _follow(self, namespace: str | None, stream: _Stream) -> None:
        loop = asyncio.get_running_loop()
        stream.alive_at = loop.time()
        failures, version = 0, ""
        while True:
            started, moved = loop.time(), False
            stream.tried_at = started
            try:
                # After a broken watch resume at the last version that was seen: listing all objects again after each
                # network error is expensive for the API server.
                version = version or await self._list(namespace, stream)
                events = self._client.watch(self._resource, namespace, version, labels=self._labels)
                async for kind, body in events:
                    stream.alive_at = loop.time()
                    version = self._apply(kind, body, stream)
                    failures, moved = 0, True
                stream.alive_at = loop.time()
            except GoneError:  # 410: etcd has compacted that version, so the events since then are lost
                logger.info("watch of %s expired at version %s: listing again", self._resource.plural, version)
                version = ""
            except ApiError as error:
                logger.warning("watch of %s: %s", self._resource.plural, error)
                failures += 1
            if loop.time() - started < 1.0 and not moved:
                # also if a server closes every stream at once without an error: it must not become a busy loop
                await asyncio.sleep(backoff(max(1, failures), 0.2, 10.0))

    async def _list(self, namespace: str | None, stream: _Stream) -> str:
        listed: set[str] = set()
        version = ""
        async for items, page_version in self._client.list_pages(self._resource, namespace, labels=self._labels):
            version = page_version
            stream.alive_at = asyncio.get_running_loop().time()
            for body in items:
                listed.add(body["metadata"]["uid"])
                if self._store(body):
                    self._changed(self._key(body))
        # What was deleted while no watch was open has no DELETED event: it is what the list doesn't have. Not if its
        # version is newer than the list, though: then it was created by us while the pages were being read.
        missing = [
            uid
            for uid, item in self._items.items()
            if uid not in listed and item.version <= int(version) and namespace in (None, item.namespace)
        ]
        for uid in missing:
            self._changed(self._drop(uid))
        if missing:
            logger.info("%d %s were deleted unnoticed", len(missing), self._resource.plural)
        # Per stream, because with one stream per namespace versions of different streams don't order events.
        stream.seen = max(stream.seen, int(version))
        stream.synced = True
        if all(other.synced for other in self._streams.values()):
            self.synced.set()
        return version

    def _apply(self, kind: str, body: Object, stream: _Stream) -> str:
        meta: dict[str, Any] = body["metadata"]
        version = str(meta["resourceVersion"])
        stream.seen = max(stream.seen, int(version))
        if kind == "DELETED":
            if meta["uid"] in self._items:
                self._changed(self._drop(meta["uid"]))
        elif kind in ("ADDED", "MODIFIED") and self._store(body):
            self._changed(self._key(body))
        return version

    def _store(self, body: Object) -> bool:
        """Store the view; True if that changed anything."""
        uid, version = body["metadata"]["uid"], int(body["metadata"]["resourceVersion"])
        old = self._items.get(uid)
        if old is not None and old.version >= version:  # stale: e.g. the event of a write whose response is stored
            return False
        key, view = self._key(body), self._trim(body)
        if old is not None and old.key != key:  # its labels have changed: it now belongs to another job
            self._changed(self._drop(uid))
        self._items[uid] = _Item(body["metadata"].get("namespace", ""), key, version, view)
        self._by_key.setdefault(key, {})[uid] = view
        return old is None or old.key != key or old.view != view

    def _drop(self, uid: str) -> K:
        item = self._items.pop(uid)
        group = self._by_key[item.key]
        del group[uid]
        if not group:
            del self._by_key[item.key]
        self._gone.setdefault(item.key, deque(maxlen=GONE_PER_KEY)).append(item.view)
        self._gone.move_to_end(item.key)
        if len(self._gone) > GONE_KEYS:
            self._gone.popitem(last=False)
        return item.key
