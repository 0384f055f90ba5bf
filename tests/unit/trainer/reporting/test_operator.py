"""Progress reaches the operator, and nothing that happens on the way reaches the training."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.reporting import operator as progress
from trainmaster_trainer.reporting.operator import ProgressPush
from trainmaster_trainer.reporting.state import RunState

from .fake_operator import Operator


@pytest.fixture
def operator() -> Iterator[Operator]:
    operator = Operator()
    yield operator
    operator.shutdown()
    operator.server_close()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("first\n")
    return path


@pytest.fixture
def run_state(job: TrainingJob) -> RunState:
    return RunState(job, 1)


def test_push_at_once_when_woken_with_the_newest_token(operator: Operator, token: Path, run_state: RunState) -> None:
    push = ProgressPush(operator.url, "", str(token), run_state.progress)
    assert operator.seen.get(timeout=5)[0] == "Bearer first"
    token.write_text("second\n")
    began = time.monotonic()
    push.wake()
    assert operator.seen.get(timeout=5)[0] == "Bearer second"
    assert time.monotonic() - began < progress.PROGRESS_INTERVAL_SECONDS / 2
    assert push.close()


def test_push_hands_on_what_the_operator_says_of_images(operator: Operator, token: Path, run_state: RunState) -> None:
    said: queue.Queue[tuple[str, ...]] = queue.Queue()
    operator.images = f"registry.example/trainer@sha256:{'a' * 64},sha256:{'b' * 64}"
    push = ProgressPush(operator.url, "", str(token), run_state.progress, said.put)
    assert said.get(timeout=5) == (f"registry.example/trainer@sha256:{'a' * 64}", f"sha256:{'b' * 64}")
    operator.images = ""
    assert push.close()
    assert said.empty(), "an operator of before says nothing"


def test_push_close_tries_again(
    operator: Operator, token: Path, run_state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.code = 503
    push = ProgressPush(operator.url, "", str(token), run_state.progress)
    operator.seen.get(timeout=5)
    threading.Timer(0.5, lambda: setattr(operator, "code", 204)).start()
    assert push.close()
    assert operator.seen.qsize() >= 2


def test_push_dead_operator_costs_a_line(
    token: Path, run_state: RunState, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LAST_WORD_SECONDS", 0.5)
    push = ProgressPush("https://127.0.0.1:1/v1/progress", "", str(token), run_state.progress)
    began = time.monotonic()
    assert not push.close()
    assert time.monotonic() - began < 10  # which is how long it would try otherwise
    printed = capsys.readouterr().out
    assert printed.count("training continues") == 1, printed


def test_push_missing_token_costs_a_line(
    operator: Operator, tmp_path: Path, run_state: RunState, monkeypatch: Any
) -> None:
    monkeypatch.setattr(progress, "_LAST_WORD_SECONDS", 0.3)
    push = ProgressPush(operator.url, "", str(tmp_path / "none"), run_state.progress)
    assert not push.close()
    assert operator.seen.empty()


def test_push_sends_the_message_of_the_contract(operator: Operator, token: Path, run_state: RunState) -> None:
    push = ProgressPush(operator.url, "", str(token), run_state.progress)
    message = operator.seen.get(timeout=5)[1]
    push.close()
    assert json.loads(message.model_dump_json(by_alias=True))["state"] == "Starting"
    assert (message.namespace, message.name, message.uid, message.attempt) == ("default", "digits", "0f3c9a1b", 1)
