"""The pictures of a search, drawn by matplotlib. Imported only by the process that draws: it costs 70 MB."""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image
from trainmaster_api.tuning.space import Axis

from .findings import Findings, Goal
from .trials import TrialRecord

_STYLE: Any = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "axes.edgecolor": "#9a9a9a", "axes.labelcolor": "#333333", "axes.titlesize": 11, "axes.labelsize": 9,
    "grid.color": "#ececec", "grid.linewidth": 0.8, "xtick.color": "#555555", "ytick.color": "#555555",
    "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8, "legend.frameon": False, "font.size": 9,
    "figure.facecolor": "white", "figure.dpi": 110,
    "text.parse_math": False,  # names and values are the user's, and may have a `$`
}  # fmt: skip
_BLUE, _RED, _GREY, _LIGHT = "#2a6fbb", "#d1495b", "#8c8c8c", "#c9c9c9"
_LOG_RATIO = 30.0  # values that differ by more are shown by their order of magnitude
_LONGEST_LABEL = 16
_COLORS = colormaps["viridis"]


def png(make: Callable[[], Figure]) -> bytes:
    """Return a picture that a function draws, with at most 256 colours: less than half the size."""
    with rc_context(_STYLE):
        drawn = io.BytesIO()
        make().savefig(drawn, format="png")
    small = io.BytesIO()
    Image.open(drawn).convert("RGB").quantize(256).save(small, "png", optimize=True)
    return small.getvalue()


def label(value: Any, longest: int = _LONGEST_LABEL) -> str:
    """Return a value or a name as a short text."""
    if isinstance(value, float):
        return f"{value:.3g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


# -- history ----------------------------------------------------------------------------------------------------------
def history(found: Findings) -> Figure:
    """Draw each objective by the number of the trial, with the best so far."""
    count = len(found.goals)
    figure = Figure(figsize=(7.5, 3.6 if count == 1 else 2.6 * count), layout="constrained")
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for column, (axes, goal) in enumerate(zip(panels, found.goals, strict=True)):
        _history_of(axes, found, column, goal)
    panels[0].set_title(f"History of {len(found.trials)} trials", loc="left")
    panels[-1].set_xlabel("trial")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    last = max((each.number for each in found.trials), default=0)
    panels[-1].set_xlim(-0.5, last + 0.5)
    _legend_below(figure, panels[0])
    return figure


def _history_of(axes: Axes, found: Findings, column: int, goal: Goal) -> None:
    _dots(axes, found.pruned, column, is_pruned=True)
    _dots(axes, found.complete, column, is_pruned=False)
    steps = list(
        itertools.accumulate((each.objectives[column] for each in found.complete), max if goal.is_higher else min)
    )
    if steps:
        last = max(each.number for each in found.trials)
        axes.plot([*(each.number for each in found.complete), last], [*steps, steps[-1]], drawstyle="steps-post",
                  color=_RED, linewidth=1.5, label="best so far", zorder=2)  # fmt: skip
    lost = [each.number for each in found.valueless]
    axes.margins(y=0.12 if lost else 0.05)
    if lost:
        axes.plot(lost, [0.03] * len(lost), "x", transform=axes.get_xaxis_transform(), color=_RED, markersize=5,
                  label="without a value", clip_on=False)  # fmt: skip
    _value_axis(axes, "y", [each.objectives[column] for each in found.valued], goal)
    axes.set_ylabel(goal.metric)


def _dots(axes: Axes, trials: Sequence[TrialRecord], column: int, *, is_pruned: bool) -> None:
    if trials:
        axes.plot([each.number for each in trials], [each.objectives[column] for each in trials], "o",
                  **_marker(is_pruned))  # fmt: skip


def _marker(is_pruned: bool) -> dict[str, Any]:
    if is_pruned:
        return {"color": _GREY, "markerfacecolor": "none", "markersize": 4.5, "label": "pruned", "zorder": 2}
    return {"color": _BLUE, "markersize": 5, "label": "complete", "zorder": 3}


