"""One rank of an unchanged program: its working directory, the program with a session beside it, how it ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import torch
from trainmaster_api.messages import Outcome
from trainmaster_api.spec.own import Script

from trainmaster_trainer.backends.torch.threads import use_threads
from trainmaster_trainer.context import Context, Result
from trainmaster_trainer.errors import PortTaken, TrainingError
from trainmaster_trainer.references import use_folder

from . import program, workdir
from .session import Session


@contextlib.contextmanager
def join(world_size: int, cpus: float | None) -> Iterator[torch.device]:
    """Set the threads, of torch and of what the program starts."""
    threads = use_threads(cpus, world_size)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    yield torch.device("cpu")


def fit(context: Context) -> Result:
    """Run the program of a job on this rank.

    Raises:
        TrainingError: With the failure class and a message for the user.
        BaseException: Whatever the program raises.
    """
    script = context.job.spec.training.script
    assert script is not None

    def main(session: Session) -> None:
        session.ended = program.run(script, context.work_dir)

    return run_beside(context, script, main)


def run_beside(context: Context, script: Script, main: Callable[[Session], None]) -> Result:
    """Run `main` in the working directory, with a session beside it.

    Args:
        context: Of this rank.
        script: Which files are checkpoints, and how the program wants to be told to stop.
        main: The program; may set `ended` and `test_metrics` of the session.
    """
    code = workdir.prepare(context)
    use_folder(context.work_dir)
    os.chdir(context.work_dir)
    session = Session(context, script, workdir.Folders(context.work_dir, script, code))
    with session:
        try:
            main(session)
        except TrainingError:
            raise
        except KeyboardInterrupt:
            if not session.was_signalled:
                raise
            session.ended = program.Ended()  # SIGINT is what it wanted to be told by
        except Exception as error:
            if program.port_is_taken(error):
                raise PortTaken(f"the rendezvous port is taken: {error}") from error
            raise
        session.close_files()
        if not session.was_signalled:  # many programs end with 128 + the signal's number
            program.require_success(session.ended, session.progress.step)
            session.gate.require()
    return session.result(Outcome.COMPLETE)
