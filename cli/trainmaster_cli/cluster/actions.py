"""`trainmaster stop`, `resume` and `open`."""

from __future__ import annotations

import sys
from typing import Any

from trainmaster_api.reasons import ConditionType, Reason

from trainmaster_cli.errors import UserError

from .api import Api, Object, jobs_path
from .jobs import condition, get_job, holds, is_finished, status_of, watch_job
from .page import reason, saved_step


def stop(api: Api, name: str, *, wait: bool) -> int:
    """Suspend a job: it saves a checkpoint first, then its pods go. Return the exit code."""
    job = get_job(api, name)
    if is_finished(job):
        print(f"{name} is {status_of(job)['phase']}: there is nothing to stop")
        return 0
    if holds(job, ConditionType.SUSPENDED) and _wish(job):
        print(f"{name} is suspended already{_from(job)}")
        return 0
    job = _suspend(api, name, True)
    print(f"{name} will save a checkpoint and stop", flush=True)
    if not wait:
        return 0
    end = _wait(api, job, lambda seen: holds(seen, ConditionType.SUSPENDED) or is_finished(seen))
    if end is None:
        return 1
    if is_finished(end):
        what = condition(end, str(status_of(end)["phase"])).get("message", "")
        print(f"{name} was {status_of(end)['phase']} before it could be stopped: {what}")
        return 0
    step = saved_step(end)
    saved = f"saved at step {step}" if step is not None else "it had not saved a checkpoint"
    print(f"{name} is suspended, {saved}; next: trainmaster resume {name} -n {api.namespace}")
    return 0


def resume(api: Api, name: str) -> int:
    """Let a suspended job continue. Return the exit code."""
    job = get_job(api, name)
    if is_finished(job):
        print(f"{name} is {status_of(job)['phase']}: there is nothing to resume")
        return 0
    if not _wish(job):
        print(f"{name} is not suspended")
        return 0
    _suspend(api, name, False)
    print(f"{name} continues{_from(job)}; next: trainmaster status {name} -n {api.namespace} --watch")
    return 0


def address(job: Object, tracker: str | None) -> str:
    """Return the page of a job's run in a tracker.

    Raises:
        UserError: It has none, or not yet.
    """
    name, found = job["metadata"]["name"], status_of(job).get("trackers") or ()
    urls = {each["name"]: each["url"] for each in found if each.get("url")}
    if tracker is not None and tracker not in urls:
        known = f"it has {', '.join(urls)}" if urls else "it has none yet"
        raise UserError(f"{name} has no address in the tracker {tracker}; {known}")
    if tracker is not None:
        return str(urls[tracker])
    if urls:
        return str(next(iter(urls.values())))
    wanted = (job.get("spec") or {}).get("tracking")
    why = (
        "its tracker has not given one yet: it does so when training begins"
        if wanted
        else "it has no tracker with a page (spec.tracking); the Ray dashboard is `trainmaster open --dashboard`"
    )
    raise UserError(f"{name} has no address to open: {why}")


def show_address(url: str, *, with_browser: bool) -> int:
    """Print an address, and open it in the browser where there is one. Return the exit code."""
    print(url, flush=True)
    if with_browser:
        import webbrowser

        webbrowser.open(url)  # where there is none the address has been printed
    return 0


def _suspend(api: Api, name: str, wish: bool) -> Object:
    return api.patch(f"{jobs_path(api.namespace)}/{name}", {"spec": {"run": {"suspend": wish}}})


def _wish(job: Object) -> bool:
    return bool(((job.get("spec") or {}).get("run") or {}).get("suspend"))


def _from(job: Object) -> str:
    step = saved_step(job)
    return f" from step {step}" if step is not None and holds(job, ConditionType.SUSPENDED) else ""


def _wait(api: Api, job: Object, is_done: Any) -> Object | None:
    """Follow a job until a condition holds; None: it was deleted, or Ctrl-C."""
    name, said = job["metadata"]["name"], ""
    if is_done(job):
        return job
    try:
        for seen in watch_job(api, job):
            if seen is None:
                print(f"{name} was deleted", file=sys.stderr)
                return None
            if is_done(seen):
                return seen
            under_way = reason(seen, ConditionType.SUSPENDED) == Reason.SUSPENDING
            text = str(condition(seen, ConditionType.SUSPENDED).get("message", "")) if under_way else ""
            if text and text != said:
                print(text, flush=True)
                said = text
    except KeyboardInterrupt:
        print(f"\nit will stop all the same; see `trainmaster status {name}`", file=sys.stderr)
    return None