# -- parallel coordinates ---------------------------------------------------------------------------------------------
def parallel(found: Findings, names: Sequence[str]) -> Figure:
    """Draw each trial as a line over parameters and objectives; the first objective is its colour.

    Args:
        found: The search.
        names: Of the parameters that are shown.
    """
    scales = [_Scale.of_axis(each, found.valued) for each in found.searched if each.name in names]
    scales += [_Scale.of_goal(found, column) for column in range(len(found.goals))]
    count = len(scales)
    figure = Figure(figsize=(max(6.0, 1.35 * count + 1.5), 4.2), layout="constrained")
    axes = figure.subplots()
    lines = {each.number: [(x, scale.place(each)) for x, scale in enumerate(scales)] for each in found.valued}
    pruned = [lines[each.number] for each in found.pruned]
    axes.add_collection(LineCollection(pruned, colors=_LIGHT, linewidths=0.7, zorder=1))
    ranked = sorted(
        found.complete, key=lambda each: scales[-len(found.goals)].place(each), reverse=not found.goals[0].is_higher
    )
    places = [scales[-len(found.goals)].place(each) for each in ranked]
    norm = Normalize(min(places, default=0), max(places, default=1))
    colors = _COLORS if found.goals[0].is_higher else _COLORS.reversed()
    axes.add_collection(
        LineCollection([lines[each.number] for each in ranked], colors=[colors(norm(each)) for each in places],
                       linewidths=1.2, alpha=0.85, zorder=2)
    )  # fmt: skip
    best = [lines[each.number] for each in found.complete if each.number in found.best]
    axes.add_collection(LineCollection(best, colors=_RED, linewidths=2.2, zorder=3))
    for x, scale in enumerate(scales):
        _vertical(axes, x, scale)
    axes.set(xlim=(-0.35, count - 0.25), ylim=(-0.16, 1.06), yticks=[])
    axes.set_xticks(range(count), [_folded(scale.name) for scale in scales])
    axes.tick_params(axis="x", length=0, pad=2)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    what = "best" if len(found.goals) == 1 else "front"
    axes.set_title(f"Trials (red: {what}, grey: pruned, lighter: better)", loc="left")
    return figure


class _Scale:
    """One vertical axis, from 0 to 1; what a trial doesn't have is below it."""

    BELOW = -0.1

    def __init__(self, name: str, values: Mapping[int, Any], ticks: Sequence[tuple[float, str]], place: Any) -> None:
        self.name, self._values, self.ticks, self._place = name, values, list(ticks), place
        self.has_absent = False

    def place(self, trial: TrialRecord) -> float:
        """Return where a trial crosses it."""
        if trial.number not in self._values:
            return self.BELOW
        return float(self._place(self._values[trial.number]))

    @classmethod
    def of_axis(cls, axis: Axis, trials: Sequence[TrialRecord]) -> _Scale:
        """Return that of a parameter."""
        values = {each.number: each.values[axis.name] for each in trials if axis.name in each.values}
        if axis.kind == "choice":
            texts = [json.dumps(each) for each in axis.values]
            most = max(1, len(texts) - 1)
            ticks = [(index / most, label(value, 11)) for index, value in enumerate(axis.values)]
            found = cls(
                axis.name,
                values,
                ticks[:: math.ceil(len(ticks) / 12)],
                lambda each: texts.index(json.dumps(each)) / most,
            )
        else:
            found = cls(
                axis.name, values, *_numeric(axis.low, axis.high, is_log=axis.is_log, is_whole=axis.kind == "int")
            )
        found.has_absent = len(values) < len(trials)
        return found

    @classmethod
    def of_goal(cls, found: Findings, column: int) -> _Scale:
        """Return that of an objective."""
        values = {each.number: each.objectives[column] for each in found.valued}
        is_log = _is_log(list(values.values()), found.goals[column])
        return cls(
            found.goals[column].metric, values, *_numeric(min(values.values()), max(values.values()), is_log=is_log)
        )


def _numeric(low: float, high: float, *, is_log: bool, is_whole: bool = False) -> tuple[list[tuple[float, str]], Any]:
    """Return ticks and the place of a number."""

    def turned(number: float) -> float:
        return math.log10(number) if is_log else float(number)

    first, width = turned(low), (turned(high) - turned(low)) or 1.0

    def place(number: float) -> float:
        return (turned(number) - first) / width if high > low else 0.5

    locator: Any = (
        LogLocator(subs=(1.0, 2.0, 5.0) if width < 1.5 else (1.0,), numticks=8)
        if is_log
        else MaxNLocator(4, integer=is_whole)
    )
    inside = [each for each in locator.tick_values(low, high) if low < each < high and 0.08 < place(each) < 0.92]
    return [(place(each), label(int(each) if is_whole else float(each))) for each in (low, *inside, high)], place


