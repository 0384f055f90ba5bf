"""Lines out of pieces of bytes, and a log that keeps its two ends."""

from __future__ import annotations

import random

import pytest
from trainmaster_trainer.logs.bounded import BoundedLog
from trainmaster_trainer.logs.lines import LONGEST, PARTIAL_SECONDS, LineBuffer, labelled


def fed(*pieces: bytes) -> list[bytes]:
    buffer = LineBuffer()
    return (b"".join(buffer.feed(piece, 0.0) for piece in pieces) + buffer.end()).split(b"\n")[:-1]


def test_lines_are_the_same_in_any_pieces() -> None:
    text = "".join(f"line {n}\n" * (n % 3) + "ü\n" for n in range(300)).encode() + b"no end"
    draw = random.Random(7)
    for _ in range(20):
        cuts = sorted(draw.sample(range(len(text)), 40))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert fed(*pieces) == text.split(b"\n")


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"\r 10%", b"\r 20%", b"\r100%\n", b"next\n"], [b"100%", b"next"]),
        ([b"10%\r", b"20%\r", b"100%\n"], [b"100%"]),
        ([b"a\r\nb\r\n"], [b"a", b"b"]),
        ([b"a\r", b"\nb"], [b"a", b"b"]),
        ([b"\n\nx\n"], [b"", b"", b"x"]),
    ],
)
def test_a_progress_bar_is_one_line(pieces: list[bytes], lines: list[bytes]) -> None:
    assert fed(*pieces) == lines


def test_a_line_without_end_is_shown_after_a_while() -> None:
    buffer = LineBuffer()
    assert buffer.feed(b"loading", 1.0) == b""
    assert buffer.feed(b" ...", 3.0) == b""
    assert buffer.due(1.0 + PARTIAL_SECONDS - 0.1) == b""
    assert buffer.due(1.0 + PARTIAL_SECONDS) == b"loading ...\n"
    assert buffer.due(100.0) == b""
    assert buffer.feed(b"done\n", 101.0) == b"done\n"


def test_a_line_without_end_needs_no_memory() -> None:
    buffer = LineBuffer()
    found = b"".join(buffer.feed(b"x" * 1000, 0.0) for _ in range(1000)) + buffer.end()
    assert found.replace(b"\n", b"") == b"x" * 10**6
    assert max(map(len, found.split(b"\n"))) < LONGEST + 1000


def test_every_line_has_the_label() -> None:
    assert labelled(b"a\n\nb\n", "[rank 1] ") == b"[rank 1] a\n[rank 1] \n[rank 1] b\n"
    assert labelled(b"", "[rank 1] ") == b""


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_log_keeps_its_ends_and_says_what_is_missing(size: int) -> None:
    log, lines = BoundedLog(head=200, tail=300), [f"line {n:04d}\n".encode() for n in range(500)]
    for start in range(0, len(lines), size):
        log.add(b"".join(lines[start : start + size]))
    found = log.content().splitlines(keepends=True)
    (gap,) = [n for n, line in enumerate(found) if line.startswith(b"[trainmaster]")]
    assert found[:gap] == lines[:20], "200 bytes, 10 a line"
    assert found[gap + 1 :] == lines[-30:]
    assert b"450 lines (4,500 bytes)" in found[gap]
    assert log.size == 5000


def test_a_short_log_is_kept_whole() -> None:
    log = BoundedLog(head=20, tail=30)
    for n in range(5):
        log.add(f"line {n:04d}\n".encode())
    assert log.content() == b"".join(f"line {n:04d}\n".encode() for n in range(5))


def test_a_line_longer_than_the_log_is_left_out_and_said() -> None:
    log = BoundedLog(head=10, tail=10)
    log.add(b"x" * 100 + b"\n")
    log.add(b"end\n")
    assert log.content().endswith(b"kept\nend\n")
    assert b"1 lines (101 bytes)" in log.content()
