"""`trainmaster run` up to the start of its driver: what it takes, what it refuses, what it leaves untouched."""

from __future__ import annotations

import argparse
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.layout import Fingerprint
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.tracking import Mlflow, Tracker
from trainmaster_trainer.data.fingerprint import take
from trainmaster_trainer.data.identity import settle
from trainmaster_trainer.driver import local
from trainmaster_trainer.driver.identity import Refused, record_path
from trainmaster_trainer.driver.local import LocalRun
from trainmaster_trainer.export import package

from tests.factories import REMOVE, Changes, load_example, parse

CSV = {"class": "my_pkg:Csv"}


def options(**more: Any) -> argparse.Namespace:
    defaults = {
        "file": "job.yaml", "storage": None, "tracking": "local", "trackers": [], "workers": None, "fresh": False,
        "plain": True,
    }  # fmt: skip
    return argparse.Namespace(**{**defaults, **more})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(tracking: list[Any] | None = None, **loop: Any) -> TrainingJob:
    changes: Changes = {f"spec.training.loop.{key}": value for key, value in loop.items()}
    if tracking is not None:
        changes["spec.tracking"] = tracking
    return parse(load_example("digits", changes))


def identified(job: TrainingJob | None = None, **more: Any) -> LocalRun:
    run = LocalRun(options(**more), job or loaded())
    run.identify()
    run.note()
    return run


def test_the_same_file_means_the_same_run(folder: Path) -> None:
    first = identified()
    assert identified().identity.uid == first.identity.uid == first.job.metadata.uid
    assert first.run.uri == f"{folder}/trainmaster-runs/default/digits/{first.identity.uid}"
    with pytest.raises(Refused, match="seed: 42 -> 43"):
        identified(loaded(seed=43))


def test_two_spellings_of_a_place_mean_the_same_run(folder: Path) -> None:
    first = identified(storage="here")
    for other in ("here/", "./here", f"{folder}/here", f"file://{folder}/here/"):
        assert identified(storage=other).run.uri == first.run.uri


def test_identify_writes_nothing(folder: Path) -> None:
    LocalRun(options(), loaded())
    assert list(folder.iterdir()) == []


def test_workers_that_the_batch_size_forbids() -> None:
    with pytest.raises(Refused, match=r"with --workers 3: .*batchSize"):
        LocalRun(options(workers=3), loaded())
    assert LocalRun(options(workers=1), loaded()).workers == 1


def test_complete_is_when_the_model_s_last_file_is_there() -> None:
    run = identified()
    assert not run.is_complete()
    run.run.put(local.MODEL_END, b"{}")
    assert run.is_complete()
    assert f"model/{package.DATA}" == local.MODEL_END, "package() writes this one last"


def test_a_complete_run_that_is_made_longer_is_not_complete() -> None:
    run = identified(loaded(duration="30ep"))
    run.run.put(local.MODEL_END, b"{}")
    assert run.is_complete()
    longer = identified(loaded(duration="40ep"))
    assert longer.run.uri == run.run.uri
    assert not longer.is_complete()
    assert not identified(loaded(duration="40ep")).is_complete(), "not before it has been trained"
    longer._write_record(longer.identity.completed())
    assert identified(loaded(duration="40ep")).is_complete()


def test_a_complete_run_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    run = identified()
    run.run.put(local.MODEL_END, b"{}")
    run.run.put("report/test-metrics.json", json.dumps({"metrics": {"test/accuracy": 0.98}}).encode())
    assert local.main(options(), loaded()) == 0
    out = capsys.readouterr().out
    assert "test/accuracy 0.9800" in out
    assert "--fresh    # start a new run instead" in out
    assert "kubectl apply -f job.yaml" in out


# -- data that has changed --------------------------------------------------------------------------------------------
ROWS = "a,b,cls\n" + "".join(f"{i % 7},{i % 5},{int(i % 7 > 3)}\n" for i in range(64))


def table(**loop: Any) -> TrainingJob:
    data = {"spec.training.data": {"source": "data.csv", "target": "cls", "batchSize": 32}}
    task = {"spec.training.task.numClasses": 2, "spec.training.model": {"name": "mlp", "args": {"hidden": [8]}}}
    return parse(load_example("digits", {**data, **task, **{f"spec.training.loop.{k}": v for k, v in loop.items()}}))


