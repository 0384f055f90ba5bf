"""The pictures of a search: they show what was found, and whatever can't be drawn is only left out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from trainmaster_api.tuning.space import Axis
from trainmaster_trainer.tuning import drawing
from trainmaster_trainer.tuning import pictures as module
from trainmaster_trainer.tuning.findings import Findings, Goal, importances
from trainmaster_trainer.tuning.pictures import draw, pictures
from trainmaster_trainer.tuning.trials import TrialEnd, TrialRecord

LR = Axis("optimizer.lr", "", "float", 1e-4, 1e-1, is_log=True)
KIND = Axis("kind", "", "choice", values=("a", [1, 2], True, "cost in $x^2$"))
DEPTH = Axis("depth", "", "int", 1, 8, when={"kind": ("a",)})
CONSTANT = Axis("seed", "", "constant", values=(1,))
LOSS, SIZE = Goal("val/loss", False), Goal("val/accuracy", True)
DONE, PRUNED, FAILED = TrialEnd.COMPLETE, TrialEnd.PRUNED, TrialEnd.FAILED


def trial(number: int, end: TrialEnd | None, *objectives: float, **values: Any) -> TrialRecord:
    kind = KIND.values[number % 4]
    given = {"optimizer.lr": 10 ** -(1 + number % 3), "kind": kind, "seed": 1, **values}
    return TrialRecord(number, given | ({"depth": 1 + number % 8} if kind == "a" else {}), end, objectives, 3)


def found(trials: list[TrialRecord], *goals: Goal, axes: tuple[Axis, ...] = (LR, KIND, DEPTH, CONSTANT)) -> Findings:
    return Findings(goals or (LOSS,), axes, trials, frozenset([1]))


MIXED = [trial(0, DONE, 3.0), trial(1, DONE, 1.0), trial(2, PRUNED, 0.5), trial(3, FAILED), trial(4, DONE, 2.0),
         trial(5, TrialEnd.DIVERGED, float("nan")), trial(6, None, 9.0)]  # fmt: skip


def lines(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.get_lines()}


def test_history_tells_ends_apart() -> None:
    (axes,) = drawing.history(found(MIXED)).axes
    shown = lines(axes)
    assert shown["complete"].get_xydata().tolist() == [[0, 3], [1, 1], [4, 2]]
    assert shown["pruned"].get_xydata().tolist() == [[2, 0.5]]
    assert shown["pruned"].get_markerfacecolor() == "none"
    assert shown["best so far"].get_xydata().tolist() == [[0, 3], [1, 1], [4, 1], [6, 1]]
    assert shown["without a value"].get_xdata().tolist() == [3, 5]
    assert shown["without a value"].get_transform() == axes.get_xaxis_transform(), "below, and not as values"


def test_history_of_what_is_maximized_and_of_losses_that_differ_much() -> None:
    trials = [trial(0, DONE, 0.001, 0.5), trial(1, DONE, 10.0, 0.9), trial(2, DONE, 1.0, 0.7)]
    first, second = drawing.history(found(trials, LOSS, SIZE)).axes
    assert (first.get_yscale(), second.get_yscale()) == ("log", "linear")
    assert lines(second)["best so far"].get_ydata().tolist() == [0.5, 0.9, 0.9, 0.9]


def test_parallel_lines_cross_each_axis_at_the_value() -> None:
    figure = drawing.parallel(found(MIXED), ["optimizer.lr", "kind", "depth"])
    pruned, complete, best = figure.axes[0].collections
    # lr from 0.0001 to 0.1 by its exponent, the second of four kinds, no depth, values from 0.5 to 3
    assert np.allclose(best.get_segments(), [[[0, 2 / 3], [1, 1 / 3], [2, -0.1], [3, 0.2]]])
    assert len(complete.get_segments()) == 3
    assert np.allclose(pruned.get_segments()[0][-1], [3, 0])
    assert best.get_colors().tolist() == [list(to_rgba("#d1495b"))]
    assert [each.get_text() for each in figure.axes[0].get_xticklabels()][-1] == "val/loss"
    assert "not set" in [each.get_text() for each in figure.axes[0].texts]


def test_slices_have_a_panel_for_each_parameter_and_objective() -> None:
    trials = [trial(number, DONE, 1.0 + number, 0.5) for number in range(6)]
    figure = drawing.slices(found(trials, LOSS, SIZE), ["optimizer.lr", "kind", "depth"])
    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    assert [axes.get_xlabel() for axes in panels] == ["optimizer.lr", "kind", "depth"] * 2
    assert [axes.get_xscale() for axes in panels] == ["log", "linear", "linear"] * 2
    points = panels[2].collections[0].get_offsets()
    assert points.tolist() == [[1, 1.0], [5, 5.0]], "only where the parameter exists"
    assert [each.get_text() for each in panels[1].get_xticklabels()] == ["a", "[1, 2]", "true", "cost in $x…"]


def test_front_is_drawn_through_its_trials() -> None:
    trials = [trial(0, DONE, 1.0, 0.9), trial(1, DONE, 0.5, 0.6), trial(2, DONE, 2.0, 0.1)]
    figure = drawing.front(Findings((LOSS, SIZE), (LR,), trials, frozenset([0, 1])))
    assert lines(figure.axes[0])["front"].get_xydata().tolist() == [[0.5, 0.6], [1.0, 0.9]]
    assert lines(figure.axes[0])["other trials"].get_xydata().tolist() == [[2.0, 0.1]]
    assert figure.axes[0].get_ylabel() == "val/accuracy (higher is better)"


def test_importance_is_that_of_what_decides() -> None:
    """The loss is the distance of one parameter from its best value; the bad half was pruned."""
    trials = []
    for number in range(40):
        lr = 10 ** -(1 + 3 * ((number * 0.618034) % 1))
        loss = abs(np.log10(lr) + 2)
        trials.append(trial(number, PRUNED if loss > 0.5 else DONE, float(loss), **{"optimizer.lr": lr}))
    ranked = importances(found(trials))
    assert next(iter(ranked)) == "optimizer.lr"
    assert ranked["optimizer.lr"] > 0.5
    assert set(ranked) == {"optimizer.lr", "kind", "depth"}
    assert sum(ranked.values()) == pytest.approx(1)
    with pytest.raises(ValueError, match="7 trials have values, and 8 are the least"):
        importances(found(trials[:7]))


SEARCHES = {
    "none": (found([]), []),
    "all failed": (found([trial(0, FAILED), trial(1, FAILED)]), []),
    "one": (found([trial(0, DONE, 1.0)]), ["history", "parallel", "slices"]),
    "equal": (found([trial(number, DONE, 1.0) for number in range(9)]), ["history", "parallel", "slices"]),
    "all pruned": (found([trial(number, PRUNED, 1.0) for number in range(3)]), ["history", "parallel", "slices"]),
    "one parameter": (
        found([trial(number, DONE, 1.0 + number) for number in range(9)], axes=(LR,)), ["history", "parallel", "slices"]
    ),
    "constants": (found([trial(0, DONE, 1.0)], axes=(CONSTANT,)), ["history"]),
    "not finite": (found([trial(0, DONE, float("inf")), trial(1, DONE, 2.0)]), ["history", "parallel", "slices"]),
    "four objectives": (
        found([trial(number, DONE, *[number * 1.0] * 4) for number in range(9)], LOSS, SIZE, LOSS, SIZE),
        ["front", "history", "importance", "parallel", "slices"],
    ),
    "many parameters": (
        found([trial(0, DONE, 1.0, **{f"p{index}": 0.5 for index in range(40)})],
              axes=tuple(Axis(f"p{index}", "", "float", 0, 1) for index in range(40))),
        ["history", "parallel", "slices"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("search", SEARCHES)
def test_every_search_is_drawn_as_far_as_it_can_be(tmp_path: Path, search: str) -> None:
    what, names = SEARCHES[search]
    sentences = draw(Findings.decode(what.encode()), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"search-{name}.png" for name in names]
    for file in tmp_path.iterdir():
        assert file.read_bytes().startswith(b"\x89PNG")
        assert file.stat().st_size < 200_000
    if "importance" not in names and search != "one parameter":
        assert any("search-importance.png is left out: " in each for each in sentences)
    assert not [each for each in sentences if "Error" in each]


def test_picture_that_fails_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "slices", lambda *given: 1 / 0)
    sentences = draw(found(MIXED), tmp_path)
    assert "search-slices.png is left out: ZeroDivisionError: division by zero" in sentences
    assert sorted(file.name for file in tmp_path.iterdir()) == ["search-history.png", "search-parallel.png"]


def test_pictures_are_drawn_by_another_process() -> None:
    """matplotlib would stay in the driver until its end."""
    program = (
        "import sys; import trainmaster_trainer.driver.search; import trainmaster_trainer.tuning.pictures; "
        "assert 'matplotlib' not in sys.modules and 'sklearn' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    drawn, sentences = pictures(found(MIXED))
    assert list(drawn) == ["search-history.png", "search-parallel.png", "search-slices.png"]
    assert sentences == ["search-importance.png is left out: 4 trials have values, and 8 are the least"]


def test_process_that_dies_costs_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LIMIT_SECONDS", 0.01)
    assert pictures(found(MIXED))[1][0].startswith("the search's pictures are left out: Command")
    monkeypatch.setattr(module, "_LIMIT_SECONDS", 60)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert pictures(found(MIXED)) == ({}, ["pictures of the search are missing: its process ended with 1"])
