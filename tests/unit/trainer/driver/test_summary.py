"""What is printed at the end of a run."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console
from trainmaster_api.layout import Pointer
from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.driver.summary import command, print_complete, print_failed
from trainmaster_trainer.storage.store import Store


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def console(out: io.StringIO) -> Console:
    return Console(file=out, highlight=False, soft_wrap=True, markup=False, emoji=False)


def test_commands_are_named_as_the_shell_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(sys.executable).parent.resolve()
    monkeypatch.setattr(sys, "executable", str(here / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(here))
    assert command("trainmaster") == "trainmaster"
    monkeypatch.setenv("PATH", "/nowhere")
    assert command("trainmaster") == str(here / "trainmaster")
    monkeypatch.chdir(here.parent)
    assert command("trainmaster") == "bin/trainmaster"
    stranger = tmp_path / "trainmaster"
    stranger.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command("trainmaster") == "bin/trainmaster", "another one of that name comes first"


def test_a_complete_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, console: Console, out: io.StringIO) -> None:
    monkeypatch.chdir(tmp_path)
    run = Store(str(tmp_path / "trainmaster-runs/default/digits/x"))
    run.put("LATEST", Pointer(attempt=1, step=1200).model_dump_json().encode())
    run.put("report/test-metrics.json", json.dumps({"metrics": {"test/accuracy": 0.98}}).encode())
    database = f"sqlite:///{tmp_path}/my runs/mlflow.db"
    record = {"run_id": "r1", "url": database, "view": f"mlflow ui --backend-store-uri '{database}'"}
    run.put("trackers/mlflow.json", json.dumps(record).encode())
    run.put("trackers/Csv.json", json.dumps({"url": "https://x/1", "run_id": "7"}).encode())
    print_complete(console, run, ["mlflow", "Csv"], "my job.yaml", 200)
    text = " ".join(out.getvalue().split())
    assert "complete 1200 steps in 3m20s" in text
    assert "model trainmaster-runs/default/digits/x/model" in text
    assert "mlflow run r1 " in text
    assert "Csv run 7 at https://x/1" in text
    assert "mlflow ui --backend-store-uri 'sqlite:///my runs/mlflow.db'" in text
    assert "kubectl apply -f 'my job.yaml'" in text


def test_a_failed_run(console: Console, out: io.StringIO) -> None:
    message = ExitMessage(
        outcome=Outcome.FAILED, failure_class=FailureClass.DATA_ERROR, rank=1, message="row 3 [/x]", last_lines=["[b]"]
    )
    print_failed(console, message)
    assert out.getvalue() == "failed: DataError (rank 1)\nrow 3 [/x]\n  [b]\nnext: fix what the message names\n"
