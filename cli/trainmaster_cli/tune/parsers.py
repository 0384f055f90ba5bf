"""The arguments of `trainmaster tune`. Light: it is loaded for every `--help`."""

from __future__ import annotations

import argparse
import math
from typing import Any

from trainmaster_cli.cluster.parsers import namespace

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
    command = _of_job(own, "trials", "list the trials of a search", "List the trials of a search, from its storage.")
    command.add_argument(
        "--sort", choices=("number", "metric"), default="number",
        help="by number (default), or by the first objective, the best first",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print one JSON document, for programs")
    command = _of_job(
        own, "best", "print the winner as a job",
        "Print a complete TrainingJob: the one that was searched, with the values of its best trial and without "
        "`tuning`. With several objectives, --trial chooses one of the front.",
    )  # fmt: skip
    command.add_argument("--trial", metavar="NUMBER", type=_number, help="of another trial than the best")
    command = _of_job(
        own, "extend", "give a search more trials or hours",
        "Raise the number of trials or the hours of a search, or both. In a file they are set and the rest left as it "
        "is, and `trainmaster run` continues the search; a job of a cluster continues by itself.",
    )  # fmt: skip
    command.add_argument("--trials", metavar="N", type=_number, help="how many there shall be in all")
    command.add_argument("--hours", metavar="N", type=_hours, help="how many there shall be in all, such as 1.5")


def _of_job(commands: Any, name: str, summary: str, description: str) -> Any:
    command = commands.add_parser(name, help=summary, description=description)
    command.add_argument("job", metavar="JOB", help=_JOB)
    command.add_argument("--storage", metavar="URI", help="of a file: where `run` was told to store results")
    command.add_argument("-n", "--namespace", metavar="NAMESPACE", type=namespace, help="default: the context's")
    command.add_argument("--context", metavar="CONTEXT", help="of the kubeconfig; default: the current one")
    command.set_defaults(command=_run, subcommand=name)
    return command


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} must be the number of a trial, from 0")
    return int(text)


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0 < hours < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of hours above 0")
    return hours


def _run(options: argparse.Namespace) -> int:
    from .commands import run

    return run(options)