def trained(folder: Path, *, is_complete: bool) -> LocalRun:
    """A run as its ranks leave it."""
    (folder / "data.csv").write_text(ROWS)
    run = identified(table())
    settle(run.run, take(run.job, folder, {}), is_resumed=False)
    if is_complete:
        run.run.put(local.MODEL_END, b"{}")
    return run


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs that were started; in place of a driver."""
    runs: list[str] = []
    monkeypatch.setattr(LocalRun, "start", lambda run: runs.append(run.identity.uid) or 0)
    return runs


def test_a_complete_run_on_changed_data_is_not_called_complete(
    folder: Path, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(folder, is_complete=True)
    os.utime(folder / "data.csv", (1, 1))
    assert local.main(options(), table()) == 0, "only touched"
    assert "complete" in capsys.readouterr().out
    (folder / "data.csv").write_text(ROWS.replace("3,3,0", "3,3,1", 1))
    assert local.main(options(), table()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    first, *changes, state, way_out = said.err.splitlines()
    assert first == "trainmaster: DataChanged: the data of job.yaml has changed since its run began:"
    assert changes == ["  data.csv: other content, 392 bytes; 65 lines; line 5 differs"]
    model = f"trainmaster-runs/default/digits/{run.identity.uid}/model"
    assert state == f"nothing was trained; the run is complete; its model, trained on the data as it was, is in {model}"
    assert "run job.yaml --fresh" in way_out
    assert started == []
    assert local.main(options(fresh=True), table()) == 0
    assert started == [f"{run.identity.uid}-2"], "the way out leads out"


def test_a_run_on_changed_data_is_not_continued(
    folder: Path, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    trained(folder, is_complete=False)
    (folder / "data.csv").write_text(ROWS + "1,1,0\n")
    assert local.main(options(), table()) == 2
    said = capsys.readouterr().err
    assert "  data.csv: 398 bytes, before 392; 66 lines, before 65\n" in said
    assert "the run is not continued" in said
    (folder / "data.csv").unlink()
    assert local.main(options(), table()) == 2
    assert "  data.source data.csv: no such file" in capsys.readouterr().err
    assert started == []
    (folder / "data.csv").write_text(ROWS)
    assert local.main(options(), table()) == 0
    assert len(started) == 1


def test_a_longer_run_on_changed_data_is_not_noted(folder: Path, started: list[str]) -> None:
    """Restored, the run is as complete as before, and not longer."""
    run = trained(folder, is_complete=True)
    record = run.store.get(record_path(run.job))
    (folder / "data.csv").write_text(ROWS + "1,1,0\n")
    longer = table(duration="90ep")
    assert local.main(options(), longer) == 2
    assert run.store.get(record_path(run.job)) == record
    (folder / "data.csv").write_text(ROWS)
    assert local.main(options(), longer) == 0
    assert started == [run.identity.uid]


def test_a_complete_run_that_cant_be_compared_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    run = identified()
    run.run.put(local.MODEL_END, b"{}")
    assert local.main(options(), loaded()) == 0
    assert "data has changed since is unknown: the run has no fingerprint of its data" in capsys.readouterr().out
    settle(run.run, Fingerprint(source="my_pkg:Rows"), is_resumed=False)
    assert local.main(options(), loaded()) == 0
    assert "unknown: my_pkg:Rows is not compared until the run is continued" in capsys.readouterr().out


def test_messages_may_hold_brackets_and_colons(capsys: pytest.CaptureFixture[str]) -> None:
    """They look like markup to the library that prints them, which raised for a closing tag."""
    LocalRun(options(), loaded()).console.print("features[0] [/mnt/x] [bold] :x:")
    assert capsys.readouterr().out == "features[0] [/mnt/x] [bold] :x:\n"


# -- trackers ---------------------------------------------------------------------------------------------------------
def tracking(job: TrainingJob, **more: Any) -> list[dict[str, Any]]:
    return [entry.wire() for entry in LocalRun(options(**more), job).tracking]


def test_trackers_keep_their_data_beside_the_runs(folder: Path) -> None:
    database = f"sqlite:///{folder}/trainmaster-runs/mlflow.db"
    assert tracking(loaded()) == [{"mlflow": {"uri": database}}]
    assert tracking(loaded([{"mlflow": {"uri": "http://cluster", "experiment": "e"}}, CSV])) == [
        {"mlflow": {"uri": database, "experiment": "e"}},
        CSV,
    ]
    assert tracking(loaded([])) == []
    assert tracking(loaded(), storage="/mnt/x") == [{"mlflow": {"uri": "sqlite:////mnt/x/mlflow.db"}}]


def test_trackers_of_the_file() -> None:
    job = loaded([{"mlflow": {"uri": "http://cluster"}}, CSV])
    assert tracking(job, tracking="spec") == [{"mlflow": {"uri": "http://cluster"}}, CSV]
    with pytest.raises(Refused, match=r"--tracking spec: the file has no spec\.tracking\[0\]\.mlflow\.uri"):
        tracking(loaded(), tracking="spec")
    with pytest.raises(Refused, match=r"the file has no spec\.tracking; add it"):
        tracking(loaded([]), tracking="spec")
    assert tracking(job, tracking="off") == []


def test_tracking_option_replaces_the_file_s_server() -> None:
    server = [Tracker(mlflow=Mlflow(uri="http://mine"))]
    found = tracking(loaded([{"mlflow": {"uri": "http://cluster", "experiment": "e"}}, CSV]), trackers=server)
    assert found == [CSV, {"mlflow": {"uri": "http://mine", "experiment": "e"}}]
    assert tracking(loaded([]), trackers=server) == [{"mlflow": {"uri": "http://mine"}}]


# -- places that can't be written -------------------------------------------------------------------------------------
@pytest.fixture
def read_only(folder: Path) -> Path:
    """The working directory, with nothing that root's privileges could write into it either."""
    place = folder / "read-only"
    place.mkdir()
    os.chdir(place)
    return place


