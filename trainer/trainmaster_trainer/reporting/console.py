"""What a person sees of a run: plain lines in a pod's log, a progress bar on a terminal, a summary at the end."""

from __future__ import annotations

import time
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from .state import Event

_LINE_SECONDS = 2.0  # plain lines come at most this often, but for transitions
_STATES = {
    "Starting": "starting the workers",
    "Training": "training",
    "Recovering": "a worker was lost; its replacement goes on from the newest checkpoint",
    "Stopping": "saving, then stopping",
    "Finishing": "evaluating on the test split and packaging the model",
}


def seconds_text(seconds: float | None) -> str:
    """`42s`, `3m20s`, `1h05m`; a dash for what isn't known."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def metrics_text(metrics: dict[str, float], names: list[str]) -> str:
    """`train/loss 0.1234  val/accuracy 0.9800`, those of `names` that there are."""
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in names if name in metrics)


class PlainDisplay:
    """Lines, for logs and pipes."""

    def __init__(self, metric: str, stream: TextIO | None = None) -> None:
        """`metric`: the job's, shown besides the loss."""
        self._names = ["train/loss", metric]
        self._stream = stream
        self._printed = 0.0
        self._last: Event = {}

    def show(self, event: Event) -> None:
        """One event."""
        line = self._line(event)
        if line:
            print(f"{seconds_text(event['seconds']):>6}  {line}", file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing is open."""

    def _line(self, event: Event) -> str:
        kind = event["event"]
        if kind == "state":
            return event.get("message") or _STATES[event["state"]]
        if kind == "report":
            return self._report(event)
        return notice(event)

    def _report(self, event: Event) -> str:
        if event["kind"] == "Resumed":
            return f"goes on from step {event['step']}" if event["step"] else ""
        if event["kind"] == "Warning":
            return f"warning: {event['message']}"
        moved = event["kind"] in ("FirstStep", "Step", "Validation")
        if not moved or time.monotonic() - self._printed < _LINE_SECONDS:
            return ""
        self._printed = time.monotonic()
        parts = [
            f"step {event['step']}/{event['total_steps']}",
            f"epoch {event['epoch']}",
            metrics_text(event["metrics"], self._names),
            f"ETA {seconds_text(event['eta_seconds'])}",
        ]
        return "  ".join(part for part in parts if part)


class RichDisplay:
    """One moving line on a terminal, notices above it."""

    def __init__(self, metric: str, console: Console) -> None:
        """`metric`: the job's, shown besides the loss."""
        self._console = console
        self._names = ["train/loss", metric]
        self._saved: float | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            transient=True,
        )
        self._task: TaskID = self._progress.add_task("starting Ray", total=None, numbers="")
        self._progress.start()

    def show(self, event: Event) -> None:
        """One event."""
        kind = event["event"]
        if kind == "state":
            self._progress.update(self._task, description=event["state"].lower())
            if event["state"] in ("Recovering", "Stopping"):
                self._console.print(event.get("message") or _STATES[event["state"]], highlight=False)
        elif kind == "report":
            self._report(event)
        elif kind == "ray_ready":
            self._progress.update(self._task, description="loading framework, model and data")
        elif line := notice(event):
            self._console.print(line, highlight=False)

    def close(self) -> None:
        """Take the line away."""
        self._progress.stop()

    def _report(self, event: Event) -> None:
        if event["kind"] == "Warning":
            self._console.print(f"warning: {event['message']}", highlight=False)
            return
        if event["kind"] == "Resumed" and event["step"]:
            self._console.print(f"goes on from step {event['step']}", highlight=False)
        if event["kind"] == "Checkpoint":
            self._saved = time.monotonic()
        if event["kind"] not in ("FirstStep", "Step", "Validation", "Checkpoint"):
            return
        age = f"checkpoint {seconds_text(time.monotonic() - self._saved)} ago" if self._saved else ""
        parts = [
            f"{event['step']}/{event['total_steps']}",
            f"epoch {event['epoch']}",
            metrics_text(event["metrics"], self._names),
            f"ETA {seconds_text(event['eta_seconds'])}",
            age,
        ]
        numbers = "  ".join(part for part in parts if part)
        self._progress.update(self._task, completed=event["step"], total=event["total_steps"], numbers=numbers)


def notice(event: Event) -> str:
    """What an event that is neither state nor report says; empty: nothing worth a line."""
    kind = event["event"]
    if kind == "ray_ready":
        return "all workers have joined"
    if kind == "leaving":
        return f"{event['pod']} is told to end: saving first"
    if kind == "warning":
        return f"warning: {event['message']}"
    if kind == "mlflow":
        return f"MLflow run {event['run_id']} at {event['uri']}"
    return ""


def summary(rows: list[tuple[str, Any]]) -> Table:
    """A closing table of names and values."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:
            table.add_row(name, str(value))
    return table
