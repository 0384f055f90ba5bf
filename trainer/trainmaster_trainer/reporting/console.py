"""What a person sees of a run: plain lines in a pod's log, a progress bar on a terminal, a summary at the end."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.table import Table
from trainmaster_api.messages import TrainerState
from trainmaster_api.text import duration_text

from trainmaster_trainer.context import ReportKind

from .event import MOVING, EventKind, RunEvent
from .search_table import SearchTable
from .state import Event

_LINE_SECONDS = 2.0  # plain lines come at most this often, but for transitions
_STATES = {
    TrainerState.STARTING: "starting the workers",
    TrainerState.TRAINING: "training",
    TrainerState.RECOVERING: "a worker was lost; its replacement resumes from the newest checkpoint",
    TrainerState.STOPPING: "saving a checkpoint, then stopping",
    TrainerState.FINISHING: "evaluating on the test split and packaging the model",
}


def metrics_text(metrics: dict[str, float], names: list[str]) -> str:
    """Return `train/loss 0.1234  val/accuracy 0.9800`: those of `names` that have a value."""
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in names if name in metrics)


class PlainDisplay:
    """Prints lines, for logs and pipes."""

    def __init__(self, metric: str, stream: TextIO | None = None) -> None:
        """Start. `metric`: the job's, shown beside the loss."""
        self._names = ["train/loss", metric]
        self._stream = stream
        self._printed = 0.0

    def show(self, event: Event) -> None:
        """Print an event, if it is worth a line."""
        found = RunEvent.read(event)
        line = self._line(found)
        if line:
            print(f"{duration_text(found.seconds):>6}  {line}", file=self._stream, flush=True)

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def _line(self, event: RunEvent) -> str:
        if event.kind is EventKind.STATE and event.state is not None:
            return event.message or _STATES[event.state]
        if event.kind is EventKind.REPORT:
            return self._report(event)
        return notice(event)

    def _report(self, event: RunEvent) -> str:
        if event.report is ReportKind.RESUMED:
            return _resumed(event)
        if event.report is ReportKind.WARNING:
            return f"warning: {event.message}"
        if event.message:  # what the run waits for, or what was noticed in the data: below each other
            return event.message.replace("\n", f"\n{'':8}")
        if event.report not in MOVING or time.monotonic() - self._printed < _LINE_SECONDS:
            return ""
        self._printed = time.monotonic()
        return numbers(event, self._names, prefix="step ")


class _Moving(Progress):
    """A progress bar, and the table of a search below it."""

    def __init__(self, search: SearchTable, *columns: ProgressColumn, console: Console, transient: bool) -> None:
        self._search = search
        super().__init__(*columns, console=console, transient=transient)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield what is drawn."""
        yield self.make_tasks_table(self.tasks)
        table = self._search.draw()
        if table is not None:
            yield table


class RichDisplay:
    """Shows one moving line on a terminal, and a search as a table below it, with notices above."""

    def __init__(self, metric: str, console: Console) -> None:
        """Start. `metric`: the job's, shown beside the loss."""
        self._console = console
        self._names = ["train/loss", metric]
        self._saved: float | None = None
        self._search = SearchTable()
        self._progress = _Moving(
            self._search,
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            transient=True,
        )
        self._task: TaskID = self._progress.add_task("starting Ray", total=None, numbers="")
        self._progress.start()

    def show(self, event: Event) -> None:
        """Show an event."""
        found = RunEvent.read(event)
        if found.kind is EventKind.STATE and found.state is not None:
            self._progress.update(self._task, description=found.state.lower())
            if found.state in (TrainerState.RECOVERING, TrainerState.STOPPING):
                self._print(found.message or _STATES[found.state])
        elif found.kind is EventKind.REPORT:
            self._report(found)
        elif found.kind is EventKind.TRIALS:
            line = self._search.take(found)
            text = self._search.counters
            self._progress.update(
                self._task, description="searching", completed=found.ended, total=found.total, numbers=text
            )
            if line:
                self._print(line)
        elif found.kind is EventKind.RAY_READY:
            self._progress.update(self._task, description="loading framework, model and data")
        elif line := notice(found):
            self._print(line)

    def close(self) -> None:
        """Take the line away."""
        self._progress.stop()

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False)

    def _report(self, event: RunEvent) -> None:
        if event.report is ReportKind.WARNING:
            self._print(f"warning: {event.message}")
        elif event.report is ReportKind.READING:
            self._progress.update(self._task, description=escape(event.message))
        elif event.message:
            self._print(event.message)
        if event.report is ReportKind.RESUMED and (line := _resumed(event)):
            self._print(line)
        if event.report is ReportKind.CHECKPOINT:
            self._saved = time.monotonic()
        if event.report not in MOVING and event.report is not ReportKind.CHECKPOINT:
            return
        age = f"checkpoint {duration_text(time.monotonic() - self._saved)} ago" if self._saved else ""
        text = "  ".join(part for part in (numbers(event, self._names), age) if part)
        self._progress.update(self._task, completed=event.step, total=event.total_steps or None, numbers=text)


def _resumed(event: RunEvent) -> str:
    """Return the line for where a run resumes; empty: it begins."""
    if event.reads:
        return f"resumed: {event.reads}" if event.step else event.reads
    return f"resumed from step {event.step}" if event.step else ""


def numbers(event: RunEvent, names: list[str], prefix: str = "") -> str:
    """Return how far the run is: `5/10  epoch 1  val/loss 0.5000  ETA 7s`; a program may not say where it ends."""
    is_known = event.total_steps > 0
    parts = [
        f"{prefix}{event.step}/{event.total_steps}" if is_known else f"{prefix or 'step '}{event.step}",
        f"epoch {event.epoch}" if is_known or event.epoch else "",
        metrics_text(event.metrics, names),
        f"ETA {duration_text(event.eta_seconds)}" if is_known else "",
    ]
    return "  ".join(part for part in parts if part)


def notice(event: RunEvent) -> str:
    """Return the line for an event that is neither state nor report; empty: it is worth none."""
    if event.kind is EventKind.RAY_READY:
        return "all workers have joined"
    if event.kind is EventKind.LEAVING:
        return f"{event.pod} is being terminated: saving a checkpoint first"
    if event.kind is EventKind.WARNING:
        return f"warning: {event.message}"
    if event.kind is EventKind.TRIALS:
        return event.message
    if event.kind is EventKind.TRACKER:
        return f"{event.name}: " + " at ".join(
            part for part in (event.run_id and f"run {event.run_id}", event.url) if part
        )
    return ""


def summary(rows: list[tuple[str, Any]]) -> Table:
    """Return a closing table of names and values; rows without a value are left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:
            table.add_row(name, str(value))
    return table
