"""Which run a file means, without starting one; and what a person is shown."""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from trainmaster_trainer.driver import local
from trainmaster_trainer.driver.local import LocalRun, Refused
from trainmaster_trainer.export import package
from trainmaster_trainer.reporting.console import PlainDisplay, RichDisplay, metrics_text, seconds_text
from trainmaster_trainer.reporting.events import Keeper
from trainmaster_trainer.storage.store import Store

EXAMPLE = Path(__file__).parents[4] / "examples/digits/trainingjob.yaml"


def options(**more: Any) -> argparse.Namespace:
    return argparse.Namespace(
        **{"file": "job.yaml", "storage": None, "mlflow": None, "workers": None, "fresh": False, "plain": True, **more}
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write()
    return tmp_path


def write(**loop: Any) -> None:
    job = yaml.safe_load(EXAMPLE.read_text())
    job["spec"]["training"]["loop"] |= loop
    Path("job.yaml").write_text(yaml.safe_dump(job))


def identified(**more: Any) -> LocalRun:
    run = LocalRun(options(**more))
    run.identify()
    return run


def test_the_same_file_means_the_same_run() -> None:
    first = identified()
    assert len(first.uid) == 12
    assert identified().uid == first.uid
    assert first.job.metadata.uid == first.uid
    assert first.run.uri == str(Path("trainmaster-runs/default/digits").absolute() / first.uid)


def test_a_changed_file_says_what_changed() -> None:
    identified()
    write(seed=43)
    with pytest.raises(Refused, match=r"training\.loop\.seed: 42 -> 43") as found:
        identified()
    assert "--fresh" in str(found.value)


def test_other_workers_are_another_run() -> None:
    identified()
    with pytest.raises(Refused, match="workers: 2 -> 1"):
        identified(workers=1)


def test_workers_that_the_batch_size_forbids() -> None:
    with pytest.raises(Refused, match="batchSize"):
        LocalRun(options(workers=3))


def test_fresh_never_takes_an_old_directory() -> None:
    uids = [identified().uid, identified(fresh=True).uid, identified(fresh=True).uid]
    write(seed=43)
    uids.append(identified(fresh=True).uid)
    write(seed=42)
    uids.append(identified(fresh=True).uid)
    assert len(set(uids)) == 5, uids
    assert identified().uid == uids[-1]


def test_storage_of_the_file() -> None:
    with pytest.raises(Refused, match=r"spec\.storage\.uri"):
        LocalRun(options(storage="spec"))
    assert LocalRun(options(storage="s3://bucket/x")).storage_uri == "s3://bucket/x"
    assert LocalRun(options(storage="here")).storage_uri == str(Path("here").absolute())


def test_mlflow_is_a_file_beside_the_runs() -> None:
    assert LocalRun(options())._mlflow()[0] == f"sqlite:///{Path('trainmaster-runs/mlflow.db').absolute()}"
    assert LocalRun(options(mlflow="off"))._mlflow() == ("", "")
    assert LocalRun(options(mlflow="http://x"))._mlflow() == ("http://x", "")
    with pytest.raises(Refused, match=r"tracking\.mlflow\.uri"):
        LocalRun(options(mlflow="spec"))._mlflow()


def test_complete_is_when_the_model_s_last_file_is_there() -> None:
    run = identified()
    assert not run.is_complete()
    run.run.put(local.MODEL_END, b"{}")
    assert run.is_complete()
    assert f"model/{package.DATA}" == local.MODEL_END, "package() writes this one last"


def test_a_complete_run_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    run = identified()
    run.run.put(local.MODEL_END, b"{}")
    run.run.put("report/test-metrics.json", json.dumps({"metrics": {"test/accuracy": 0.98}}).encode())
    assert local.main(options()) == 0
    out = capsys.readouterr().out
    assert "test/accuracy 0.9800" in out
    assert "--fresh" in out
    assert "kubectl apply -f job.yaml" in out


def test_commands_are_named_as_the_shell_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(here))
    assert local._command("trainmaster") == "trainmaster"
    monkeypatch.setenv("PATH", "/nowhere")
    assert local._command("trainmaster") == str(here / "trainmaster")
    monkeypatch.chdir(here.parent)
    assert local._command("trainmaster") == "bin/trainmaster"
    stranger = tmp_path / "trainmaster"
    stranger.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local._command("trainmaster") == "bin/trainmaster", "another one of that name comes first"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.4, "0s"), (59.4, "59s"), (200, "3m20s"), (3900, "1h05m"), (59.6, "1m00s")]
)
def test_seconds(seconds: float | None, text: str) -> None:
    assert seconds_text(seconds) == text


def test_metrics_that_there_are() -> None:
    assert metrics_text({"val/loss": 0.12345}, ["train/loss", "val/loss"]) == "val/loss 0.1235"


def report(kind: str, step: int = 5, **more: Any) -> dict[str, Any]:
    base = {"event": "report", "seconds": 3.0, "kind": kind, "step": step, "total_steps": 10, "epoch": 1}
    return {**base, "eta_seconds": 7.0, "metrics": {"val/loss": 0.5}, "message": "", **more}


EVENTS = [
    {"event": "ray_ready", "seconds": 1.0},
    report("Resumed"),
    {"event": "state", "state": "Training", "seconds": 2.0, "message": ""},
    report("Validation"),
    report("Checkpoint"),
    report("Warning", message="checkpoint a1-step-5 is torn"),
    {"event": "state", "state": "Recovering", "seconds": 4.0, "message": "the process of rank 1 is gone"},
    {"event": "warning", "message": "MLflow is away", "seconds": 5.0},
    {"event": "mlflow", "run_id": "r1", "uri": "u", "seconds": 5.0},
    {"event": "leaving", "pod": "w-1", "seconds": 5.0},
    {"event": "result", "outcome": "Complete", "seconds": 6.0},
]
SHOWN = ["goes on from step 5", "torn", "rank 1 is gone", "MLflow is away", "r1", "w-1 is told to end"]


def test_plain_lines() -> None:
    stream = io.StringIO()
    display = PlainDisplay("val/loss", stream)
    for event in EVENTS:
        display.show(event)
    for words in [*SHOWN, "step 5/10  epoch 1  val/loss 0.5000  ETA 7s"]:
        assert words in stream.getvalue()


def test_a_terminal() -> None:
    stream = io.StringIO()
    display = RichDisplay("val/loss", Console(file=stream, force_terminal=True, width=100))
    for event in EVENTS:
        display.show(event)
    display._progress.refresh()
    display.close()
    for words in [*SHOWN, "5/10"]:
        assert words in stream.getvalue()


def test_events_of_earlier_attempts_stay(tmp_path: Path) -> None:
    store, log = Store(str(tmp_path / "run")), tmp_path / "log"
    log.write_text("printed\n")
    for attempt in (1, 2):
        keeper = Keeper(store, attempt, "pod-x", str(log))
        keeper.show({"event": "state", "state": "Training"})
        keeper.show(report("Step"))
        keeper.close()
    lines = [json.loads(line) for line in (store.get("events.jsonl") or b"").splitlines()]
    assert [(line["attempt"], line["event"]) for line in lines] == [(1, "state"), (2, "state")], "steps are not kept"
    assert store.get("logs/a2/pod-x.log") == b"printed\n"
