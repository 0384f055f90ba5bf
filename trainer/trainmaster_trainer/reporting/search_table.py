"""A search on a terminal: its running trials and its best in one table, which is updated in place."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text
from trainmaster_api.text import value_text

from .event import RunEvent

_MOST_ROWS, _MOST_PARAMETERS = 12, 6


class SearchTable:
    """What the events of a search say, as it is now."""

    def __init__(self) -> None:
        self._newest: RunEvent | None = None
        self._values: dict[int, dict[str, Any]] = {}
        self._times: dict[int, int] = {}

    def take(self, event: RunEvent) -> str:
        """Take an event; return its message where the table doesn't show the same, else nothing."""
        before, self._newest = self._newest, event
        running = {each["number"] for each in event.running}
        for each in event.running:
            self._values[each["number"]] = each["values"]
            self._times[each["number"]] = each["time"]
        if event.best_trial is not None and event.best_values:
            self._values[event.best_trial] = event.best_values
        has_begun = bool(running - {each["number"] for each in before.running}) if before else bool(running)
        has_ended = event.ended > (before.ended if before else 0) and event.failed == (before.failed if before else 0)
        return event.message if event.is_over or not (has_begun or has_ended) else ""

    @property
    def counters(self) -> str:
        """How many trials there are of each kind."""
        event = self._newest
        if event is None:
            return ""
        counts = {"complete": event.complete, "pruned": event.pruned, "failed": event.failed}
        kinds = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        return f"{event.ended}/{event.total} trials" + (f": {kinds}" if kinds else "")

    def draw(self) -> Table | None:
        """Return the table; None: there is nothing in it, or the search is over."""
        event = self._newest
        has_best = event is not None and event.best is not None and event.best_trial is not None
        if event is None or event.is_over or not (event.running or has_best):
            return None
        names = list(dict.fromkeys(name for values in self._values.values() for name in values))[:_MOST_PARAMETERS]
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("trial", "validation", event.metric or "value", *names):
            table.add_column(Text(name), justify="right", overflow="fold")
        for each in event.running[:_MOST_ROWS]:
            table.add_row(*self._row(str(each["number"]), each["number"], each.get("value"), names, event.longest))
        if len(event.running) > _MOST_ROWS:
            table.add_row(Text(f"and {len(event.running) - _MOST_ROWS} more"))
        if event.best_trial is not None:
            number = event.best_trial
            row = self._row(f"best: {number}", number, event.best, names, event.longest)
            table.add_row(*row, style="bold")
        return table

    def _row(self, label: str, number: int, value: float | None, names: list[str], longest: int | None) -> list[Text]:
        values, time = self._values.get(number, {}), self._times.get(number)
        of = f"/{longest}" if longest else ""
        return [
            Text(label),
            Text(f"{time}{of}" if time is not None else "-"),
            Text(f"{value:.4f}" if value is not None else "-"),
            *(Text(value_text(values[name]) if name in values else "-") for name in names),
        ]
