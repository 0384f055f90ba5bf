"""The command line: `trainmaster run | data | validate | render | ls | status | logs | why | stop | ...`.

Nothing heavy is imported until a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .cluster import parsers as cluster
from .cluster.parsers import namespace
from .errors import UserError
from .extras import require_operator, require_trainer
from .tune import parsers as tune

if TYPE_CHECKING:
    from trainmaster_api.spec.tracking import Tracker

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130
_UTF8_MODE = ["-X", "utf8"]


def script() -> int:
    """Be the installed command: like `main`, with paths read as UTF-8 whatever the locale says.

    In a locale such as C or ISO-8859-1 a folder named `ü` would be another text here than in the processes that we
    start, and so another folder. Python decides this once, when it starts, hence the second start.
    """
    is_utf8 = sys.flags.utf8_mode or sys.getfilesystemencoding().lower() == "utf-8"
    if not is_utf8 and sys.orig_argv[1:3] != _UTF8_MODE:
        os.environ["PYTHONUTF8"] = "1"  # what we start inherits it
        os.execv(sys.executable, [sys.executable, *_UTF8_MODE, *sys.orig_argv[1:]])
    return main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute a command and return its exit code; 2 means that the command line or a file is invalid."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
    except UserError as error:
        print(f"trainmaster: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return OK
    return code


def validate(options: argparse.Namespace) -> int:
    """Validate TrainingJob files and print every problem. Nothing is started."""
    from .files import check_file, print_problems

    code = OK
    for name in options.files:
        try:
            found = check_file(name, imports=not options.no_imports)
        except UserError as error:
            print(f"trainmaster: {error}", file=sys.stderr)
            code = BAD_INPUT
            continue
        for checked in found:
            if checked.job is None:
                code = BAD_INPUT
                print_problems(name, checked.problems)
            else:
                print(f"{name}: TrainingJob {checked.job.metadata.name} is valid")
    return code


def render(options: argparse.Namespace) -> int:
    """Print the Kubernetes objects that the operator would create for the first attempt of a job."""
    require_operator()
    from .files import check_file, print_problems
    from .render import render_job

    code = OK
    for checked in check_file(options.file):
        if checked.job is None:
            code = BAD_INPUT
            print_problems(options.file, checked.problems)
        else:
            print(render_job(checked.job, options.namespace, options.image), end="")
    return code


def run(options: argparse.Namespace) -> int:
    """Train a job on this machine. Running the same file again resumes the run, or reports that it is complete."""
    if options.file == "-":
        raise UserError("`run` needs a file: relative paths and the identity of the run depend on it")
    require_trainer("run")
    from .files import only_job

    job = only_job(options.file, "run")
    if job is None:
        return BAD_INPUT
    options.tracking, options.trackers = _tracking(options)
    from trainmaster_trainer.driver.local import main as run_local

    return run_local(options, job)


def data(options: argparse.Namespace) -> int:
    """Read a job's data without training and print its columns, their roles, its splits and what is wrong with it."""
    require_trainer("data")
    from .files import only_job

    job = only_job(options.file, "data")
    if job is None:
        return BAD_INPUT
    from .data import show_data

    return show_data(job, Path() if options.file == "-" else Path(options.file).absolute().parent, as_json=options.json)


def _tracking(options: argparse.Namespace) -> tuple[str, list[Tracker]]:
    """Return the mode (`local`, `spec` or `off`) and the trackers that replace the file's."""
    from pydantic import ValidationError
    from trainmaster_api.spec.tracking import Mlflow, Tracker

    if options.mlflow in ("spec", "off"):
        return options.mlflow, []
    if options.mlflow is None:
        return options.tracking, []
    if options.tracking != "local":
        raise UserError(
            f"--mlflow {options.mlflow} and --tracking {options.tracking} are mutually exclusive; pass one of them"
        )
    try:
        return options.tracking, [Tracker(mlflow=Mlflow(uri=options.mlflow))]
    except ValidationError:
        raise UserError(
            f"--mlflow {options.mlflow!r} is not the address of a tracking server, such as http://mlflow:5000"
        ) from None


