"""The commands on a cluster: they connect, read, and print what the pure parts make of it."""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from . import actions, logs
from .api import Api, Object, connect
from .explain import explain
from .fetch import fetch
from .jobs import events_of, get_job, is_finished, list_jobs, pods_of, watch_job
from .page import page
from .stored import StoredRun
from .table import table

_REDRAW_SECONDS = 1.0
WATCH = "watch"
"""Name of the thread that watches a job while it is shown."""
Seen = queue.SimpleQueue[Object | BaseException | None]


def ls(options: argparse.Namespace, api: Api | None = None) -> int:
    """List jobs."""
    api = api or _connect(options)
    jobs = list_jobs(api, everywhere=options.all_namespaces)
    if options.output == "json":
        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": jobs}, indent=2))
    elif options.output == "name":
        print("".join(f"{job['metadata']['name']}\n" for job in jobs), end="")
    elif not jobs:
        where = "any namespace" if options.all_namespaces else f"namespace {api.namespace}"
        print(f"no TrainingJobs in {where}", file=sys.stderr)
    else:
        wide = options.output == "wide"
        print(*table(jobs, _now(), with_namespace=options.all_namespaces, with_reason=wide), sep="\n")
    return 0


def status(options: argparse.Namespace, api: Api | None = None) -> int:
    """Show a job."""
    api = api or _connect(options)
    job = get_job(api, options.name)
    if options.output == "json":
        print(json.dumps(job, indent=2))
    elif options.watch:
        return follow(api, job)
    else:
        print(*page(job, _now()), sep="\n")
    return 0


def why(options: argparse.Namespace, api: Api | None = None) -> int:
    """Say why a job is as it is."""
    api = api or _connect(options)
    job = get_job(api, options.name)
    pods = pods_of(api, options.name)
    names = {options.name, *(str(pod["metadata"]["name"]) for pod in pods)}
    answer = explain(job, pods, events_of(api, names), _now())
    print(answer.text)
    return answer.kind.value


def show_logs(options: argparse.Namespace, api: Api | None = None) -> int:
    """Print the logs of a job."""
    api = api or _connect(options)
    wanted = logs.Wanted(options.rank, options.everything, options.timestamps)
    job = get_job(api, options.name)
    stored = StoredRun(api, job).lines
    if options.follow and not options.previous and not is_finished(job):
        logs.Follower(api, options.name, wanted, _write).run()
        return 0
    attempt = logs.latest_attempt(job, previous=options.previous)
    logs.show(api, job, attempt, wanted, stored, _write)
    return 0


def stop(options: argparse.Namespace, api: Api | None = None) -> int:
    """Suspend a job."""
    waits = options.wait if options.wait is not None else sys.stdout.isatty()
    return actions.stop(api or _connect(options), options.name, wait=waits)


def resume(options: argparse.Namespace, api: Api | None = None) -> int:
    """Continue a suspended job."""
    return actions.resume(api or _connect(options), options.name)


def open_page(options: argparse.Namespace, api: Api | None = None) -> int:
    """Open the page of a job's run."""
    if options.dashboard:
        from trainmaster_cli.main import dashboard

        return dashboard(options)
    job = get_job(api or _connect(options), options.name)
    url = actions.address(job, options.tracker)
    return actions.show_address(url, with_browser=not options.only_print and sys.stdout.isatty())


def fetch_model(options: argparse.Namespace, api: Api | None = None) -> int:
    """Copy the model of a job to this disk."""
    return fetch(api or _connect(options), options.name, options.output)


def submit(options: argparse.Namespace, api: Api | None = None) -> int:
    """Submit a file; see `submit.py`."""
    from .submit import Submission

    return Submission(options, api).run()


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "submit": submit,
    "ls": ls,
    "status": status,
    "why": why,
    "logs": show_logs,
    "stop": stop,
    "resume": resume,
    "open": open_page,
    "fetch": fetch_model,
}


def _connect(options: argparse.Namespace) -> Api:
    return connect(options.context, options.namespace)


def follow(api: Api, job: Object) -> int:
    """Show a job until it has finished, or until Ctrl-C, which isn't an error."""
    with contextlib.suppress(KeyboardInterrupt):
        show(api, job, queue.SimpleQueue())
    return 0


def show(api: Api, job: Object, seen: Seen) -> None:
    """Show a job until it has finished: a page that redraws itself on a terminal, else one line a change.

    Args:
        api: Where it is.
        job: As it is now.
        seen: Gets each change of the job; an exception that another thread puts there is raised here.
    """
    # the watch of a job that isn't shown any more ends too: `submit --watch` shows many, one after the other
    is_over = threading.Event()

    def follow() -> None:
        try:
            for each in watch_job(api, job, is_over):
                seen.put(each)
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            seen.put(error)

    threading.Thread(target=follow, name=WATCH, daemon=True).start()
    try:
        (_live if sys.stdout.isatty() else _lines)(job, seen)
    finally:
        is_over.set()


def _live(job: Object, seen: Seen) -> int:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def text() -> Text:
        return Text("\n".join(page(job, _now())), overflow="fold")

    with Live(text(), console=Console(highlight=False), auto_refresh=False) as live:
        while not is_finished(job):
            try:
                found = seen.get(timeout=_REDRAW_SECONDS)
            except queue.Empty:  # the ages grow
                live.update(text(), refresh=True)
                continue
            if found is None:
                break
            if isinstance(found, BaseException):
                raise found
            job = found
            live.update(text(), refresh=True)
    return 0


def _lines(job: Object, seen: Seen) -> int:
    last = ""
    while True:
        line = table([job], _now(), with_namespace=False, with_reason=True)[-1]
        key = json.dumps([job.get("status", {}).get(name) for name in ("phase", "reason", "progress")])
        if key != last:
            print(line, flush=True)
        last = key
        if is_finished(job):
            return 0
        found = seen.get()
        if found is None:
            return 0
        if isinstance(found, BaseException):
            raise found
        job = found


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _now() -> datetime:
    return datetime.now(UTC)
