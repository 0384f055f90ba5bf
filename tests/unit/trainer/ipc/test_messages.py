"""What is said arrives as it was said, whatever text is in it."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.ipc.messages import Failed, decode, encode


@given(st.text(), st.lists(st.text(), max_size=3))
def test_round_trip(text: str, lines: list[str]) -> None:
    message = Failed(failure_class=FailureClass.DATA_ERROR, message=text, last_lines=lines)
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode(line) == message


@given(st.binary(max_size=20))
def test_a_file_name_of_any_bytes_can_be_told(name: bytes) -> None:
    """Python reads bytes that aren't UTF-8 as lone surrogates, which JSON can't carry."""
    message = Failed(failure_class=FailureClass.DATA_ERROR, message=os.fsdecode(name), last_lines=[os.fsdecode(name)])
    found = decode(encode(message))
    assert isinstance(found, Failed)
    expected = os.fsdecode(name).encode("utf-8", "backslashreplace").decode("utf-8")
    assert (found.message, found.last_lines) == (expected, [expected])
