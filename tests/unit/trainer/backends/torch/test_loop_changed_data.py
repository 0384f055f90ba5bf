"""A run whose data has changed: it is refused before anything is trained or written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from trainmaster_api.layout import FINGERPRINT, Fingerprint
from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.backends.torch import builder
from trainmaster_trainer.context import ReportKind
from trainmaster_trainer.data import identity
from trainmaster_trainer.errors import DataChanged, DataError, TrainingError

from tests.unit.trainer.harness import Recording, make_context, run_store, small_job, spawn, train

HEAD = "a,b,cls\n"
ROWS = [f"{i % 7},{i % 5},{int(i % 7 > 3)}\n" for i in range(200)]


def job_of(duration: str = "40ep", **data: Any) -> TrainingJob:
    return small_job(
        {
            "spec.training.task.numClasses": 2,
            "spec.training.data": {"source": "data.csv", "target": "cls", "batchSize": 32, **data},
            "spec.training.loop": {"duration": duration, "seed": 3},
        }
    )


def write(root: Path, rows: list[str]) -> None:
    (root / "data.csv").write_text(HEAD + "".join(rows))


def content(job: TrainingJob, root: Path) -> dict[str, bytes | None]:
    store = run_store(job, root)
    return {path: store.get(path) for path, _ in store.list()}


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run that was stopped on the way."""
    write(tmp_path, ROWS)
    result = train(job_of(), tmp_path, recording=Recording(stop_at=5))
    assert result.outcome is Outcome.STOPPED
    return tmp_path


def test_fingerprint_is_stored_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, ROWS)
    found: list[bytes | None] = []

    def first_step(*_: object) -> None:
        found.append(run_store(job_of(), tmp_path).get(FINGERPRINT))
        raise KeyboardInterrupt

    monkeypatch.setattr("trainmaster_trainer.backends.torch.loop.train_step", first_step)
    with pytest.raises(KeyboardInterrupt):
        train(job_of(), tmp_path)
    (stored,) = found
    assert stored is not None
    assert Fingerprint.model_validate_json(stored).size == len(HEAD) + 200 * len(ROWS[0])


def test_fingerprint_is_reported_once_accepted(stopped: Path) -> None:
    stored = run_store(job_of(), stopped).get(FINGERPRINT)
    assert stored is not None
    recording = Recording(stop_at=6)
    train(job_of(), stopped, attempt=2, recording=recording)
    (resumed,) = [report for report in recording.reports if report.kind is ReportKind.RESUMED]
    assert resumed.fingerprint == json.loads(stored)["digest"][:12] != ""
    write(stopped, ROWS[1:])
    refused = Recording()
    with pytest.raises(DataChanged):
        train(job_of(), stopped, attempt=3, recording=refused)
    assert not [report for report in refused.reports if report.fingerprint]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*ROWS, "1,1,0\n"], "data.csv: 1,214 bytes, before 1,208; 202 lines, before 201"),
        ([*ROWS[:17], "9,9,1\n", *ROWS[18:]], "data.csv: other content, 1,208 bytes; 201 lines; line 19 differs"),
    ],
    ids=["appended", "corrected"],
)
def test_resume_on_changed_data_is_refused(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, rows: list[str], said: str
) -> None:
    write(stopped, rows)
    before = content(job_of(), stopped)
    with monkeypatch.context() as patch:
        patch.setattr("trainmaster_trainer.backends.torch.loop.train_step", lambda _: pytest.fail("a step"))
        with pytest.raises(DataChanged) as caught:
            train(job_of(), stopped, attempt=2)
    assert str(caught.value) == (
        f"the data has changed since this run began ({said}); nothing was trained on it"
    )  # fmt: skip
    assert caught.value.failure_class is FailureClass.DATA_CHANGED
    assert content(job_of(), stopped) == before, "nothing of the run was touched"
    write(stopped, ROWS)
    assert train(job_of(), stopped, attempt=2).outcome is Outcome.COMPLETE, "restored, it is resumed"


def test_change_is_found_before_its_consequences(stopped: Path) -> None:
    """Without the target column, and without the file, the class would be DataError."""
    (stopped / "data.csv").write_text("a,b\n1,1\n")
    with pytest.raises(DataChanged, match=r"data\.csv: 8 bytes, before 1,208"):
        train(job_of(), stopped, attempt=2)
    (stopped / "data.csv").unlink()
    with pytest.raises(DataChanged, match=r"data\.source data\.csv: no such file"):
        train(job_of(), stopped, attempt=2)
    with pytest.raises(DataError):
        train(job_of(), stopped / "another", attempt=1)


