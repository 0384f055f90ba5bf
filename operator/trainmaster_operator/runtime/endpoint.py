"""The HTTPS endpoint that trainers push progress to, and that the API server asks for admission."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import orjson
from aiohttp import web
from trainmaster_api.messages import PROGRESS_LIMIT, ProgressMessage, images_text
from trainmaster_api.names import IMAGES_HEADER, PROGRESS_PATH
from trainmaster_api.validation.admission import admit
from trainmaster_api.validation.validate import Problem

from trainmaster_operator.kube.errors import ApiError
from trainmaster_operator.kube.ratelimit import TokenBucket
from trainmaster_operator.kube.tokens import TokenReviewer
from trainmaster_operator.kube.trainingjob_cache import JobKey

from .leader_proxy import FORWARDED, LeaderProxy
from .metrics import Metrics
from .progress import ProgressStore

logger = logging.getLogger(__name__)

ADMIT_PATH = "/v1/admit"
# A driver sends every 5 s and at each transition, so this is four times what a good one needs.
MESSAGES_PER_SECOND = 0.8
MESSAGES_AT_ONCE = 20
BODY_LIMIT = 4 * 1024 * 1024  # an object of the API is at most 1.5 MiB, and an AdmissionReview may hold two

HeadOf = Callable[[ProgressMessage], str | None]
ImagesOf = Callable[[ProgressMessage], Iterable[str]]


class _Answer(NamedTuple):
    """To a progress message: a code, why it isn't 204, and what the attempt's pods run."""

    code: int
    sentence: str = ""
    images: str = ""


class Endpoint:
    """Takes progress from the head pod of a job's attempt, and from nothing else.

    Args:
        tokens: Identifies the pod of a token.
        store: Where good messages go.
        head_of: UID of the live head pod that may speak for the message's job and attempt; None if there is none.
        is_leader: Only the leader's memory counts.
        leader: Where other replicas forward messages to.
        metrics: Counts answers by code.
        admission: Extra checks of a TrainingJob that depend on the operator's settings.
        images_of: What the kubelets report that the pods of the message's attempt run.
    """

    def __init__(
        self,
        tokens: TokenReviewer,
        store: ProgressStore,
        head_of: HeadOf,
        is_leader: Callable[[], bool],
        leader: LeaderProxy,
        metrics: Metrics,
        admission: Callable[[Any], list[Problem]] = lambda job: [],
        images_of: ImagesOf = lambda message: (),
    ) -> None:
        self._images_of = images_of
        self._admission = admission
        self._tokens = tokens
        self._store = store
        self._head_of = head_of
        self._is_leader = is_leader
        self._leader = leader
        self._metrics = metrics
        self._rates: dict[str, TokenBucket] = {}

    def application(self) -> web.Application:
        """Return the application with its routes."""
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_post(PROGRESS_PATH, self._progress)
        app.router.add_post(ADMIT_PATH, self._admit)
        return app

    async def _progress(self, request: web.Request) -> web.Response:
        code, sentence, images = await self._take(request)
        self._metrics.progress(code)
        if code == 204:
            return web.Response(status=204, headers={IMAGES_HEADER: images} if images else None)
        logger.info("rejected a progress message from %s: %d %s", request.remote, code, sentence)
        return web.Response(status=code, text=sentence, headers={"Retry-After": "5"} if code in (429, 503) else None)

    async def _take(self, request: web.Request) -> _Answer:
        if not self._is_leader():
            return await self._forward(request)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if not token:
            return _Answer(401, "no bearer token")
        if (request.content_length or 0) > PROGRESS_LIMIT:
            return _Answer(413, f"{request.content_length} bytes; at most {PROGRESS_LIMIT} are accepted")
        try:
            message = ProgressMessage.decode(await request.read())
        except ValueError as error:
            return _Answer(400, str(error))
        head = self._head_of(message)
        if head is None:
            where = JobKey(message.namespace, message.name)
            return _Answer(403, f"attempt {message.attempt} of {where} ({message.uid}) has no live head pod")
        if not self._within_rate(head):
            return _Answer(429, "more than one message per 5 s")
        try:
            identity = await self._tokens.review(token)
        except ApiError as error:
            return _Answer(503, f"can't review the token: {error}")
        if identity is None:
            return _Answer(401, "the token isn't valid for this service")
        if identity.pod_uid != head or identity.namespace != message.namespace:
            return _Answer(403, "the token belongs to another pod")
        self._store.put(message)
        return _Answer(204, images=images_text(self._images_of(message)))

    async def _forward(self, request: web.Request) -> _Answer:
        if FORWARDED in request.headers or (request.content_length or 0) > PROGRESS_LIMIT:
            return _Answer(503, "this replica is not the leader")
        authorization = request.headers.get("Authorization", "")
        code, images = await self._leader.send(await request.read(), authorization)
        return _Answer(code, "the leader's answer", images)

    def _within_rate(self, head: str) -> bool:
        if head not in self._rates:
            if len(self._rates) > 10_000:  # heads of the past; the living ones start again with a full bucket
                self._rates.clear()
            self._rates[head] = TokenBucket(MESSAGES_PER_SECOND, MESSAGES_AT_ONCE)
        return self._rates[head].take()

    async def _admit(self, request: web.Request) -> web.Response:
        try:
            review = orjson.loads(await request.read())
        except orjson.JSONDecodeError as error:
            return web.Response(status=400, text=f"not an AdmissionReview: {error}")
        # a large spec takes milliseconds to validate, and the event loop must not wait for it
        answer = await asyncio.to_thread(admit, review, self._admission)
        return web.Response(body=orjson.dumps(answer), content_type="application/json")
