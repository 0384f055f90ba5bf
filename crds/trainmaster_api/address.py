"""Addresses of storage, runs and data: parsed here and nowhere else, and rejected if ambiguous.

Text such as `s3://bucket/exp#1` is read by one program as a key with a `#` in it and by another as the key `exp`. Two
jobs that differ only behind the `#` would then share one directory. So what could be read in two ways is an error.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from .types import rule_error

MAX_LENGTH = 1024
EXAMPLES = ["s3://bucket/prefix", "/mnt/shared/runs"]

_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"


def _segment(forbidden: str) -> str:
    """Return a pattern (RE2: no lookahead) for a path segment: not empty, not `.` or `..`, no space at its ends."""
    inner = rf"[^/\x00-\x1f\x7f{forbidden}]"
    edge = rf"[^/\x00-\x20\x7f{forbidden}]"
    first = rf"[^./\x00-\x20\x7f{forbidden}]"
    return rf"({first}|\.{first}|\.\.{edge}|\.\.? +{edge})({inner}*{edge})?"


_URI_SEGMENT, _PATH_SEGMENT = _segment("#?%"), _segment("")
PATTERN = (
    rf"^(s3://{_BUCKET}(/{_URI_SEGMENT})*/?"
    rf"|file:///({_URI_SEGMENT}(/{_URI_SEGMENT})*/?)?"
    rf"|/({_PATH_SEGMENT}(/{_PATH_SEGMENT})*/?)?)$"
)
"""What `parse` accepts without `relative_to`, for the CRD and the chart. A test compares the two."""

PATTERN_MESSAGE = (
    "must be s3://bucket/prefix or an absolute path; without `#`, `?` and `%` in an s3:// or file:// address, without "
    "`//`, and without segments that are `.` or `..` or start or end with a space"
)
"""Message of the API server, which can't tell which of these it was."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):(/{0,3})")
_FORMS = "s3://bucket/prefix or an absolute path"


class AddressError(ValueError):
    """Text that is not an address; the message is a clause that says what is accepted instead."""


@dataclass(frozen=True)
class Address:
    """A place in S3 or in a file system. Equal addresses are the same place, however they were written.

    Attributes:
        scheme: `s3` or `file`.
        bucket: The S3 bucket; empty for `file`.
        path: S3: the key or prefix, without slashes at its ends, may be empty. `file`: an absolute path without a
            slash at its end (the root is `/`).
    """

    scheme: Literal["s3", "file"]
    bucket: str
    path: str

    def __str__(self) -> str:
        """Return the one spelling of the address that is used everywhere."""
        if self.scheme == "file":
            return self.path
        return f"s3://{self.bucket}/{self.path}".rstrip("/")

    @property
    def is_s3(self) -> bool:
        """Whether the place is in S3."""
        return self.scheme == "s3"

    @property
    def name(self) -> str:
        """Last part of the path; empty for a bucket or the root."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> Address:
        """The directory that holds this place."""
        above = self.path.rpartition("/")[0]
        return replace(self, path=above or ("/" if self.scheme == "file" else ""))

    def under(self, path: str) -> Address:
        """Return a place below this one. `path` is ours (`default/digits/0f3c`), so it isn't checked."""
        joined = f"{self.path.rstrip('/')}/{path.strip('/')}".rstrip("/")
        return replace(self, path=joined if self.scheme == "file" else joined.lstrip("/"))


def local(path: str) -> Address:
    """Return the address of a path that the operating system gave us, such as the working directory.

    Args:
        path: An absolute path; it may hold any character that a file name may.

    Raises:
        AddressError: It is a relative path.
    """
    if not path.startswith("/"):
        raise AddressError(f"`{path}` must be an absolute path")
    return Address("file", "", "/" + posixpath.normpath(path).lstrip("/"))


def parse(text: str, relative_to: str | None = None) -> Address:
    """Parse an address that a user wrote.

    Args:
        text: `s3://bucket/prefix`, `/path`, `file:///path`, or a relative path.
        relative_to: Absolute path of the directory that a relative path starts from; None: relative paths are rejected.

    Raises:
        AddressError: It is none of these, or could be read in two ways. Nothing else is raised.
    """
    _check_characters(text)
    scheme = _SCHEME.match(text)
    if scheme and text.startswith("s3://"):
        return _parse_s3(text)
    if scheme and text.startswith("file://"):
        if not text.startswith("file:///"):
            raise AddressError("has a host after file://: write file:///path or /path, a path on this machine")
        return Address("file", "", "/" + _checked_path(text.removeprefix("file:///"), "#?%"))
    if scheme and (scheme[2] or scheme[1].lower() in ("s3", "file")):
        raise AddressError(_wrong_scheme(scheme[1], scheme[2]))
    if text.startswith("/"):
        return Address("file", "", "/" + _checked_path(text[1:], ""))
    if relative_to is None:
        raise AddressError(f"must be {_FORMS}, such as {' or '.join(EXAMPLES)}")
    return _parse_relative(text, relative_to)


