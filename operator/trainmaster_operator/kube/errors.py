"""Typed errors of API requests, made from the Status object that the API server answers with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Message of the API server about a webhook with failurePolicy Fail that can't be called.
WEBHOOK_FAILED = "failed calling webhook"


class ApiError(Exception):
    """A request that the API server refused, or that never got an answer.

    Attributes:
        code: HTTP status; 0 when there was no answer.
        reason: CamelCase word of the Status object, such as `AlreadyExists`.
        message: The server's message.
        retry_after: Seconds that the server asked to wait, if it did.
    """

    def __init__(self, code: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code} {reason}: {message}" if code else f"{reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class UnreachableError(ApiError):
    """No answer: connection refused, reset or timed out. The request may or may not have been carried out."""


class FencedError(ApiError):
    """A write that wasn't sent, because this process may not write (it isn't the leader, or no longer)."""


class UnauthorizedError(ApiError):
    """401: the credentials are no longer good."""


class ForbiddenError(ApiError):
    """403: RBAC, a quota or an admission plugin said no."""


class NotFoundError(ApiError):
    """404: no such object, or its namespace is gone."""


class AlreadyExistsError(ApiError):
    """409 on create: an object of that name exists, ours or someone else's."""


class ConflictError(ApiError):
    """409 on an update or a guarded delete: the object has changed or isn't the one that was meant."""


class GoneError(ApiError):
    """410: the resource version or the page token has expired; list again."""


class InvalidError(ApiError):
    """400, 413 or 422: the object itself is refused."""


class ThrottledError(ApiError):
    """429: too many requests."""


class ServerError(ApiError):
    """5xx: the server or a webhook behind it failed."""


class WebhookError(ServerError):
    """An admission webhook could not be called, or did not answer: nothing is wrong with the object itself."""


_BY_CODE: dict[int, type[ApiError]] = {
    400: InvalidError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    413: InvalidError,
    422: InvalidError,
    429: ThrottledError,
}


def from_status(code: int, status: Mapping[str, Any], retry_after: float | None = None) -> ApiError:
    """Return the error for a Status object (the body of a failed request, or of an ERROR event of a watch)."""
    reason = str(status.get("reason") or "Unknown")
    message = str(status.get("message") or "no message")
    if code == 409 and reason == "AlreadyExists":
        return AlreadyExistsError(code, reason, message, retry_after)
    if code >= 500 and WEBHOOK_FAILED in message:
        return WebhookError(code, reason, message, retry_after)
    kind = _BY_CODE.get(code, ServerError if code >= 500 else ApiError)
    return kind(code, reason, message, retry_after)
