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


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed environment with our program in it, whose interpreter is the one that runs."""
    programs = tmp_path / "env" / "bin"
    programs.mkdir(parents=True)
    (programs / "trainmaster").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return programs


def test_command_name_only_where_the_shell_finds_it(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(environment))
    assert command("trainmaster") == "trainmaster"


def test_command_path_where_the_shell_does_not_find_it(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert command("trainmaster") == str(environment / "trainmaster")
    monkeypatch.chdir(environment.parent)
    assert command("trainmaster") == "bin/trainmaster"


def test_command_path_where_another_one_comes_first(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trainmaster").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{environment}")
    monkeypatch.chdir(environment.parent)
    assert command("trainmaster") == "bin/trainmaster"


def test_command_name_where_the_environment_is_a_link(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(environment.parent)
    monkeypatch.setenv("PATH", str(tmp_path / "link" / "bin"))
    assert command("trainmaster") == "trainmaster"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "link" / "bin" / "python"))
    monkeypatch.setenv("PATH", str(environment))
    assert command("trainmaster") == "trainmaster"


def test_print_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, console: Console, out: io.StringIO) -> None:
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


def test_print_failed(console: Console, out: io.StringIO) -> None:
    message = ExitMessage(
        outcome=Outcome.FAILED, failure_class=FailureClass.DATA_ERROR, rank=1, message="row 3 [/x]", last_lines=["[b]"]
    )
    print_failed(console, message)
    assert out.getvalue() == "failed: DataError (rank 1)\nrow 3 [/x]\n  [b]\nnext: fix what the message names\n"


def test_search_says_its_best_trial_and_its_cost(tmp_path: Path, console: Console, out: io.StringIO) -> None:
    best = {"number": 4, "values": {"optimizer.lr": 0.01234}, "objectives": [0.98]}
    result = {
        "trials": [best],
        "why": "all 1 trials have been run",
        "best": best,
        "gpuHours": {"used": 3.25, "saved": 0},
    }
    run = Store(str(tmp_path))
    run.put("tuning/result.json", json.dumps(result).encode())
    print_complete(console, run, [], "job.yaml", 10)
    assert "4: 0.98 with optimizer.lr 0.01234" in out.getvalue()
    assert "3.25 GPU-hours  " in out.getvalue()
