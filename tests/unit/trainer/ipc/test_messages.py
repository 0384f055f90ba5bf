"""Messages survive the wire."""

from __future__ import annotations

import json
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.context import Part, Report, ReportKind, Result, StoredFile
from trainmaster_trainer.ipc import messages
from trainmaster_trainer.ipc.messages import Message, decode, encode

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
COUNT = st.integers(0, 2**40)
METRICS = st.dictionaries(TEXT, st.floats(allow_nan=False), max_size=3)
CODE, FLAG, FAILURE = st.integers(-64, 255), st.booleans(), st.sampled_from(FailureClass)
LINES = st.lists(TEXT, max_size=3)
REPORT = st.builds(
    Report, kind=st.sampled_from(ReportKind), step=COUNT, totalSteps=COUNT, epoch=COUNT, metrics=METRICS, message=TEXT
)
RESULT = st.builds(
    Result, outcome=st.sampled_from(Outcome), step=COUNT, totalSteps=COUNT, test_metrics=METRICS, model_uri=TEXT
)
STORED = st.builds(StoredFile, path=TEXT, size=COUNT, sha256=TEXT, modified=st.floats(0, 2e9), link=TEXT)
PART = st.builds(Part, node=COUNT, files=st.lists(STORED, max_size=3), step=COUNT, isComplete=FLAG)
# Hypothesis finds required fields by their alias, so they are given by it.
MESSAGE: st.SearchStrategy[Message] = st.one_of(
    st.builds(messages.Hello, role=st.sampled_from(["agent", "launcher"]), rank=COUNT, group=TEXT, pod=TEXT, host=TEXT),
    st.builds(messages.Start, generation=COUNT, masterAddress=TEXT, masterPort=COUNT),
    st.sampled_from([messages.Warm(), messages.Stop(), messages.Dump(), messages.Retire(), messages.Ready()]),
    st.builds(messages.Leaving, pod=TEXT, ip=TEXT),
    st.builds(messages.Left, saved=st.booleans()),
    st.builds(messages.Started, generation=COUNT, pid=COUNT, wasWarm=st.booleans()),
    st.builds(messages.Progress, generation=COUNT, report=REPORT),
    st.builds(messages.Parts, generation=COUNT, part=PART),
    st.builds(messages.Failed, failureClass=FAILURE, message=TEXT, last_lines=LINES, peer=FLAG),
    st.builds(messages.Finished, generation=COUNT, result=RESULT),
    st.builds(messages.Exited, generation=COUNT, code=CODE, out_of_memory=FLAG, last_lines=LINES),
    st.builds(messages.Stacks, generation=COUNT, lines=LINES),
)  # fmt: skip


@given(MESSAGE)
def test_messages_round_trip(message: Message) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1, "a line break within a message would cut it"
    found = decode(line)
    assert type(found) is type(message)
    assert found == message


def test_messages_nan_survives() -> None:
    report = Report(kind=ReportKind.STEP, step=1, total_steps=2, epoch=0, metrics={"train/loss": math.nan})
    found = decode(encode(messages.Progress(report=report)))
    assert isinstance(found, messages.Progress)
    assert math.isnan(found.report.metrics["train/loss"])


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        json.dumps({"generation": 1}).encode(),
        json.dumps({"type": "unknown"}).encode(),
        json.dumps({"type": "left"}).encode(),
        json.dumps({"type": "hello", "role": "driver"}).encode(),
    ],
)
def test_decode_refuses(line: bytes) -> None:
    with pytest.raises(ValueError, match="not a message"):
        decode(line)


@given(st.binary(max_size=20))
def test_encode_escapes_a_file_name_of_any_bytes(name: bytes) -> None:
    """Python reads bytes that aren't UTF-8 as lone surrogates, which JSON can't carry."""
    text = os.fsdecode(name)
    message = messages.Failed(failure_class=FailureClass.DATA_ERROR, message=text, last_lines=[text])
    found = decode(encode(message))
    assert isinstance(found, messages.Failed)
    expected = text.encode("utf-8", "backslashreplace").decode("utf-8")
    assert (found.message, found.last_lines) == (expected, [expected])