def test_storage_elsewhere_leaves_the_working_directory_empty(
    read_only: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr(LocalRun, "_lead", lambda run, settings, *_: started.append(settings) or (_stopped(), 0.0))
    read_only.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert local.main(options(storage=str(folder / "elsewhere")), loaded()) == 75
    read_only.chmod(stat.S_IRWXU)
    assert list(read_only.iterdir()) == []
    (settings,) = started
    assert settings.storage_uri == str(folder / "elsewhere")
    assert str(read_only) not in json.dumps(settings.tracking)


def _stopped() -> Any:
    return local.ExitMessage(outcome=local.Outcome.STOPPED, message="saved at step 5 and stopped")


def test_resume_command_can_be_typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(LocalRun, "_lead", lambda *_: (_stopped(), 0.0))
    assert local.main(options(file="my job.yaml"), loaded()) == 75
    assert capsys.readouterr().out.rstrip().endswith("trainmaster run 'my job.yaml'")


@pytest.mark.parametrize(
    ("cpus", "workers", "expected"), [(None, 1, None), ("2", 1, 2.0), ("500m", 2, 0.5), ("3", 2, 2.0), ("8", 8, 1.0)]
)
def test_cores_are_those_that_the_file_declares(
    monkeypatch: pytest.MonkeyPatch, cpus: str | None, workers: int, expected: float | None
) -> None:
    """As far as this machine has them."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(4)))
    declared = {"spec.cluster.workers": {"count": workers} | ({"cpus": cpus} if cpus else {})}
    job = parse(load_example("digits", {"spec.cluster.workers": REMOVE}, declared))
    assert identified(job, workers=None)._worker_cpus() == expected


def test_run_folder_is_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "trainmaster-runs").write_text("")
    assert local.main(options(), loaded()) == 2
    err = capsys.readouterr().err
    assert "trainmaster-runs: a file is where a directory should be" in err
    assert "--storage DIRECTORY stores results elsewhere" in err
    assert "Traceback" not in err


def test_run_folder_on_a_full_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> Path:
        raise OSError(28, "No space left on device", "/tmp/tm-x")

    monkeypatch.setattr(local, "short_scratch", full)
    assert local.main(options(), loaded()) == 2
    assert capsys.readouterr().err == "trainmaster: /tmp/tm-x: no space left on device\n"


def test_a_wrong_address_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert local.main(options(storage="s3://bucket//x"), loaded()) == 2
    assert capsys.readouterr().err == (
        'trainmaster: --storage "s3://bucket//x" contains `//`, an empty path segment: write one slash\n'
    )
