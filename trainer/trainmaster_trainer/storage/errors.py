"""What a storage error means, in words. Pure: it reads the text that obstore gives, because there is nothing else."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from enum import Enum

_S3_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_REGION = re.compile(r"<Region>([a-z0-9-]+)</Region>|expecting '([a-z0-9-]+)'")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_MACHINE_IDENTITY = "169.254.169.254"  # where a cloud's machines ask for their keys; only asked when there are none

KEY_ID, SECRET_KEY, SESSION_TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
_IN_THE_SECRET = "in the Secret that storage.credentialsSecret names, on a laptop in the environment"
_NO_S3 = "it doesn't speak S3"
_BAD_TOKEN = (
    f"the session token {SESSION_TOKEN} is not valid for that key",
    f"renew {SESSION_TOKEN} {_IN_THE_SECRET}; leave it out with keys that don't expire",
)

# code of the server: (what it means, what to do)
_REFUSALS = {
    "InvalidAccessKeyId": ("it doesn't know that key id", f"correct {KEY_ID} {_IN_THE_SECRET}"),
    "SignatureDoesNotMatch": (
        "the secret key doesn't belong to that key id",
        f"correct {SECRET_KEY} {_IN_THE_SECRET}",
    ),
    "AccessDenied": (
        "that key has no permission for it",
        f"allow it on the server, or correct the bucket in storage.uri or {KEY_ID} {_IN_THE_SECRET}",
    ),
    "InvalidTokenId": _BAD_TOKEN,
    "InvalidToken": _BAD_TOKEN,
    "ExpiredToken": ("the session token has expired", f"renew {SESSION_TOKEN} {_IN_THE_SECRET}"),
    "RequestTimeTooSkewed": ("the clocks of the two machines differ too much", "set the clock of the slower one"),
    "InvalidBucketName": ("the server doesn't accept that bucket's name", "correct the bucket in storage.uri"),
    "AuthorizationHeaderMalformed": ("it is in another region", "correct storage.region"),
}
_CHECK_ALL = f"check the bucket in storage.uri, storage.endpoint, and {KEY_ID} {_IN_THE_SECRET}"
_NO_ANSWER = {  # in the order in which they are looked for: a name that isn't found shows as a failed connection too
    "dns error": "its name can't be resolved",
    "ConnectionRefused": "connection refused",
    "InvalidContentType": "it doesn't speak TLS; use http:// in storage.endpoint",
    "certificate": "its TLS certificate isn't trusted",
    "Timeout": "no answer in time",
    "TimedOut": "no answer in time",
    "IncompleteMessage": "it broke the connection off",
    "ConnectionReset": "it broke the connection off",
}
_DENIED_ON_DISK = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


class Kind(Enum):
    """What follows from an error."""

    NO_BUCKET = "NoBucket"
    NO_KEYS = "NoKeys"
    REFUSED = "Refused"
    NO_ANSWER = "NoAnswer"  # the only one that may pass


@dataclass(frozen=True, slots=True)
class Fault:
    """An error, understood.

    Attributes:
        kind: What follows from it.
        reason: Half a sentence, with the server's own code where it gave one.
        fix: What to do about it, naming the field or the key; empty where the kind says it all.
    """

    kind: Kind
    reason: str
    fix: str = ""


def read_s3(text: str) -> Fault:
    """Understand an error of an S3 request."""
    code = _first(_S3_CODE, text)
    status = int(_first(_STATUS, text) or 0)
    if code == "NoSuchBucket":
        return Fault(Kind.NO_BUCKET, code)
    if _MACHINE_IDENTITY in text:
        return Fault(Kind.NO_KEYS, "no keys")
    if "redirect" in text and not status:
        return Fault(Kind.REFUSED, "the bucket is in another region", "correct storage.region")
    if "ETag Header missing" in text or (status in (404, 405, 501) and not code):
        return Fault(Kind.REFUSED, _NO_S3 + (f" (HTTP status {status})" if status else ""), "correct storage.endpoint")
    if 400 <= status < 500 and status not in (408, 429):
        return _refusal(code, status, text)
    if status:
        return Fault(Kind.NO_ANSWER, f"it answers {code or f'with HTTP status {status}'}")
    for word, meaning in _NO_ANSWER.items():
        if word in text:
            return Fault(Kind.NO_ANSWER, meaning)
    return Fault(Kind.NO_ANSWER, first_line(text))


def _refusal(code: str, status: int, text: str) -> Fault:
    meaning, fix = _REFUSALS.get(code, ("", _CHECK_ALL))
    region = _first(_REGION, text)
    if code == "AuthorizationHeaderMalformed" and region:
        meaning = f"it is in the region {region}"
    said = code or f"HTTP status {status}"
    return Fault(Kind.REFUSED, f"{meaning} ({said})" if meaning else said, fix)


def bad_key(access_key: str | None, secret_key: str | None, session_token: str | None) -> str:
    """Return what is wrong with keys that no server has to be asked about; empty: nothing.

    A line break comes into a Secret by `echo KEY | base64` and by files; the client library crashes on it.
    """
    for name, value in ((KEY_ID, access_key), (SECRET_KEY, secret_key), (SESSION_TOKEN, session_token)):
        if value and (value != value.strip() or not value.isprintable() or not value.isascii()):
            return f"{name} holds a space, a line break or another character that no key has: write it {_IN_THE_SECRET}"
    if access_key and not secret_key:
        return f"{KEY_ID} is given but {SECRET_KEY} is not: give both {_IN_THE_SECRET}"
    if secret_key and not access_key:
        return f"{SECRET_KEY} is given but {KEY_ID} is not: give both {_IN_THE_SECRET}"
    return ""


def read_disk(error: Exception) -> Fault:
    """Understand an error of a file: nothing on a disk gets better by waiting, so none of them may pass."""
    number = error.errno if isinstance(error, OSError) else int(_first(_OS_ERROR, str(error)) or 0)
    reason = os.strerror(number).lower() if number else first_line(str(error))
    if number in (errno.EEXIST, errno.ENOTDIR):
        reason = f"a file is where a directory should be ({reason})"
    refused = number in _DENIED_ON_DISK or type(error).__name__ == "PermissionDeniedError"
    fix = "free some space there" if number in (errno.ENOSPC, errno.EDQUOT) else ""
    return Fault(Kind.REFUSED if refused else Kind.NO_ANSWER, reason, fix)


def first_line(text: str) -> str:
    """The first line of an error, without the library's dump of its own structures."""
    lines = text.strip().splitlines()
    return lines[0][:300] if lines else "no reason given"


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return next((group for group in found.groups() if group), "") if found else ""
