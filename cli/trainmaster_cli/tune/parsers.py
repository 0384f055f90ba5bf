"""The arguments of `trainmaster tune`. Light: it is loaded for every `--help`."""

from __future__ import annotations

import argparse
from typing import Any

_JOB = "TrainingJob file, or the name of a job in the cluster of your kubeconfig"


def add(commands: Any) -> None:
    """Add `tune` and its commands to the subparsers of `trainmaster`."""
    tune = commands.add_parser(
        "tune", help="plan a search, see its trials, extend it",
        description="Plan a search for hyperparameters, see its trials and its best, extend it.",
    )  # fmt: skip
    own = tune.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = own.add_parser(
        "plan", help="show what a search will do, without running anything",
        description="Show the space of a search, its trials, where they are pruned, and what they are expected to "
        "cost. Nothing is run.",
    )  # fmt: skip
    command.add_argument("file", metavar="FILE", help="TrainingJob file; `-`: standard input")
    command.set_defaults(command=_run, subcommand="plan")


def _run(options: argparse.Namespace) -> int:
    from .commands import COMMANDS

    code: int = COMMANDS[options.subcommand](options)
    return code