def dashboard(options: argparse.Namespace) -> int:
    """Forward port 8265 to the Ray dashboard of a running job until Ctrl-C, and print the token it asks for."""
    import subprocess

    from .dashboard import attempt_token, current_attempt, forward_command

    where = (options.namespace, getattr(options, "context", None))
    attempt = current_attempt(options.name, *where)
    token = attempt_token(options.name, attempt, *where)

    print(f"open http://localhost:8265 and enter this token: {token}", flush=True)
    try:
        return subprocess.run(forward_command(options.name, attempt, *where), check=False).returncode
    except KeyboardInterrupt:
        return OK


def version(options: argparse.Namespace) -> int:
    """Print the version."""
    from trainmaster_api import __version__

    print(f"trainmaster {__version__}")
    return OK


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be an integer of at least 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kubectl trainmaster" if Path(sys.argv[0]).name == "kubectl-trainmaster" else "trainmaster",
        description="Train a TrainingJob on this machine, validate it, or see and steer those of a cluster.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = commands.add_parser("run", help="train on this machine", description=run.__doc__)
    command.add_argument("file", metavar="FILE", help="TrainingJob file")
    command.add_argument(
        "--storage", metavar="URI",
        help="where to store results; `spec`: as in the file; default: ./trainmaster-runs",
    )  # fmt: skip
    command.add_argument(
        "--tracking", choices=("local", "spec", "off"), default="local",
        help="trackers of the file: `local` keeps their data on this machine (default), `spec` uses the file's "
        "addresses, `off` disables them",
    )  # fmt: skip
    command.add_argument("--mlflow", metavar="URI", help="log to this MLflow server, overriding the file")
    command.add_argument("--workers", metavar="N", type=_at_least_one, help="override cluster.workers.count")
    command.add_argument("--fresh", action="store_true", help="start a new run instead of resuming")
    command.add_argument(
        "--plain",
        "--no-progress",
        dest="plain",
        action="store_true",
        help="print plain lines instead of a progress bar",
    )
    command.set_defaults(command=run)

    command = commands.add_parser("data", help="show a job's data without training", description=data.__doc__)
    command.add_argument("file", metavar="FILE", help="TrainingJob file; `-`: standard input")
    command.add_argument("--json", action="store_true", help="print one JSON document, for programs")
    command.set_defaults(command=data)

    command = commands.add_parser(
        "validate", help="validate files and list every problem", description=validate.__doc__
    )
    command.add_argument("files", metavar="FILE", nargs="+", help="TrainingJob files; `-`: standard input")
    command.add_argument("--no-imports", action="store_true", help="don't import the code that `class` refers to")
    command.set_defaults(command=validate)

    command = commands.add_parser("render", help="print the objects the operator creates", description=render.__doc__)
    command.add_argument("file", metavar="FILE", help="TrainingJob file; `-`: standard input")
    command.add_argument("--namespace", metavar="NAME", type=namespace, help="override metadata.namespace")
    command.add_argument("--image", metavar="IMAGE", help="default trainer image, for jobs that don't set one")
    command.set_defaults(command=render)

    cluster.add(commands)
    tune.add(commands)

    command = commands.add_parser(
        "dashboard", help="open the Ray dashboard of a running job", description=dashboard.__doc__
    )
    command.add_argument("name", metavar="NAME", help="TrainingJob in the cluster of your kubeconfig")
    command.add_argument("--namespace", "-n", metavar="NAME", type=namespace, help="override the current namespace")
    command.set_defaults(command=dashboard)

    command = commands.add_parser("version", help="print the version")
    command.set_defaults(command=version)
    return parser


if __name__ == "__main__":
    sys.exit(script())