def _normalized(text: str) -> str:
    try:
        return str(parse(text))
    except AddressError as error:
        raise rule_error(str(error)) from None


def _checked_source(text: str) -> str:
    """Return `data.source` unchanged after parsing its address; built-in data sets have none."""
    address = text.removeprefix("images:")
    if text.startswith("sklearn:") or ("://" in address and not address.startswith("s3://")):
        return text  # the supported schemes are a rule of their own
    try:
        parse(address, relative_to="/")
    except AddressError as error:
        raise rule_error(str(error)) from None
    return text


def _check_characters(text: str) -> None:
    if not text or len(text) > MAX_LENGTH:
        raise AddressError(f"must be {_FORMS} of at most {MAX_LENGTH} characters")
    if _CONTROL.search(text):
        raise AddressError("contains a control character (a line break, a tab): remove it")
    if text != text.strip(" "):
        raise AddressError("starts or ends with a space: remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise AddressError("contains bytes that are not UTF-8: use a valid UTF-8 name") from None


def _wrong_scheme(scheme: str, slashes: str) -> str:
    if scheme.lower() == "s3":
        return "must start with s3://, in lower case and with two slashes: s3://bucket/prefix"
    if scheme.lower() == "file":
        return "must be an absolute path: /path or file:///path"
    return f"has the scheme {scheme}:{slashes}, which is not supported: use {_FORMS}"


def _parse_s3(text: str) -> Address:
    for character in ("#", "?"):
        if character in text:
            raise AddressError(
                f"contains `{character}`, at which some programs truncate an address: choose another prefix"
            )
    bucket, _, path = text.removeprefix("s3://").partition("/")
    if not bucket:
        raise AddressError("has no bucket: write s3://bucket/prefix")
    if re.fullmatch(_BUCKET, bucket) is None:
        raise AddressError(
            f"has the bucket name `{bucket}`, which is invalid: use 3 to 63 lower-case letters, digits, `.` and `-`"
        )
    return Address("s3", bucket, _checked_path(path, "#?%"))


def _checked_path(path: str, forbidden: str) -> str:
    """Return a path without its last slash; `path` begins behind the first one."""
    for character in forbidden:
        if character not in path:
            continue
        if character == "%":
            raise AddressError("contains `%`: escapes are not decoded; write the character itself")
        raise AddressError(f"contains `{character}`, at which some programs truncate an address: choose another path")
    inside = path.removesuffix("/")
    for part in inside.split("/") if path else ():
        if not part:
            raise AddressError("contains `//`, an empty path segment: write one slash")
        if part in (".", ".."):
            raise AddressError(f"contains `{part}` as a path segment: write the path without it")
        if part != part.strip(" "):
            raise AddressError("has a path segment that starts or ends with a space: remove it")
    return inside


def _parse_relative(text: str, base: str) -> Address:
    """Parse a relative path; only here a leading `./` or `../` is unambiguous, and so accepted."""
    if text.startswith("~"):
        raise AddressError("starts with `~`, which only a shell expands: write the full path")
    rest, above = text, []
    while match := re.match(r"(\.\.?)(?:/|$)", rest):
        above.append(match[1])
        rest = rest[match.end() :]
    if rest.startswith("/"):
        raise AddressError("contains `//`, an empty path segment: write one slash")
    return local(posixpath.join(base, *above, _checked_path(rest, "")))


Uri = Annotated[
    str,
    AfterValidator(_normalized),
    Field(max_length=MAX_LENGTH, examples=EXAMPLES, json_schema_extra={"pattern": PATTERN}),
]
"""An absolute address in its canonical form. The pattern is for the API server; other messages are those of `parse`."""
Source = Annotated[str, AfterValidator(_checked_source), Field(min_length=1, max_length=MAX_LENGTH)]
"""`data.source`: a built-in data set, or an address that may be a relative path."""
