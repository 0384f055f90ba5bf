"""Addresses: one parser, one spelling, and a sentence for what could be read in two ways."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from trainmaster_api.address import PATTERN, Address, AddressError, Source, Uri, local, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://runs", Address("s3", "runs", "")),
        ("s3://runs/", Address("s3", "runs", "")),
        ("s3://runs/a/b c/", Address("s3", "runs", "a/b c")),
        ("s3://runs/..a/.b/c..", Address("s3", "runs", "..a/.b/c..")),
        ("/", Address("file", "", "/")),
        ("/mnt/run #1?/50%/", Address("file", "", "/mnt/run #1?/50%")),
        ("file:///mnt/x/", Address("file", "", "/mnt/x")),
    ],
)
def test_parse_gives_one_spelling(text: str, expected: Address) -> None:
    assert parse(text) == expected
    assert parse(str(expected)) == expected
    assert re.search(PATTERN, text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "at most 1024 characters"),
        ("s3://runs/" + "a" * 1024, "at most 1024 characters"),
        ("s3://runs/exp#1", "contains `#`"),
        ("s3://runs/exp?1", "contains `?`"),
        ("s3://runs#x", "contains `#`"),
        ("s3://runs/a%20b", "escapes are not decoded"),
        ("file:///a%20b", "escapes are not decoded"),
        ("file:///a#b", "contains `#`"),
        ("s3://runs//double", "contains `//`"),
        ("s3://runs//", "contains `//`"),
        ("//server/share", "contains `//`"),
        ("/mnt//runs", "contains `//`"),
        ("/mnt/runs//", "contains `//`"),
        ("s3://runs/../x", "contains `..`"),
        ("s3://runs/.", "contains `.`"),
        ("/mnt/../x", "contains `..`"),
        (" s3://runs", "starts or ends with a space"),
        ("/mnt/runs ", "starts or ends with a space"),
        ("/mnt /runs", "starts or ends with a space"),
        ("s3://runs/a\nb", "control character"),
        ("/mnt/\x00", "control character"),
        ("/mnt/\udcff", "not UTF-8"),
        ("s3:/runs/x", "must start with s3://"),
        ("s3:runs/x", "must start with s3://"),
        ("S3://runs/x", "must start with s3://"),
        ("s3://", "has no bucket"),
        ("s3:///x", "has no bucket"),
        ("s3://Runs/x", "has the bucket name `Runs`"),
        ("s3://key:secret@runs/x", "has the bucket name"),
        ("s3://ab", "has the bucket name `ab`"),
        ("file://host/x", "has a host"),
        ("file:/x", "must be an absolute path"),
        ("gs://runs/x", "has the scheme gs://, which is not supported"),
        ("https://example.org/x", "has the scheme https://"),
        ("runs", "must be s3://bucket/prefix or an absolute path"),
    ],
)
def test_parse_refuses_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(AddressError, match=re.escape(sentence)):
        parse(text)
    known = len(text) > 1024 or not text.isascii()  # a length of its own; JSON has no lone surrogates
    assert known or not re.search(PATTERN, text), "the API server would take it"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rows.csv", "/base/job/rows.csv"),
        ("./rows.csv", "/base/job/rows.csv"),
        ("../rows #1.csv", "/base/rows #1.csv"),
        ("../../../../x", "/x"),
        (".", "/base/job"),
        ("a:b.csv", "/base/job/a:b.csv"),
        ("/abs", "/abs"),
        ("s3://runs/x", "s3://runs/x"),
    ],
)
def test_parse_relative(text: str, expected: str) -> None:
    assert str(parse(text, relative_to="/base/job")) == expected


@pytest.mark.parametrize("text", ["a//b", "a/../b", "a/./b", "~/runs", "..//x", ".//x", "a/ b"])
def test_parse_refuses_relative(text: str) -> None:
    with pytest.raises(AddressError):
        parse(text, relative_to="/base")


def test_under_parent_and_name() -> None:
    for root in ("s3://runs", "s3://runs/a", "/", "/mnt/x"):
        found = parse(root).under("/default/digits/")
        assert str(found) == f"{root.rstrip('/')}/default/digits"
        assert found.name == "digits"
        assert found.parent.parent == parse(root)


def test_local_takes_any_name_that_a_directory_may_have() -> None:
    assert str(local("/home/my #1 project?/..x//y/")) == "/home/my #1 project?/..x/y"
    assert str(local("//x")) == "/x"


# characters that addresses are made of come often, so that the interesting cases do
_TEXT = st.one_of(st.text(), st.text(alphabet="s3:/.#?%~ ab-\n", max_size=30))
_ANY = st.builds(lambda head, tail: head + tail, st.sampled_from(["", "s3://", "s3://runs/", "file://", "/"]), _TEXT)


@given(_ANY, st.sampled_from([None, "/base", "/"]))
def test_parse_raises_nothing_but_its_own_error(text: str, base: str | None) -> None:
    try:
        found = parse(text, relative_to=base)
    except AddressError:
        return
    assert base is not None or parse(str(found)) == found


@given(_ANY)
@example("s3://runs/a b")
@example("/a b/ c")
@example("file:///")
@example("s3://runs/. 0")
@example("/.. ./a")
@example("/ .")
@example("/.  ")
def test_the_pattern_accepts_what_parse_accepts(text: str) -> None:
    try:
        parse(text)
        accepted = True
    except AddressError:
        accepted = False
    # JSON holds no lone surrogates, and the length has a field of its own
    if len(text) <= 1024 and text.isprintable():
        assert (re.search(PATTERN, text) is not None) == accepted


def test_models_say_the_sentence() -> None:
    uri: TypeAdapter[str] = TypeAdapter(Uri)
    assert uri.validate_python("file:///mnt/x/") == "/mnt/x"
    with pytest.raises(ValidationError, match="contains `#`"):
        uri.validate_python("s3://runs/exp#1")
    assert uri.json_schema()["pattern"] == PATTERN
    with pytest.raises(ValidationError, match="contains `//`"):
        SOURCE.validate_python("images:s3://runs//x")


SOURCE: TypeAdapter[str] = TypeAdapter(Source)


@pytest.mark.parametrize(
    "text", ["sklearn:digits", "rows.csv", "images:../pictures", "images:s3://b-1/p", "https://x/y"]
)
def test_a_source_is_left_as_it_is(text: str) -> None:
    assert SOURCE.validate_python(text) == text


@pytest.mark.parametrize("text", ["images:s3://b-1//p", "s3://b-1/a#b.csv", "s3:/b/a.csv", "a//b.csv", "~/a.csv"])
def test_a_source_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        SOURCE.validate_python(text)
