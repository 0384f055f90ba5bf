"""The page of `trainmaster status`. Pure: a job and the time in, lines out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from trainmaster_api.reasons import ConditionType
from trainmaster_api.text import duration_text

from trainmaster_cli.columns import aligned

from .api import Object
from .jobs import age, condition, holds, is_finished, parse_time, status_of

_BAR = 30
_LABEL = 14
_MOST_METRICS = 12


def page(job: Object, now: datetime) -> list[str]:
    """Return what a person wants to know of a job, most important first."""
    blocks = (_head, _progress, _checkpoint, _restarts, _conditions, _places, _next)
    found: list[str] = []
    for block in blocks:
        lines = list(block(job, now))
        if lines and found and block in (_restarts, _conditions, _places, _next):
            found.append("")
        found += lines
    return found


def _head(job: Object, now: datetime) -> Iterator[str]:
    meta, status = job["metadata"], status_of(job)
    phase, reason = status.get("phase") or "Pending", status.get("reason")
    shown = f"{phase} ({reason})" if reason and reason != phase else phase
    parts = [f"{meta['namespace']}/{meta['name']}", shown]
    if status.get("attempt"):
        parts.append(f"attempt {status['attempt']}")
    if status.get("workersReady"):
        parts.append(f"{status['workersReady']} workers ready")
    yield "  ".join([*parts, f"{age(meta.get('creationTimestamp'), now)} old"])
    if int(status.get("observedGeneration") or 0) < int(meta.get("generation") or 0):
        yield "  the operator has not acted on the newest change of the spec yet"


def _progress(job: Object, now: datetime) -> Iterator[str]:
    progress = status_of(job).get("progress")
    if not progress:
        return
    step, total = progress.get("step", 0), progress.get("totalSteps", 0)
    parts = [bar(step, total), progress.get("percent", ""), f"step {step}" + (f"/{total}" if total else "")]
    parts.append(f"epoch {progress.get('epoch', 0)}")
    if not is_finished(job):
        parts.append(f"ETA {eta(progress, now)}")
    yield "  ".join(part for part in parts if part)
    metrics = {**(progress.get("metrics") or {}), **(status_of(job).get("testMetrics") or {})}
    if metrics:
        shown = [f"{name} {value:.4g}" for name, value in sorted(metrics.items())]
        more = f"  and {len(shown) - _MOST_METRICS} more" if len(shown) > _MOST_METRICS else ""
        yield _row("metrics", "  ".join(shown[:_MOST_METRICS]) + more)
    if progress.get("time") and not is_finished(job):
        yield _row("reported", f"{age(progress['time'], now)} ago")


def bar(step: int, total: int) -> str:
    """Return a bar of fixed width; empty where the total is unknown."""
    if total <= 0:
        return ""
    done = min(_BAR, _BAR * step // total)
    return f"[{'#' * done}{'-' * (_BAR - done)}]"


def eta(progress: Object, now: datetime) -> str:
    """Return the ETA as it is now: the operator writes it every ten seconds."""
    seconds, reported = progress.get("etaSeconds"), parse_time(progress.get("time"))
    if seconds is None:
        return "-"
    passed = (now - reported).total_seconds() if reported else 0.0
    return duration_text(max(0.0, seconds - max(0.0, passed)))


def _checkpoint(job: Object, now: datetime) -> Iterator[str]:
    status = status_of(job)
    saved, progress = status.get("lastCheckpoint"), status.get("progress") or {}
    step = progress.get("step", 0)
    if saved:
        yield _row("checkpoint", f"step {saved['step']} of attempt {saved['attempt']}, {age(saved['time'], now)} ago")
    elif step:
        yield _row("checkpoint", "none yet")
    if not holds(job, ConditionType.RUNNING):
        return
    lost = step - (saved["step"] if saved else 0)
    since = parse_time((saved or {}).get("time") or status.get("startTime"))
    took = f", {duration_text((now - since).total_seconds())} of work" if since else ""
    if lost > 0:
        yield _row("at stake", f"{lost} steps{took}, if a pod were lost now")


def _restarts(job: Object, now: datetime) -> Iterator[str]:
    status = status_of(job)
    restarts = status.get("restarts") or {}
    records = [each for each in status.get("attempts") or () if each.get("result") == "Failed"]
    if not restarts.get("total") and not restarts.get("recoveries") and not records:
        return
    most = ((job.get("spec") or {}).get("run") or {}).get("retries", {}).get("max")
    counted = f"{restarts.get('counted', 0)} of {most} counted" if most is not None else ""
    counted = counted or f"{restarts.get('counted', 0)} counted"
    yield _row("restarts", f"{restarts.get('total', 0)} ({counted}), {restarts.get('recoveries', 0)} recoveries")
    for record in records:
        at = f" at step {record['lastStep']}" if record.get("lastStep") is not None else ""
        where = f" on {record['node']}" if record.get("node") else ""
        what = record.get("failureClass", "?")
        yield f"  attempt {record['attempt']}: {what}{at}{where}: {record.get('message', '')}"


def _conditions(job: Object, now: datetime) -> Iterator[str]:
    rows = [
        (f"  {each['type']}", each["status"], each.get("reason", ""), age(each.get("lastTransitionTime"), now))
        for each in status_of(job).get("conditions") or ()
    ]
    if not rows:
        yield "  no conditions: the operator has not looked at this job yet"
        return
    yield "conditions"
    for line, each in zip(aligned(rows), status_of(job)["conditions"], strict=True):
        said = " ".join(str(each.get("message", "")).split())
        yield f"{line}  {said}" if said else line


def _places(job: Object, now: datetime) -> Iterator[str]:
    status = status_of(job)
    for tracker in status.get("trackers") or ():
        if tracker.get("url"):
            yield _row(tracker["name"], tracker["url"])
    for label, key in (("run", "runUri"), ("model", "modelUri"), ("data", "dataFingerprint")):
        if status.get(key):
            yield _row(label, status[key])


def _next(job: Object, now: datetime) -> Iterator[str]:
    meta = job["metadata"]
    name = f"{meta['name']} -n {meta['namespace']}"
    yield "next:"
    if holds(job, ConditionType.FAILED) or not holds(job, ConditionType.RUNNING):
        yield f"  trainmaster why {name}"
    if not is_finished(job):
        yield f"  trainmaster logs {name} -f"
    else:
        yield f"  trainmaster logs {name}"
    if holds(job, ConditionType.SUSPENDED):
        yield f"  trainmaster resume {name}"
    elif not is_finished(job):
        yield f"  trainmaster stop {name}"
    if any(tracker.get("url") for tracker in status_of(job).get("trackers") or ()):
        yield f"  trainmaster open {name}"


def saved_step(job: Object) -> int | None:
    """Return the step of the newest checkpoint; None if there is none."""
    saved = status_of(job).get("lastCheckpoint")
    return int(saved["step"]) if saved else None


def reason(job: Object, kind: str) -> str:
    """Return the reason of a condition; empty if there is none."""
    return str(condition(job, kind).get("reason", ""))


def _row(label: str, text: str) -> str:
    return f"  {label:<{_LABEL}}{text}"