def _vertical(axes: Axes, x: int, scale: _Scale) -> None:
    axes.plot([x, x], [0, 1], color="#555555", linewidth=0.9, zorder=4)
    ticks = [*scale.ticks, *([(scale.BELOW, "not set")] if scale.has_absent else [])]
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
    for place, text in ticks:
        axes.plot([x - 0.03, x], [place, place], color="#555555", linewidth=0.9, zorder=4)
        axes.text(x + 0.04, place, text, fontsize=7.5, va="center", ha="left", color="#222222", bbox=box, zorder=5)


def _folded(name: str) -> str:
    """Return a dotted name in lines."""
    first, dot, last = label(name, 40).rpartition(".")
    return f"{first}{dot}\n{last}" if len(name) > 14 else name


# -- importances ------------------------------------------------------------------------------------------------------
def importance(ranked: Mapping[str, float], count: int) -> Figure:
    """Draw how much each parameter matters.

    Args:
        ranked: Largest first.
        count: Trials that it was computed from.
    """
    shown = list(ranked.items())[:20][::-1]
    figure = Figure(figsize=(6.5, 1.1 + 0.32 * len(shown)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([label(name, 40) for name, _ in shown], [value for _, value in shown], color=_BLUE, height=0.62)
    axes.bar_label(bars, [f"{value:.2f}" for _, value in shown], padding=3, fontsize=8, color="#333333")
    axes.set_xlim(0, max(0.1, *(value for _, value in shown)) * 1.1)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_title(f"Importance of the parameters (PED-ANOVA, {count} trials)", loc="left")
    return figure


# -- slices -----------------------------------------------------------------------------------------------------------
def slices(found: Findings, names: Sequence[str]) -> Figure:
    """Draw each objective by each parameter; later trials are darker.

    Args:
        found: The search.
        names: Of the parameters that are shown.
    """
    searched = [each for each in found.searched if each.name in names]
    columns, goals = min(4, len(searched)), len(found.goals)
    rows = math.ceil(len(searched) / columns)
    figure = Figure(figsize=(2.5 * columns + 1.4, 2.5 * rows * goals + 0.7), layout="constrained")
    panels = figure.subplots(rows * goals, columns, squeeze=False, sharey=False)
    colors = ScalarMappable(Normalize(0, max(1, *(each.number for each in found.trials))), _COLORS.reversed())
    for row, column in itertools.product(range(rows * goals), range(columns)):
        goal, place = row // rows, (row % rows) * columns + column
        if place >= len(searched):
            panels[row, column].set_visible(False)
            continue
        _slice(panels[row, column], found, searched[place], goal, colors)
        if column == 0:
            panels[row, column].set_ylabel(found.goals[goal].metric)
    bar = figure.colorbar(colors, ax=panels, shrink=0.8, pad=0.015, aspect=30)
    bar.set_label("trial", fontsize=8)
    bar.locator = MaxNLocator(4, integer=True)
    bar.outline.set_visible(False)
    what = " (pruned trials: hollow)" if found.pruned else ""
    figure.suptitle(f"Objective by parameter{what}", x=0.01, ha="left", fontsize=11)
    return figure


def _slice(axes: Axes, found: Findings, axis: Axis, goal: int, colors: ScalarMappable) -> None:
    for trials, is_pruned in ((found.pruned, True), (found.complete, False)):
        shown = [each for each in trials if axis.name in each.values]
        if not shown:
            continue
        shades = colors.to_rgba(np.array([each.number for each in shown]))
        drawn: dict[str, Any] = {"facecolors": shades, "edgecolors": "none", "zorder": 3}
        if is_pruned:
            drawn = {"facecolors": "none", "edgecolors": shades, "zorder": 2, "alpha": 0.7}
        axes.scatter(
            [_x(axis, each) for each in shown], [each.objectives[goal] for each in shown], s=18, linewidths=0.9, **drawn
        )
    _value_axis(axes, "y", [each.objectives[goal] for each in found.valued], found.goals[goal])
    axes.set_xlabel(label(axis.name, 30))
    if axis.kind == "choice":
        texts = [label(each, 11) for each in axis.values]
        every = math.ceil(len(texts) / 12)
        axes.set_xticks(range(0, len(texts), every), texts[::every])
        if sum(map(len, texts)) > 18:  # they would overlap
            for each in axes.get_xticklabels():
                each.set(rotation=25, ha="right", rotation_mode="anchor")
        axes.set_xlim(-0.6, len(texts) - 0.4)
    elif axis.is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        _plain_numbers(axes.xaxis)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=axis.kind == "int", min_n_ticks=1))


