"""Where the time of an attempt's start went."""

from __future__ import annotations

import math
from datetime import datetime

from trainmaster_api.status import StartupTimings

from .context import PlanContext
from .format import parse_time


def account(context: PlanContext) -> bool:
    """Fill in the stages as they become known. A stage that is known stays: a worker replaced later doesn't count."""
    record = context.live
    start = parse_time(record.start_time) if record else None
    if start is None:
        return False
    known = (context.status.startup_timings or StartupTimings()).model_dump(by_alias=False)
    pods, message = context.current, context.snapshot.progress
    if message and (message.attempt != context.status.attempt or message.uid != context.snapshot.uid):
        message = None
    complete = len(pods) == context.job.spec.cluster.workers.count + 1
    found = {
        "scheduled_seconds": _last([pod.scheduled_at for pod in pods]) if complete else None,
        "started_seconds": _last([pod.started_at for pod in pods]) if complete else None,
        "ray_ready_seconds": parse_time(message.ray_ready_time) if message else None,
        "loaded_seconds": parse_time(message.loaded_time) if message else None,
        "first_step_seconds": parse_time(message.first_step_time) if message else None,
    }
    stages = list(found)
    for index, stage in enumerate(stages):
        moment = found[stage]
        if known[stage] is None and moment is not None:
            # stages follow one another, whatever the clocks of several machines and their whole seconds say
            floor = max((known[earlier] or 0.0 for earlier in stages[:index]), default=0.0)
            ceiling = min((known[later] or math.inf for later in stages[index + 1 :]), default=math.inf)
            known[stage] = min(ceiling, max(floor, round((moment - start).total_seconds(), 1)))
    if any(value is not None for value in known.values()):
        context.set(startup_timings=StartupTimings(**known))
    return False


def _last(texts: list[str]) -> datetime | None:
    """Return the latest time, once all are known."""
    moments = [parse_time(text) for text in texts]
    known = [moment for moment in moments if moment]
    return max(known) if known and len(known) == len(moments) else None
