"""The command line: `trainmaster run | validate | render | dashboard | version`.

Nothing heavy is imported until a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from .errors import UserError

OK, BAD_INPUT = 0, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command. Returns the exit code; 2: the command or a file is wrong, and a sentence says what."""
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
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return OK
    return code


def validate(options: argparse.Namespace) -> int:
    """Check files; every problem is printed, nothing is started."""
    from .files import check_file, print_problems

    code = OK
    for name in options.files:
        try:
            found = check_file(name)
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
    """Print the objects that the operator would create."""
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
    """Train on this machine. A wrong file is found before anything heavy is imported."""
    from .files import check_file, print_problems

    found = check_file(options.file)
    bad = [checked for checked in found if checked.job is None]
    for checked in bad:
        print_problems(options.file, checked.problems)
    if bad:
        return BAD_INPUT
    if len(found) > 1:
        raise UserError(f"{options.file} holds {len(found)} TrainingJobs; `run` takes one")
    if options.file == "-":
        raise UserError("`run` needs a file: the run's identity and relative paths depend on it")
    from trainmaster_trainer.driver.local import main as run_local

    return run_local(options)


def dashboard(options: argparse.Namespace) -> int:
    """Open the way to the Ray dashboard of a running job, until Ctrl-C, and print the token that it asks for."""
    import subprocess

    from .dashboard import attempt_token, current_attempt, forward_command

    attempt = current_attempt(options.name, options.namespace)
    token = attempt_token(options.name, attempt, options.namespace)

    print(f"open http://localhost:8265 and enter this token: {token}", flush=True)
    try:
        return subprocess.run(forward_command(options.name, attempt, options.namespace), check=False).returncode
    except KeyboardInterrupt:
        return OK


def version(options: argparse.Namespace) -> int:
    """Print the version."""
    from trainmaster_api import __version__

    print(f"trainmaster {__version__}")
    return OK


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _namespace(text: str) -> str:
    if len(text) > 63 or re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a namespace (lower-case letters, digits and '-')")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trainmaster", description="Train a TrainingJob here, or see what a cluster would make of it."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = commands.add_parser("run", help="train on this machine", description=run.__doc__)
    command.add_argument("file", metavar="FILE", help="a TrainingJob")
    command.add_argument("--storage", metavar="URI", help="where results go; `spec`: what the file says")
    command.add_argument("--mlflow", metavar="URI", help="tracking server; `spec`: what the file says; `off`: none")
    command.add_argument("--workers", metavar="N", type=_at_least_one, help="instead of cluster.workers.count")
    command.add_argument("--fresh", action="store_true", help="begin anew instead of going on from a checkpoint")
    command.add_argument(
        "--plain", "--no-progress", dest="plain", action="store_true", help="plain lines instead of a progress display"
    )
    command.set_defaults(command=run)

    command = commands.add_parser("validate", help="say all that is wrong with a file", description=validate.__doc__)
    command.add_argument("files", metavar="FILE", nargs="+", help="TrainingJobs; `-`: standard input")
    command.set_defaults(command=validate)

    command = commands.add_parser("render", help="print what the operator would create", description=render.__doc__)
    command.add_argument("file", metavar="FILE", help="a TrainingJob; `-`: standard input")
    command.add_argument("--namespace", metavar="NAME", type=_namespace, help="instead of metadata.namespace")
    command.add_argument("--image", metavar="IMAGE", help="the operator's default image, where the job names none")
    command.set_defaults(command=render)

    command = commands.add_parser("dashboard", help="Ray dashboard of a running job", description=dashboard.__doc__)
    command.add_argument("name", metavar="NAME", help="a TrainingJob in the cluster of your kubeconfig")
    command.add_argument("--namespace", "-n", metavar="NAME", type=_namespace, help="instead of the current one")
    command.set_defaults(command=dashboard)

    command = commands.add_parser("version", help="print the version")
    command.set_defaults(command=version)
    return parser


if __name__ == "__main__":
    sys.exit(main())