def _x(axis: Axis, trial: TrialRecord) -> float:
    value = trial.values[axis.name]
    if axis.kind != "choice":
        return float(value)
    # beside each other and not on top of each other, and the same in each picture
    shift = ((trial.number * 0.618034) % 1 - 0.5) * 0.3
    return [json.dumps(each) for each in axis.values].index(json.dumps(value)) + shift


# -- front ------------------------------------------------------------------------------------------------------------
def front(found: Findings) -> Figure:
    """Draw the objectives by each other, with the trials that no other one dominates."""
    pairs = list(itertools.combinations(range(len(found.goals)), 2))
    columns = min(3, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    figure = Figure(figsize=(max(5.0, 3.4 * columns), 3.6 * rows + 0.4), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    best = [each for each in found.complete if each.number in found.best]
    for axes, (x, y) in zip(panels, pairs, strict=False):
        others = [each for each in found.valued if each.number not in found.best]
        axes.plot([each.objectives[x] for each in others], [each.objectives[y] for each in others], "o",
                  color=_GREY, markerfacecolor="none", markersize=4.5, label="other trials")  # fmt: skip
        line = sorted(best, key=lambda each: (each.objectives[x], each.objectives[y]))
        axes.plot([each.objectives[x] for each in line], [each.objectives[y] for each in line],
                  "o-" if len(pairs) == 1 else "o", color=_RED, linewidth=1, markersize=5.5, label="front")  # fmt: skip
        if len(line) <= 12:
            for each in line:
                axes.annotate(str(each.number), (each.objectives[x], each.objectives[y]), xytext=(4, 4),
                              textcoords="offset points", fontsize=7.5, color="#333333")  # fmt: skip
        _value_axis(axes, "x", [each.objectives[x] for each in found.valued], found.goals[x])
        _value_axis(axes, "y", [each.objectives[y] for each in found.valued], found.goals[y])
        axes.set_xlabel(_directed(found.goals[x]))
        axes.set_ylabel(_directed(found.goals[y]))
    for axes in panels[len(pairs) :]:
        axes.set_visible(False)
    panels[0].set_title(f"Front of {len(best)} trials", loc="left")
    _legend_below(figure, panels[0])
    return figure


def _directed(goal: Goal) -> str:
    return f"{goal.metric} ({'higher' if goal.is_higher else 'lower'} is better)"


# -- shared -----------------------------------------------------------------------------------------------------------
def _is_log(values: Sequence[float], goal: Goal) -> bool:
    """Return whether values are shown by their order of magnitude: losses that differ much."""
    return bool(values) and not goal.is_higher and min(values) > 0 and max(values) / min(values) > _LOG_RATIO


def _value_axis(axes: Axes, side: Literal["x", "y"], values: Sequence[float], goal: Goal) -> None:
    if _is_log(values, goal):
        axes.set(**{f"{side}scale": "log"})
        _plain_numbers(axes.xaxis if side == "x" else axes.yaxis)
    elif values and min(values) == max(values):
        axes.set(**{f"{side}lim": (values[0] - 0.5, values[0] + 0.5)})


def _plain_numbers(side: XAxis | YAxis) -> None:
    """Write numbers on a logarithmic axis as everywhere else."""
    side.set_major_formatter(FuncFormatter(lambda value, _: label(float(value))))
    side.set_minor_formatter(NullFormatter())


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