def test_extension_on_changed_data_is_refused(tmp_path: Path) -> None:
    write(tmp_path, ROWS)
    assert train(job_of("2ep"), tmp_path).outcome is Outcome.COMPLETE
    write(tmp_path, ROWS[:-1])
    with pytest.raises(DataChanged, match="200 lines, before 201"):
        train(job_of("4ep"), tmp_path, attempt=2)


def test_attempt_that_began_meanwhile_decides(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was stored when this attempt looked first, and when it has claimed the run there is."""
    monkeypatch.setattr(identity, "stored", lambda _: None)
    write(stopped, [*ROWS, "1,1,0\n"])
    with pytest.raises(DataChanged, match="202 lines, before 201"):
        train(job_of(), stopped, attempt=2)


@pytest.mark.parametrize("left", [None, b"{"], ids=["none", "torn"])
def test_run_without_a_fingerprint_says_so_and_has_one_then(stopped: Path, left: bytes | None) -> None:
    store = run_store(job_of(), stopped)
    store.delete(FINGERPRINT)
    if left is not None:
        store.put(FINGERPRINT, left)
    recording = Recording()
    train(job_of(), stopped, attempt=2, recording=recording)
    assert "whether the data has changed since is unknown" in warnings(recording)
    recording = Recording()
    train(job_of(), stopped, attempt=3, recording=recording)
    assert "whether the data has changed" not in warnings(recording)


def warnings(recording: Recording) -> str:
    return "; ".join(report.message for report in recording.reports if report.kind is ReportKind.WARNING)


OWN = """
class Rows:
    def __init__(self):{attribute}
        pass
    def __len__(self): return 200
    def __getitem__(self, i): return [float(i % 7), float(i % 5)], int(i % 7 > 3)
"""


def own(root: Path, attribute: str) -> TrainingJob:
    (root / "own_rows.py").write_text(OWN.format(attribute=f"\n        {attribute}"))
    return small_job(
        {
            "spec.training.task.numClasses": 2,
            "spec.training.data": {"class": "own_rows:Rows", "batchSize": 32},
            "spec.training.loop": {"duration": "2ep", "seed": 3},
        }
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def forget() -> Any:
    """What one process imports once, a job imports in a process of its own."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    yield
    sys.dont_write_bytecode = before
    sys.modules.pop("own_rows", None)


def again(root: Path, attribute: str) -> str:
    """Train as another attempt of the run under this folder; the warnings."""
    sys.modules.pop("own_rows", None)
    recording = Recording()
    train(own(root, attribute), root, attempt=2, recording=recording)
    return warnings(recording)


def test_own_dataset_has_the_fingerprint_that_it_says(tmp_path: Path) -> None:
    recording = Recording()
    train(own(tmp_path, 'self.fingerprint = "v1"'), tmp_path, recording=recording)
    assert warnings(recording) == ""
    assert again(tmp_path, 'self.fingerprint = "v1"') == ""
    with pytest.raises(DataChanged, match=r"\(own_rows:Rows: v2, before v1\)"):
        again(tmp_path, 'self.fingerprint = "v2"')
    with pytest.raises(DataChanged, match=r"\(own_rows:Rows: no fingerprint, before v1\)"):
        again(tmp_path, "")


def test_own_dataset_without_one_says_so_once(tmp_path: Path) -> None:
    recording = Recording()
    train(own(tmp_path, ""), tmp_path, recording=recording)
    assert warnings(recording).startswith("own_rows:Rows has no fingerprint of its data (a text attribute")
    assert again(tmp_path, "") == ""


# -- several ranks ----------------------------------------------------------------------------------------------------
def refused(rank: int, world_size: int, root: Path) -> None:
    try:
        builder.build(make_context(job_of(), root, attempt=2, rank=rank, world_size=world_size))
    except TrainingError as error:
        (root / f"rank-{rank}").write_text(f"{error.failure_class}: {error}")


def test_every_rank_ends_with_rank_0_s_decision(stopped: Path) -> None:
    write(stopped, ROWS[:-1])
    spawn(2, refused, stopped)
    said = {(stopped / f"rank-{rank}").read_text() for rank in (0, 1)}
    assert len(said) == 1
    assert said.pop().startswith("DataChanged: the data has changed since this run began (data.csv: ")
