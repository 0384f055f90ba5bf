"""What is known of a search: for the status while it runs, and for storage when it is over."""

from __future__ import annotations

from typing import Any

from trainmaster_api.messages import TuningProgress
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.tuning.study import Study
from trainmaster_trainer.tuning.trials import TrialEnd


def progress_of(study: Study, job: TrainingJob, *, is_over: bool) -> TuningProgress:
    """Return how many trials there are of each kind, and the best."""
    tuning = job.spec.tuning
    assert tuning is not None
    best, ends = study.best(), [each.end for each in study.trials()]
    hours = _gpu_hours(study, job)
    return TuningProgress(
        total=study.max_trials,
        running=ends.count(None),
        complete=ends.count(TrialEnd.COMPLETE),
        pruned=sum(ends.count(each) for each in (TrialEnd.PRUNED, TrialEnd.DIVERGED, TrialEnd.OUT_OF_MEMORY)),
        failed=ends.count(TrialEnd.FAILED),
        best=best.objectives[0] if best is not None else None,
        best_trial=best.number if best is not None else None,
        metric=tuning.objectives[0].metric,
        gpu_hours=hours.get("used"),
        gpu_hours_saved=hours.get("saved"),
        is_over=is_over,
    )


def result_of(study: Study, job: TrainingJob) -> dict[str, Any]:
    """Return what a search has found."""
    tuning = job.spec.tuning
    assert tuning is not None
    best, hours = study.best(), _gpu_hours(study, job)
    return {
        "budget": tuning.budget.wire(),
        "why": study.why_over,
        **({"gpuHours": hours} if hours else {}),
        "best": best.wire() if best is not None else None,
        "front": [each.wire() for each in study.front()],
        "trials": [each.wire() for each in study.trials()],
    }


def _gpu_hours(study: Study, job: TrainingJob) -> dict[str, float]:
    """Return what was used and what was saved, where trials have GPUs."""
    if not job.spec.cluster.workers.gpus:
        return {}
    return {"used": round(study.gpu_hours, 4), "saved": round(study.gpu_hours_saved, 4)}
