"""The end of a run: which weights are evaluated and packaged, by whom, and that an older attempt leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch import Tensor
from trainmaster_api.layout import FENCE, MODEL, TEST_METRICS
from trainmaster_api.messages import Outcome
from trainmaster_trainer.backends.torch.builder import Setup, build, gather_ranks
from trainmaster_trainer.backends.torch.finish import finish
from trainmaster_trainer.backends.torch.recorder import Recorder
from trainmaster_trainer.context import ReportKind
from trainmaster_trainer.errors import Fenced

from tests.unit.trainer.harness import Recording, make_context, run_store, small_job, spawn


def trained(root: Path, recording: Recording | None = None, *, rank: int = 0, world_size: int = 1) -> Setup:
    """A model that was never trained, whose run is said to be over after 9 steps."""
    setup = build(make_context(small_job(), root, rank=rank, world_size=world_size, recording=recording))
    setup.step = 9
    return setup


def fill(setup: Setup, value: float) -> None:
    with torch.no_grad():
        for parameter in setup.model.parameters():
            parameter.fill_(value)


def packaged(root: Path) -> dict[str, Tensor]:
    return load(run_store(small_job(), root).get(f"{MODEL}/model.safetensors") or b"")


def test_finish_packages_the_best_and_not_the_newest(tmp_path: Path) -> None:
    setup = trained(tmp_path)
    with Recorder(setup) as recorder:
        recorder.resume()
        for step, value, loss in ((3, 0.25, 0.1), (9, 0.75, 0.9)):
            setup.step = step
            fill(setup, value)
            metrics = {"val/loss": loss}
            if recorder.is_best(metrics):
                recorder.keep(gather_ranks(setup), metrics)
            recorder.save(gather_ranks(setup), metrics, wait=True)
        result = finish(setup, recorder)
    assert all(bool((tensor == 0.25).all()) for tensor in packaged(tmp_path).values())
    report = json.loads(run_store(small_job(), tmp_path).get(TEST_METRICS) or b"")
    assert report == {"step": 3, "rows": len(setup.data.test), "metrics": result.test_metrics}
    assert (result.outcome, result.step) == (Outcome.COMPLETE, 9), "the run itself ended at its last step"


def test_finish_without_a_best_packages_the_last(tmp_path: Path) -> None:
    recording = Recording()
    setup = trained(tmp_path, recording)
    fill(setup, 0.5)
    with Recorder(setup) as recorder:
        recorder.resume()
        result = finish(setup, recorder)
    assert all(bool((tensor == 0.5).all()) for tensor in packaged(tmp_path).values())
    assert json.loads(run_store(small_job(), tmp_path).get(TEST_METRICS) or b"")["step"] == 9
    assert result.model_uri.endswith(f"/{MODEL}")
    assert recording.reports[-1].kind is ReportKind.DONE
    assert {name.partition("/")[0] for name in result.test_metrics} == {"test"}


def test_finish_of_an_older_attempt_writes_nothing(tmp_path: Path) -> None:
    setup, store = trained(tmp_path), run_store(small_job(), tmp_path)
    with Recorder(setup) as recorder:
        recorder.resume()
        store.put(FENCE, b"9")
        with pytest.raises(Fenced, match="attempt 9 has claimed this run"):
            finish(setup, recorder)
    assert store.get(TEST_METRICS) is None
    assert [path for path, _ in store.list(MODEL)] == []


def finish_on(rank: int, world_size: int, root: Path) -> None:
    """Rank 1's weights and data are its own; what counts is rank 0's, and the figures are the same on both."""
    recording = Recording()
    setup = trained(root, recording, rank=rank, world_size=world_size)
    fill(setup, 0.5 if rank == 0 else -3.0)
    with Recorder(setup) as recorder:
        if rank == 0:
            recorder.resume()
        result = finish(setup, recorder)
    assert all(bool((parameter == 0.5).all()) for parameter in setup.model.parameters())
    assert [report.kind for report in recording.reports] == (
        [ReportKind.RESUMED, ReportKind.DONE] if rank == 0 else []
    ), "rank 0 speaks for all"
    assert bool(result.model_uri) is (rank == 0)
    (root / f"{rank}.json").write_text(json.dumps(result.test_metrics))


def test_finish_ranks_agree_and_one_writes(tmp_path: Path) -> None:
    spawn(2, finish_on, tmp_path)
    assert (tmp_path / "0.json").read_text() == (tmp_path / "1.json").read_text()
    assert all(bool((tensor == 0.5).all()) for tensor in packaged(tmp_path).values())
