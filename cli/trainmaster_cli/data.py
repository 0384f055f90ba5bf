"""`trainmaster data`: a job's data, read and checked as a run does it, shown without training."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from trainmaster_api.messages import ExitCode
from trainmaster_api.reasons import FAILURE_RULES, FailureClass
from trainmaster_api.spec.job import TrainingJob

from .errors import UserError
from .progress import Doing

if TYPE_CHECKING:
    from trainmaster_trainer.data.inspect import Inspection

RIGHT = ("missing", "distinct")
_USERS = (FailureClass.INVALID_CONFIGURATION, FailureClass.DATA_ERROR, FailureClass.USER_CODE_ERROR)


def show_data(job: TrainingJob, folder: Path, *, as_json: bool) -> int:
    """Print what there is to know about a job's data and return the exit code.

    Args:
        job: The valid job.
        folder: What relative paths are relative to.
        as_json: Print one JSON document.

    Raises:
        UserError: The data can't be read, or nothing may be trained on it.
    """
    from trainmaster_trainer.data.inspect import inspect
    from trainmaster_trainer.errors import TrainingError
    from trainmaster_trainer.failures import rank_error

    try:
        # what a class of the user's prints is no part of the answer, and a program that reads JSON needs no progress
        with contextlib.nullcontext() if as_json else Doing() as doing, contextlib.redirect_stdout(sys.stderr):
            found = inspect(job, folder, os.environ, *([] if doing is None else [doing.say]))
    except TrainingError as error:
        raise UserError(error.message) from None
    except Exception as error:  # noqa: BLE001 - a class of the user's may raise anything
        failure = rank_error(error, 0, "")
        lines = "\n".join(f"  {line}" for line in failure.last_lines)
        words = f"{failure.failure_class}: {failure.message.removeprefix('rank 0: ')}\n{lines}"
        if failure.failure_class in _USERS:
            raise UserError(words) from None
        print(f"trainmaster: {words}\nnext: {FAILURE_RULES[failure.failure_class].advice}", file=sys.stderr)
        return ExitCode.FAILED
    if as_json:
        print(json.dumps(found.wire(), indent=1, ensure_ascii=False))
    else:
        _print(found)
    return ExitCode.COMPLETE


def _print(found: Inspection) -> None:
    """Print lines with a table of the columns: drawn on a terminal, aligned elsewhere, where nothing is cut."""
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    for line in found.heading():
        console.print(line)
    header, *rows = found.columns() or [()]
    if rows and console.is_terminal:
        table = Table(box=box.SIMPLE_HEAD)
        for name in header:
            table.add_column(name, justify="right" if name in RIGHT else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table, soft_wrap=False)
    elif rows:
        widths = [max(len(row[index]) for row in (header, *rows)) for index in range(len(header))]
        for row in (header, *rows):
            placed = [
                cell.rjust(width) if name in RIGHT else cell.ljust(width)
                for name, cell, width in zip(header, row, widths, strict=True)
            ]
            console.print("  " + "  ".join(placed).rstrip())
    for line in found.remarks():
        console.print(line, style="yellow" if line.startswith("warning:") else None)
