"""What a storage error means, in words. Pure: it reads the text that obstore gives, because there is nothing else."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from trainmaster_trainer.errors import StorageDenied, StorageUnavailable, TrainingError

if TYPE_CHECKING:
    from .store import Store

_S3_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_REGION = re.compile(r"<Region>([a-z0-9-]+)</Region>|expecting '([a-z0-9-]+)'")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_MACHINE_IDENTITY = "169.254.169.254"  # where a cloud's machines ask for their keys; only asked when there are none

KEY_ID, SECRET_KEY, SESSION_TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
_IN_THE_SECRET = "in the Secret of storage.credentialsSecret, or on a laptop in the environment"
_NO_S3 = "it does not support the S3 API"
_BAD_TOKEN = (
    f"the session token {SESSION_TOKEN} is not valid for that access key",
    f"renew {SESSION_TOKEN} {_IN_THE_SECRET}; remove it if the keys don't expire",
)

# code of the server: (what it means, what to do)
_REFUSALS = {
    "InvalidAccessKeyId": ("it does not know that access key ID", f"correct {KEY_ID} {_IN_THE_SECRET}"),
    "SignatureDoesNotMatch": (
        "the secret access key does not match the access key ID",
        f"correct {SECRET_KEY} {_IN_THE_SECRET}",
    ),
    "AccessDenied": (
        "that access key has no permission for it",
        f"allow it on the server, or correct the bucket in storage.uri or {KEY_ID} {_IN_THE_SECRET}",
    ),
    "InvalidTokenId": _BAD_TOKEN,
    "InvalidToken": _BAD_TOKEN,
    "ExpiredToken": ("the session token has expired", f"renew {SESSION_TOKEN} {_IN_THE_SECRET}"),
    "RequestTimeTooSkewed": ("the clocks of the two machines differ by too much", "synchronize their clocks"),
    "InvalidBucketName": ("the server rejects the bucket name", "correct the bucket in storage.uri"),
    "AuthorizationHeaderMalformed": ("it is in another region", "correct storage.region"),
}
_CHECK_ALL = f"check the bucket in storage.uri, storage.endpoint, and {KEY_ID} {_IN_THE_SECRET}"
_NO_ANSWER = {  # in the order in which they are looked for: a name that isn't found shows as a failed connection too
    "dns error": "its name can't be resolved",
    "ConnectionRefused": "connection refused",
    "InvalidContentType": "it does not support TLS; use http:// in storage.endpoint",
    "certificate": "its TLS certificate isn't trusted",
    "Timeout": "no response in time",
    "TimedOut": "no response in time",
    "IncompleteMessage": "it closed the connection",
    "ConnectionReset": "it closed the connection",
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
        reason: A clause, with the server's error code if it sent one.
        fix: What to do about it, naming the field or the key; empty if the kind is sufficient.
    """

    kind: Kind
    reason: str
    fix: str = ""


def read_s3(text: str) -> Fault:
    """Classify an error of an S3 request."""
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
            return f"{name} contains a space, a line break or another invalid character: correct it {_IN_THE_SECRET}"
    if access_key and not secret_key:
        return f"{KEY_ID} is set but {SECRET_KEY} is not: set both {_IN_THE_SECRET}"
    if secret_key and not access_key:
        return f"{SECRET_KEY} is set but {KEY_ID} is not: set both {_IN_THE_SECRET}"
    return ""


def read_disk(error: Exception) -> Fault:
    """Classify an error of a file: none of them is transient."""
    number = error.errno if isinstance(error, OSError) else int(_first(_OS_ERROR, str(error)) or 0)
    reason = os.strerror(number).lower() if number else first_line(str(error))
    if number in (errno.EEXIST, errno.ENOTDIR):
        reason = f"a file is where a directory should be ({reason})"
    refused = number in _DENIED_ON_DISK or type(error).__name__ == "PermissionDeniedError"
    fix = "free some space there" if number in (errno.ENOSPC, errno.EDQUOT) else ""
    return Fault(Kind.REFUSED if refused else Kind.NO_ANSWER, reason, fix)


def failure(store: Store, fault: Fault, doing: str) -> TrainingError:
    """Return the failure of a request that isn't tried any longer."""
    if not store.is_s3:
        text = f"{store.uri}: {fault.reason} while {doing}"
        if fault.kind is Kind.REFUSED:
            return StorageDenied(f"{text}; correct storage.uri or its permissions")
        return StorageUnavailable(f"{text}; {fault.fix}" if fault.fix else text)
    where, bucket = store.where, store.bucket
    if fault.kind is Kind.NO_BUCKET:
        return StorageDenied(
            f"bucket {bucket} does not exist at {where}; create it, or correct its name in storage.uri"
        )
    if fault.kind is Kind.NO_KEYS:
        return StorageDenied(
            f"no credentials for bucket {bucket} at {where}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
            "in the Secret of storage.credentialsSecret, or on a laptop in the environment"
        )
    if fault.kind is Kind.REFUSED:
        key = f"key {store.access_key}" if store.access_key else "this machine's identity"
        return StorageDenied(f"{where} refused {key} while {doing} in bucket {bucket}: {fault.reason}; {fault.fix}")
    return StorageUnavailable(
        f"{where} has not responded for {store.patience:.0f} s while {doing} in bucket {bucket}: {fault.reason}; "
        "check storage.endpoint and the server"
    )


def first_line(text: str) -> str:
    """Return the first line of an error, without the library's dump of its own structures."""
    lines = text.strip().splitlines()
    return lines[0][:300] if lines else "no reason given"


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return next((group for group in found.groups() if group), "") if found else ""
