"""What a storage error means, in words. Pure: it reads the text that obstore gives, because there is nothing else."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from enum import Enum

_S3_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_MACHINE_IDENTITY = "169.254.169.254"  # where a cloud's machines ask for their keys; only asked when there are none

_REFUSALS = {
    "InvalidAccessKeyId": "it doesn't know that key id",
    "SignatureDoesNotMatch": "the secret key doesn't belong to that key id",
    "AccessDenied": "that key has no permission for it",
    "ExpiredToken": "the session token has expired",
    "RequestTimeTooSkewed": "the clocks of the two machines differ too much",
}
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
_DENIED_ON_DISK = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR}


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
    """

    kind: Kind
    reason: str


def read_s3(text: str) -> Fault:
    """Understand an error of an S3 request."""
    code = _first(_S3_CODE, text)
    status = int(_first(_STATUS, text) or 0)
    if code == "NoSuchBucket":
        return Fault(Kind.NO_BUCKET, code)
    if _MACHINE_IDENTITY in text:
        return Fault(Kind.NO_KEYS, "no keys")
    if "redirect" in text and not status:
        return Fault(Kind.REFUSED, "the bucket is in another region; correct storage.region")
    if 400 <= status < 500 and status not in (408, 429):
        said = code or f"HTTP status {status}"
        return Fault(Kind.REFUSED, f"{_REFUSALS[said]} ({said})" if said in _REFUSALS else said)
    if status:
        return Fault(Kind.NO_ANSWER, f"it answers {code or f'with HTTP status {status}'}")
    for word, meaning in _NO_ANSWER.items():
        if word in text:
            return Fault(Kind.NO_ANSWER, meaning)
    return Fault(Kind.NO_ANSWER, first_line(text))


def read_disk(error: Exception) -> Fault:
    """Understand an error of a file: nothing on a disk gets better by waiting, so none of them may pass."""
    number = error.errno if isinstance(error, OSError) else int(_first(_OS_ERROR, str(error)) or 0)
    reason = os.strerror(number).lower() if number else first_line(str(error))
    refused = number in _DENIED_ON_DISK or type(error).__name__ == "PermissionDeniedError"
    return Fault(Kind.REFUSED if refused else Kind.NO_ANSWER, reason)


def first_line(text: str) -> str:
    """The first line of an error, without the library's dump of its own structures."""
    lines = text.strip().splitlines()
    return lines[0][:300] if lines else "no reason given"


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
