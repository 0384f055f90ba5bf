"""After the last step: the best weights, the held-out test split, the package."""

from __future__ import annotations

import json

from trainmaster_api.layout import TEST_METRICS
from trainmaster_api.messages import Outcome

from trainmaster_trainer.checkpoint.protocol import check_fence
from trainmaster_trainer.context import ReportKind, Result
from trainmaster_trainer.export.package import package

from .builder import Setup, share_weights
from .evaluate import evaluate
from .recorder import Recorder


def finish(setup: Setup, recorder: Recorder) -> Result:
    """Evaluate the best checkpoint on the test split, which nothing has read so far, and package it.

    Neither is done for a trial of a search: only its winner is tested, once.
    """
    context = setup.context
    if context.is_trial:
        if context.rank == 0:
            recorder.wait()
            recorder.flush()
        return recorder.result(Outcome.COMPLETE)
    best_step = setup.step
    if context.rank == 0:
        recorder.wait()
        best = recorder.manager.load_best(lambda text: recorder.report(ReportKind.WARNING, message=text))
        if best is not None:
            (_, best_step), state = best
            setup.model.load_state_dict(state.model)
    share_weights(setup)
    # in fp32, whatever the precision of training: so the packaged model computes
    found = evaluate(
        setup.model, setup.loader, setup.data.test, setup.task, rank=context.rank, world_size=context.world_size
    )
    metrics = {f"test/{name}": value for name, value in found.items()}
    uri = ""
    if context.rank == 0:
        check_fence(context.run, context.attempt)
        if metrics:
            report = {"step": best_step, "rows": len(setup.data.test), "metrics": metrics}
            context.run.put(TEST_METRICS, json.dumps(report, indent=1).encode())
        uri = package(context.run, setup.spec.training, setup.data, setup.model.state_dict(), setup.task.outputs)
        recorder.log(metrics)
        recorder.flush()
        recorder.manager.sweep()
        recorder.report(ReportKind.DONE)
    return recorder.result(Outcome.COMPLETE, metrics, uri)
