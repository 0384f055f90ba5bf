"""The summary that `trainmaster run` prints at the end of a run: results, where they are, what to do next."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from trainmaster_api.layout import LATEST, TEST_METRICS, Pointer
from trainmaster_api.messages import ExitMessage, gpu_hours_text
from trainmaster_api.reasons import FAILURE_RULES
from trainmaster_api.text import duration_text

from trainmaster_trainer.reporting.console import summary
from trainmaster_trainer.reporting.trackers.background import read_record
from trainmaster_trainer.storage.store import Store
from trainmaster_trainer.tuning.trials import RESULT

from . import search_text
from .places import near


def print_complete(
    console: Console,
    run: Store,
    trackers: Sequence[str],
    file: str,
    seconds: float | None,
    *,
    has_code: bool = False,
) -> None:
    """Print the summary of a complete run.

    Args:
        console: Prints it.
        run: Store of the run.
        trackers: Names of its trackers.
        file: The job's file.
        seconds: How long training took this time; None: it was already complete.
        has_code: Whether a folder of code goes with the job.
    """
    report = json.loads(run.get(TEST_METRICS) or b"{}")
    latest = run.get(LATEST)
    step = Pointer.model_validate_json(latest).step if latest else None
    shown = near(run.uri)
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in sorted(report.get("metrics", {}).items()))
    records = {name: read_record(run, name) for name in trackers}
    done = f"{step} steps" if step is not None else "no model: there is no final run"
    rows = [
        ("complete", done if seconds is None else f"{done} in {duration_text(seconds)}"),
        *_search(run),
        ("test", metrics),
        ("model", f"{shown}/model" if step is not None else ""),
        ("checkpoints", f"{shown}/checkpoints" if step is not None else ""),
        *((name, _tracker(record)) for name, record in records.items()),
    ]
    console.print(summary(rows))
    console.print("\nnext:")
    for record in records.values():
        if record.get("view"):
            console.print(f"  {_view(record['view'])}")
    command = "trainmaster submit" if has_code else "kubectl apply -f"
    console.print(f"  {command} {shlex.quote(file)}    # the same job on a cluster")


def _search(run: Store) -> list[tuple[str, str]]:
    """Return what a search has found, as rows; none for a run without one."""
    result = json.loads(run.get(RESULT) or b"{}")
    if not result:
        return []
    best = [("best trial", best_text(result["best"]))] if result.get("best") else []
    front = [("front", f"{len(result['front'])} trials that no other one dominates")] if not best else []
    hours = [("cost", gpu_hours_text(**result["gpuHours"]))] if "gpuHours" in result else []
    return [("search", f"{len(result['trials'])} trials; {result['why']}"), *best, *front, *hours]


def best_text(trial: dict[str, Any]) -> str:
    """Return a trial in one line."""
    reached = ", ".join(f"{each:.4g}" for each in trial["objectives"])
    return f"{trial['number']}: {reached} with {search_text.shown(trial['values'])}"


def print_fresh_hint(console: Console, file: str) -> None:
    """Print how to train a complete run again, or longer."""
    console.print(f"  {fresh(file)}    # start a new run instead; a larger training.loop.duration continues this one")


def fresh(file: str) -> str:
    """Return the command that starts a new run of a file."""
    return f"{command('trainmaster')} run {shlex.quote(file)} --fresh"


def print_stopped(console: Console, message: ExitMessage, file: str) -> None:
    """Print how to resume."""
    console.print(f"{message.message}\nresume with: {command('trainmaster')} run {shlex.quote(file)}")


def print_failed(console: Console, message: ExitMessage) -> None:
    """Print why a run failed, and what to do about it."""
    where = f" (rank {message.rank})" if message.rank is not None else ""
    failure = message.failure_class
    console.print(f"failed{f': {failure}' if failure else ''}{where}\n{message.message}", style="bold")
    for line in message.last_lines:
        console.print(f"  {line}", style="dim")
    if failure:
        console.print(f"next: {FAILURE_RULES[failure].advice}")


def command(name: str) -> str:
    """Return the command for a program of this environment: its name if the shell finds that program, else its path."""
    own = Path(sys.executable).parent / name
    found = shutil.which(name)
    # an environment may be a link, and be in PATH under its other name
    is_own = found is not None and os.path.realpath(found) == os.path.realpath(own)
    return name if is_own else shlex.quote(near(str(own)))


def _tracker(record: dict[str, str]) -> str:
    run_id, url = record.get("run_id", ""), record.get("url", "")
    return f"run {run_id}" + (f" at {url}" if "://" in url and not record.get("view") else "") if run_id else url


def _view(line: str) -> str:
    """Return a command of this environment, with paths relative to the working directory."""
    program, *arguments = shlex.split(line)
    here = f"{os.getcwd()}/"  # noqa: PTH109 - a prefix of text
    return " ".join([command(program), *(shlex.quote(argument.replace(here, "", 1)) for argument in arguments)])
