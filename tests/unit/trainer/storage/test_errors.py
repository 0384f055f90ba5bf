"""Errors of storage, classified by the text of the client library."""

from __future__ import annotations

import pytest
from trainmaster_trainer.storage.errors import Fault, Kind, bad_key, first_line, read_disk, read_s3

OTHER_REGION = ("the bucket is in another region", "correct storage.region")


def said(status: int, code: str) -> str:
    """How obstore words an answer of MinIO."""
    return (
        f"The operation lacked the necessary privileges: Error performing PUT http://m/b/x in 743µs - Server returned "
        f'non-2xx status code: {status} Oh: <?xml version="1.0"?>\n<Error><Code>{code}</Code></Error>\n\nDebug source:'
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (said(404, "NoSuchBucket"), Fault(Kind.NO_BUCKET, "NoSuchBucket")),
        (said(503, "SlowDown"), Fault(Kind.NO_ANSWER, "it answers SlowDown")),
        ("x status code: 429 Too Many", Fault(Kind.NO_ANSWER, "it answers with HTTP status 429")),
        ("PUT http://169.254.169.254/latest/api/token: sending request", Fault(Kind.NO_KEYS, "no keys")),
        ("Received redirect without LOCATION", Fault(Kind.REFUSED, *OTHER_REGION)),
        ("error sending request\n Connect(\"dns error\", ...)", Fault(Kind.NO_ANSWER, "its name can't be resolved")),
        ("kind: Timeout, source: TimedOut", Fault(Kind.NO_ANSWER, "no response in time")),
        ("something new\nDebug source: {", Fault(Kind.NO_ANSWER, "something new")),
    ],
)  # fmt: skip
def test_read_s3(text: str, expected: Fault) -> None:
    assert read_s3(text) == expected


@pytest.mark.parametrize(
    ("code", "reason", "names"),
    [
        ("InvalidAccessKeyId", "it does not know that access key ID", "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "the secret access key does not match the access key ID", "AWS_SECRET_ACCESS_KEY"),
        ("InvalidTokenId", "the session token AWS_SESSION_TOKEN is not valid", "AWS_SESSION_TOKEN"),
        ("ExpiredToken", "the session token has expired", "AWS_SESSION_TOKEN"),
        ("AccessDenied", "no permission", "storage.uri"),
        ("InvalidBucketName", "the server rejects the bucket name", "storage.uri"),
        ("AuthorizationHeaderMalformed", "another region", "storage.region"),
        ("RequestTimeTooSkewed", "the clocks of the two machines differ by too much", "clock"),
        ("SomethingNew", "SomethingNew", "storage.endpoint"),
    ],
)
def test_read_s3_refusal_names_what_to_correct(code: str, reason: str, names: str) -> None:
    fault = read_s3(said(403, code))
    assert fault.kind is Kind.REFUSED
    assert reason in fault.reason
    assert f"({code})" in fault.reason or fault.reason == code
    assert names in fault.fix


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_read_s3_transient_status(status: int) -> None:
    assert read_s3(f"Server returned non-2xx status code: {status} Oh") == Fault(
        Kind.NO_ANSWER, f"it answers with HTTP status {status}"
    )


@pytest.mark.parametrize("status", [404, 405, 501])
def test_read_s3_status_of_another_kind_of_server(status: int) -> None:
    fault = read_s3(f"Server returned non-2xx status code: {status} Oh")
    assert fault == Fault(
        Kind.REFUSED, f"it does not support the S3 API (HTTP status {status})", "correct storage.endpoint"
    )


def test_read_s3_region_of_the_bucket() -> None:
    fault = read_s3(said(400, "AuthorizationHeaderMalformed") + " the region 'a' is wrong; expecting 'eu-west-3'")
    assert fault.reason == "it is in the region eu-west-3 (AuthorizationHeaderMalformed)"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(28, "No space left on device"),
            Fault(Kind.NO_ANSWER, "no space left on device", "free some space there"),
        ),
        (
            RuntimeError("Generic LocalFileSystem error (os error 28)"),
            Fault(Kind.NO_ANSWER, "no space left on device", "free some space there"),
        ),
        (OSError(30, "Read-only file system"), Fault(Kind.REFUSED, "read-only file system")),
        (
            FileExistsError(17, "File exists"),
            Fault(Kind.REFUSED, "a file is where a directory should be (file exists)"),
        ),
        (PermissionError(13, "Permission denied"), Fault(Kind.REFUSED, "permission denied")),
        (OSError(5, "Input/output error"), Fault(Kind.NO_ANSWER, "input/output error")),
    ],
)
def test_read_disk(error: Exception, expected: Fault) -> None:
    assert read_disk(error) == expected


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        (("id", "secret", None), ""),
        ((None, None, None), ""),
        (("id", "secret", "token"), ""),
        (("id\n", "secret", None), "AWS_ACCESS_KEY_ID contains"),
        (("id", "secret", " token"), "AWS_SESSION_TOKEN contains"),
        (("id", "", None), "AWS_ACCESS_KEY_ID is set but AWS_SECRET_ACCESS_KEY is not"),
        ((None, "secret", None), "AWS_SECRET_ACCESS_KEY is set but AWS_ACCESS_KEY_ID is not"),
    ],
)
def test_bad_key(keys: tuple[str | None, str | None, str | None], name: str) -> None:
    found = bad_key(*keys)
    assert found.startswith(name)
    assert bool(found) == bool(name)


def test_bad_key_does_not_show_the_secret() -> None:
    assert "hunter2" not in bad_key("id", "hunter2\n", None)


def test_first_line_is_cut() -> None:
    assert first_line("\n  one  \ntwo") == "one  "
    assert len(first_line("x" * 1000)) == 300
    assert first_line(" \n") == "no reason given"
