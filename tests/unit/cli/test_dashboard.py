"""The token of a running attempt, by a stand-in for kubectl on PATH."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from trainmaster_api.names import ray_token
from trainmaster_cli.dashboard import attempt_token, current_attempt, forward_command
from trainmaster_cli.main import main


def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: object, secret: object) -> None:
    """A kubectl that answers `get` with what it is given, and refuses what is None."""
    for kind, answer in (("trainingjobs", job), ("secret", secret)):
        if answer is not None:
            (tmp_path / kind).write_text(json.dumps(answer))
    script = tmp_path / "kubectl"
    script.write_text(
        f'#!/bin/sh\nwhile [ "$1" != get ]; do shift; done\n'
        f'cat {tmp_path}/$2 2>/dev/null || {{ echo "Error from server (NotFound): $2 $3" >&2; exit 1; }}\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


SECRET = {"data": {"ray-key": base64.b64encode(b"k").decode()}}


def test_token_is_that_of_the_current_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl(tmp_path, monkeypatch, {"status": {"attempt": 3}}, SECRET)
    attempt = current_attempt("digits", "team")
    assert attempt_token("digits", attempt, "team") == ray_token("k", 3)


def test_no_attempt_no_secret_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl(tmp_path, monkeypatch, {}, SECRET)
    assert main(["dashboard", "digits"]) == 2
    assert "no attempt yet" in capsys.readouterr().err
    kubectl(tmp_path, monkeypatch, {"status": {"attempt": 1}}, None)
    (tmp_path / "secret").unlink()
    assert main(["dashboard", "digits"]) == 2
    assert "digits-run" in capsys.readouterr().err


def test_forward_goes_to_the_head_of_the_current_attempt() -> None:
    assert forward_command("digits", 3, None) == ["kubectl", "port-forward", "pod/digits-3-head", "8265"]
    assert forward_command("digits", 3, "team")[1:3] == ["--namespace", "team"]
    assert forward_command("digits", 3, None, "prod")[1:3] == ["--context", "prod"]
