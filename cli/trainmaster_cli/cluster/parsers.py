"""The arguments of the commands on a cluster. Light: it is loaded for every `--help`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

_PARENT = "TrainingJob in the cluster of your kubeconfig"
WHY_CODES = "exit code: 0 nothing is wrong, 1 it failed or its spec is invalid, 2 it can't be told, 3 it waits"

SUBMIT_CODES = "exit code: 0 complete or detached, 1 it failed or was deleted, 2 invalid input or no access"


def namespace(text: str) -> str:
    """Return the name of a namespace, or refuse it."""
    if len(text) > 63 or re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid namespace (lower-case letters, digits and '-')")
    return text


def add(commands: Any) -> None:
    """Add the commands to the subparsers of `trainmaster`."""
    _submit(commands)
    _ls(commands)
    _status(commands)
    _logs(commands)
    command = _command(commands, "why", "say why a job is as it is", "Say in one sentence why a job is as it is.")
    command.epilog = WHY_CODES
    command = _command(
        commands, "stop", "suspend a job: save, then stop",
        "Suspend a job: it saves a checkpoint, then its pods go. Waits for it on a terminal.",
    )  # fmt: skip
    command.add_argument("--wait", action=argparse.BooleanOptionalAction, help="wait until it is suspended")
    _command(commands, "resume", "continue a suspended job", "Continue a suspended job from its newest checkpoint.")
    command = _command(
        commands, "open", "open a job's page in its tracker",
        "Print the address of a job's run in its tracker, and open it in the browser.",
    )  # fmt: skip
    command.add_argument("--tracker", metavar="TRACKER", help="which one, of several")
    command.add_argument("--dashboard", action="store_true", help="the Ray dashboard, forwarded until Ctrl-C")
    command.add_argument("--print", action="store_true", dest="only_print", help="only print the address")
    command = _command(
        commands, "fetch", "copy a job's model to this disk",
        "Copy the model of a job, its exports and its report from storage to a folder, and print their checksums.",
    )  # fmt: skip
    command.add_argument("-o", "--output", metavar="FOLDER", type=Path, help="new or empty; default: named as the job")


def _submit(commands: Any) -> None:
    command = _command(
        commands, "submit", "train in the cluster",
        "Validate a file, pack the code that it names, bring both into the cluster and follow the job. Ctrl-C leaves "
        "it running.",
        with_name=False,
    )  # fmt: skip
    command.add_argument("file", metavar="FILE", help="TrainingJob file")
    command.add_argument("--watch", action="store_true", help="submit again whenever the code or the file changes")
    command.add_argument("--replace", action="store_true", help="delete a job of this name that differs")
    command.add_argument("--dry-run", action="store_true", help="print what would be applied; send nothing")
    command.add_argument("--detach", action="store_true", help="don't follow the job")
    command.epilog = SUBMIT_CODES


def _ls(commands: Any) -> None:
    command = _command(commands, "ls", "list jobs", "List the TrainingJobs of a namespace.", with_name=False)
    command.add_argument("-A", "--all-namespaces", action="store_true", help="list those of all namespaces")
    command.add_argument("-o", "--output", choices=("wide", "json", "name"), help="wide: with the reason")


def _status(commands: Any) -> None:
    command = _command(commands, "status", "show a job", "Show how far a job is, what it saved, and what went wrong.")
    command.add_argument("-w", "--watch", action="store_true", help="keep showing it until it has finished, or Ctrl-C")
    command.add_argument("-o", "--output", choices=("json",), help="print the TrainingJob instead")


def _logs(commands: Any) -> None:
    command = _command(
        commands, "logs", "print what a job's processes printed",
        "Print what the driver and rank 0 printed, in order: from the pods while they are there, from storage "
        "afterwards.",
    )  # fmt: skip
    command.add_argument("-f", "--follow", action="store_true", help="keep printing until the job has finished")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--rank", metavar="N", type=int, help="print only what this rank printed")
    which.add_argument("--all", action="store_true", dest="everything", help="print what all pods printed")
    command.add_argument("-p", "--previous", action="store_true", help="print that of the attempt before")
    command.add_argument("--timestamps", action="store_true", help="print the time before each line")


def _command(commands: Any, name: str, summary: str, description: str, *, with_name: bool = True) -> Any:
    command = commands.add_parser(name, help=summary, description=description)
    if with_name:
        command.add_argument("name", metavar="NAME", help=_PARENT)
    command.add_argument("-n", "--namespace", metavar="NAMESPACE", type=namespace, help="default: the context's")
    command.add_argument("--context", metavar="CONTEXT", help="of the kubeconfig; default: the current one")
    command.set_defaults(command=_run, subcommand=name)
    return command


def _run(options: argparse.Namespace) -> int:
    from trainmaster_cli.extras import require_cluster

    require_cluster(options.subcommand)
    from .commands import COMMANDS

    code: int = COMMANDS[options.subcommand](options)
    return code
