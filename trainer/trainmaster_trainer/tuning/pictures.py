"""Draws a search, in a process of its own: `python -m trainmaster_trainer.tuning.pictures FOLDER < FINDINGS`.

matplotlib and what computes importances take 250 MB, which the driver would hold until its end.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .findings import Findings, importances

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HISTORY, PARALLEL, IMPORTANCE, SLICES, FRONT = (
    f"search-{each}.png" for each in ("history", "parallel", "importance", "slices", "front")
)
_LIMIT_SECONDS = 120
_MOST_AXES = 12  # parameters that a picture has room for; the most important ones are shown
_MOST_VOLUNTEERING = "1000"


def pictures(found: Findings) -> tuple[dict[str, bytes], list[str]]:
    """Return the pictures of a search by name, and a sentence for each that can't be drawn. Never raises."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-P", "-m", __name__, folder]
        try:
            done = subprocess.run(
                command, input=found.encode(), capture_output=True, text=True, timeout=_LIMIT_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return {}, [f"the search's pictures are left out: {error}"]
        drawn = {file.name: file.read_bytes() for file in sorted(Path(folder).glob("*.png"))}
        sentences = done.stdout.splitlines()
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"])[-1]
            sentences.append(f"pictures of the search are missing: {last}")
        return drawn, sentences


def draw(found: Findings, folder: Path) -> list[str]:
    """Write the pictures of a search that can be drawn.

    Returns:
        A sentence for each that can't be.
    """
    from .drawing import png

    sentences: list[str] = []
    ranked: dict[str, float] = {}
    try:
        ranked = importances(found)
    except Exception as error:  # noqa: BLE001 - without it the other pictures are drawn all the same
        sentences.append(_left_out(IMPORTANCE, str(error)))
    names = _shown(found, ranked)
    if len(names) < len(found.searched) and found.valued:
        sentences.append(f"{PARALLEL} and {SLICES} have the {len(names)} parameters that matter most")
    for name, make in _plans(found, ranked, names).items():
        try:
            (folder / name).write_bytes(png(make))
        except Exception as error:  # noqa: BLE001 - one picture less, and never a failed job
            sentences.append(_left_out(name, f"{type(error).__name__}: {error}"))
    if not found.valued:
        sentences.append("the search's pictures are left out: no trial has a value")
    return sentences


def _plans(found: Findings, ranked: dict[str, float], names: list[str]) -> dict[str, Callable[[], Figure]]:
    from . import drawing

    if not found.valued:
        return {}
    plans: dict[str, Callable[[], Figure]] = {HISTORY: lambda: drawing.history(found)}
    if names:
        plans[PARALLEL] = lambda: drawing.parallel(found, names)
        plans[SLICES] = lambda: drawing.slices(found, names)
    if len(ranked) > 1:  # of one parameter there is nothing to compare
        plans[IMPORTANCE] = lambda: drawing.importance(ranked, len(found.valued))
    if len(found.goals) > 1 and found.complete:
        plans[FRONT] = lambda: drawing.front(found)
    return plans


def _shown(found: Findings, ranked: dict[str, float]) -> list[str]:
    names = [each.name for each in found.searched]
    first = [*ranked, *(name for name in names if name not in ranked)][:_MOST_AXES]
    return [name for name in names if name in first]


def _left_out(name: str, why: str) -> str:
    return f"{name} is left out: {why}"


def main(arguments: list[str]) -> int:
    """Draw the findings of standard input into a folder; print a sentence for each picture that is missing."""
    import logging
    import warnings

    with contextlib.suppress(OSError):  # where memory is short, this process goes and not the driver
        Path("/proc/self/oom_score_adj").write_text(_MOST_VOLUNTEERING)
    warnings.simplefilter("ignore")  # about glyphs that a font hasn't
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    for sentence in draw(Findings.decode(sys.stdin.read()), Path(arguments[0])):
        print(sentence)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
