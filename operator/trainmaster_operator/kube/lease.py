"""Leader election by a Lease, so that of several replicas one acts.

Only this process' own monotonic clock counts: a candidate takes the lease over when it has itself seen it unchanged
for the lease's duration, and the holder stops writing before that time can have passed for anyone else, measured from
the moment *before* its last successful renewal was sent. Wall clocks may be wrong by any amount.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .client import LEASES, Client, Object
from .errors import AlreadyExistsError, ApiError, ConflictError, NotFoundError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds: how long a lease holds, when its holder stops to write, how often it is renewed."""

    duration: float = 15.0
    deadline: float = 10.0
    period: float = 3.0

    def __post_init__(self) -> None:
        if not self.period < self.deadline < self.duration:
            raise ValueError(f"need period {self.period} < deadline {self.deadline} < duration {self.duration}")


class Elector:
    """One candidate for a lease.

    Args:
        client: Where the lease is.
        namespace: Its namespace.
        name: Its name.
        identity: Our name in it; must differ between replicas and between restarts.
        times: Its times.
        clock: Monotonic seconds. CLOCK_BOOTTIME would also count a suspended machine; a stopped process is covered
            by either.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        *,
        times: LeaseTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._times = times or LeaseTimes()
        self._clock = clock
        self._held_until = 0.0
        self._seen_version = ""
        self._seen_at = 0.0
        self.holder = ""  # identity of the leader, as last seen; "": none
        self.acquired = asyncio.Event()

    def is_leader(self) -> bool:
        """Return whether this replica may write now. Ask right before each write: it changes without an await."""
        return self._clock() < self._held_until

    async def run(self) -> None:
        """Try to get the lease and keep it, until cancelled; returns when a lease that was held is lost."""
        while True:
            try:
                async with asyncio.timeout(self._times.deadline):
                    await self.step()
            except (ApiError, TimeoutError) as error:
                logger.warning("lease %s: %s", self._name, error or "no response in time")
            if self.acquired.is_set() and not self.is_leader():
                logger.error("lost the lease %s", self._name)
                return
            await asyncio.sleep(self._times.period * random.uniform(0.8, 1.0))

    async def step(self) -> None:
        """Look at the lease once; renew it, take it, or leave it."""
        sent_at = self._clock()
        try:
            lease = await self._client.get(LEASES, self._namespace, self._name)
        except NotFoundError:
            await self._create(sent_at)
            return
        spec: dict[str, Any] = lease.get("spec") or {}
        holder, version = spec.get("holderIdentity") or "", lease["metadata"]["resourceVersion"]
        self.holder = holder
        if version != self._seen_version:
            self._seen_version, self._seen_at = version, sent_at
        seconds = max(self._times.duration, float(spec.get("leaseDurationSeconds") or 0))
        if holder not in ("", self._identity) and sent_at - self._seen_at < seconds:
            return
        await self._write(lease, self._spec(spec, holder), sent_at)

    async def release(self) -> None:
        """Give the lease back, so that the next leader need not wait for its end."""
        if not self.is_leader():
            return
        self._held_until = 0.0
        try:
            lease = await self._client.get(LEASES, self._namespace, self._name)
            if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._client.replace(LEASES, lease)
        except ApiError as error:
            logger.warning("could not release the lease %s: %s", self._name, error)

    async def _create(self, sent_at: float) -> None:
        lease = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": self._spec({}, ""),
        }
        try:
            self._got(await self._client.create(LEASES, self._namespace, lease), sent_at)
        except AlreadyExistsError:
            logger.debug("another candidate created the lease %s", self._name)

    async def _write(self, lease: Object, spec: dict[str, Any], sent_at: float) -> None:
        try:
            self._got(await self._client.replace(LEASES, {**lease, "spec": spec}), sent_at)
        except ConflictError:
            logger.debug("another candidate acquired the lease %s first", self._name)

    def _spec(self, old: dict[str, Any], holder: str) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        ours = holder == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self._times.duration) or 1,
            "renewTime": now,
            "acquireTime": old.get("acquireTime", now) if ours else now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if ours else 1),
        }

    def _got(self, lease: Object, sent_at: float) -> None:
        self._seen_version, self._seen_at = lease["metadata"]["resourceVersion"], sent_at
        self._held_until = sent_at + self._times.deadline
        self.holder = self._identity
        if not self.acquired.is_set():
            logger.info("leading as %s", self._identity)
            self.acquired.set()
