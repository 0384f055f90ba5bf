"""What runs beside an unchanged program: files of the newest set put back, its progress, its new files, the stop."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import trainmaster
from torch.optim.optimizer import register_optimizer_step_post_hook
from trainmaster_api import parameters
from trainmaster_api.layout import File, Manifest
from trainmaster_api.messages import Outcome, Resume
from trainmaster_api.spec.own import Script

from trainmaster_trainer.checkpoint import protocol
from trainmaster_trainer.context import Context, Report, ReportKind, Result, Signal
from trainmaster_trainer.errors import TrainingError
from trainmaster_trainer.storage.metrics_file import MetricsLog

from . import program, workdir
from .files import OPEN_SECONDS, Keeper, Watch
from .folders import OURS
from .gate import Gate
from .relay import Relay
from .shims import Shims
from .steps import Progress, Reporter

_TICK = 0.2
_FLUSH_SECONDS = 30.0
_ALIVE_SECONDS = 30.0
_STOP_POLL = 0.2
_READ_SECONDS, _READ_TICK = 1.0, 0.02  # in which it is noticed that a file was read before the first step
_INTERRUPT_SECONDS = 10.0
"""How long a program may take to end at a KeyboardInterrupt; one that catches it is ended without its help."""


class Session:
    """What runs beside the program: a thread that reports, stores files, and carries out a stop.

    Attributes:
        ended: How the program has ended.
        test_metrics: What it measured at the end, for the result.
        saves_on_stop: Whether a shim saves and ends the program on a stop, by `end_stopped`.
        parts: What shims keep, by name.
        at_end: Called when the program has ended.
    """

    def __init__(self, context: Context, script: Script, folders: workdir.Folders) -> None:
        self.context, self.script, self.folders = context, script, folders
        self.progress = Progress()
        self.is_stopping = False
        self.ended = program.Ended()
        self.test_metrics: dict[str, float] = {}
        self.saves_on_stop = False
        self.parts: dict[str, Any] = {}
        self.at_end: list[Callable[[], None]] = []
        self._resume: Resume | None = None
        self._shims = Shims(self)
        self._keeps = context.local_rank == 0
        self._watch = Watch(folders)
        self._keeper = Keeper(context.run, folders, self._watch, context.node, context.share, self.progress)
        self._reporter = Reporter(context, self.progress, time.monotonic())
        self._relay = Relay(self.progress)
        self._log = MetricsLog(context.run)
        self._logging = threading.RLock()
        self.gate = Gate(context, self.progress, self._publish)
        self._flushed = self._alive = time.monotonic()
        self._set: Manifest | None = None
        self._has_said_read = False
        self._end = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="script-session", daemon=True)

    @property
    def was_signalled(self) -> bool:
        """Whether the program was told by its signal to save and end."""
        return self.is_stopping and self.script.stop_signal is not None

    # -- before the program ---------------------------------------------------------------------------------------
    def __enter__(self) -> Session:
        # A shell starts what runs in the background with SIGINT ignored, and every child inherits that: neither
        # `stopSignal: SIGINT` nor our own interrupt would reach the program.
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        found = workdir.newest_set(self.context.run, self.warn)
        self._set = found[1] if found else None
        self.progress.base = self._set.step if self._set else 0
        if self._keeps:
            self._put_back()
            self._keeper.follow()
            self._watch.start()
        self._await_files()
        if self.context.rank == 0:
            self.progress.metrics |= self._log.resume(self._set.step if self._set else 0)
            if self._set is not None and self.gate.is_open:
                self.gate.resume(self._log.count(self.context.objectives[0]))
        os.environ.update(self._environment())
        self._relay.start()
        trainmaster._listeners.append(self._tell)
        trainmaster._stops.append(lambda: self.is_stopping)
        self._hook = register_optimizer_step_post_hook(self.progress.count)
        self._reporter.send(ReportKind.RESUMED, step=self._set.step if self._set else 0, resume=Resume.SCRIPT)
        self._reporter.send(ReportKind.LOADED, step=self._set.step if self._set else 0)
        self._shims.start()
        gc.enable()  # turned off while modules load; the program expects it
        self._thread.start()
        return self

    def _put_back(self) -> None:
        if self._set is None:
            left, aside = workdir.begin_clean(self.context, self.folders)
            if left:
                self.warn(workdir.left_text(left))
        else:
            _, aside = workdir.put_back(self.context, self.folders, self._set)
            self._keeper.know(*workdir.stored(self._set, self.context.node))
        self._ready_mark().touch()
        if aside:
            self.warn(workdir.aside_text(aside))

    def _await_files(self) -> None:
        """Wait until local rank 0 has put the files of this node back, or moved aside what is there."""
        while not self._keeps and not self._ready_mark().exists():
            time.sleep(_READ_TICK)

    def _ready_mark(self) -> Path:
        """Return the file that says that the files are there, for this generation of ranks."""
        folder = self.context.work_dir / OURS
        folder.mkdir(parents=True, exist_ok=True)
        run, restarts = os.environ.get("TORCHELASTIC_RUN_ID", ""), os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return folder / f"ready-{run}-{restarts}-{os.environ.get('MASTER_PORT', '')}"

    @property
    def _files(self) -> dict[str, File]:
        """The files of the set, as this node gets them, by path."""
        return workdir.files_of(self._set, self.context.node) if self._set is not None else {}

    def _environment(self) -> dict[str, str]:
        folder = self.folders.watched[0]
        newest = max(self._files.items(), key=lambda item: item[1].modified or 0.0, default=None)
        return {
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
            "TRAINMASTER_CHECKPOINT_DIR": str(folder),
            "TRAINMASTER_RESUME_FROM": str(self.context.work_dir / newest[0]) if newest else "",
            "PET_NNODES": str(self.context.nodes),
            "PET_NODE_RANK": str(self.context.node),
            "PET_MASTER_ADDR": os.environ.get("MASTER_ADDR", ""),
            "PET_MASTER_PORT": os.environ.get("MASTER_PORT", ""),
            **self._relay.environment(),
            **parameters.environment(self.script),
        }

    # -- beside the program ---------------------------------------------------------------------------------------
    def _run(self) -> None:
        while not self._end.wait(_TICK):
            try:
                self._turn()
            except BaseException as error:  # noqa: BLE001 - storage that is gone ends the program, from here
                self._error = error
                self._interrupt()
                return

    def _turn(self) -> None:
        with self._logging:
            self._say_what_was_read()
            self._add(self._reporter.look())
        self._say_alive()
        if self._keeps:
            self._keeper.look()
        if self.stop_is_wanted and not self.is_stopping and not self.saves_on_stop:
            self._stop()

    def _say_what_was_read(self, *, at_the_end: bool = False) -> None:
        """Say once, at the first step, which files of the set the program has read."""
        if self._has_said_read or self.progress.first_at is None:
            return
        if self._set is None:
            self._say_what_was_brought(at_the_end)
            return
        known = self._files
        read = sorted((path for path in self._watch.reads if path in known), key=lambda p: known[p].modified or 0.0)
        is_clear = bool(read) or not self._keeps or not known
        if not is_clear and not at_the_end and time.monotonic() - self.progress.first_at < _READ_SECONDS:
            return  # the kernel's notification may be on its way
        self._has_said_read = True
        if is_clear:
            words = f"the program read {', '.join(read[-3:])}" if read else ""
            self._reporter.send(ReportKind.RESUMED, step=self._set.step, resume=self.resume, reads=words)
            return
        self.progress.base = 0
        self.gate.resume(0)
        shown = ", ".join(sorted(known)[:3])
        words = f"there are checkpoint files ({shown}) and the program read none of them: it has begun again"
        self._reporter.send(ReportKind.RESUMED, step=0, resume=self.resume, reads=words, began_again=True)
        self.warn(words)

    def _say_what_was_brought(self, at_the_end: bool) -> None:
        """Say of a run that begins which files of its code the program has read that may be of another run."""
        brought = sorted(path for path in list(self._watch.reads) if self.folders.may_be_of_another_run(path))
        assert self.progress.first_at is not None
        if not brought and not at_the_end and time.monotonic() - self.progress.first_at < _READ_SECONDS:
            return  # the kernel's notification may be on its way
        self._has_said_read = True
        if brought:
            self.warn(workdir.brought_text(brought))

    def _say_alive(self) -> None:
        """Report that a program without steps works: it uses the processor. One that hangs doesn't."""
        now = time.monotonic()
        if self.progress.first_at is not None or now - self._alive < _ALIVE_SECONDS:
            return
        times = os.times()
        used = times.user + times.system + times.children_user + times.children_system
        if used - getattr(self, "_used", 0.0) > 0.1 * (now - self._alive):
            self._reporter.send(ReportKind.READING, message="the program runs, and has made no optimizer step yet")
        self._used, self._alive = used, now

    def _add(self, metrics: dict[str, float]) -> None:
        if metrics:
            self._log.add(self.progress.step, self.progress.epoch, metrics)
        if self.context.rank == 0 and time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        protocol.check_fence(self.context.run, self.context.attempt)
        self._log.flush()

    def _publish(self) -> None:
        """Put what was told of a validation into storage, before the search is asked."""
        has_begun = self.progress.first_at is not None
        while (
            has_begun and self._set is not None and not self._has_said_read
        ):  # then it is known which validations were before
            with self._logging:
                self._say_what_was_read()
            time.sleep(_READ_TICK)
        with self._logging:
            self._add(self._reporter.look())
            self._flush()

    def _tell(self, step: int | None, total: int | None, epoch: int | None, metrics: dict[str, float]) -> None:
        """Take what the program says by `trainmaster.report`; a validation of a trial may be its end."""
        in_trial = self.gate.is_open and self.context.rank == 0
        # without the lock the metrics could be logged before the step that a validation may be
        with self._logging if in_trial else contextlib.nullcontext():
            self.progress.tell(step, total, epoch, metrics)
            is_validation = in_trial and self.gate.completes(metrics)
            if is_validation:
                self.progress.validated()
        if is_validation and self.gate.ends():
            self.end_pruned()

    def _stop(self) -> None:
        """Tell the program, or end it once its newest files are stored."""
        self.is_stopping = True
        if self.script.stop_signal is not None:
            os.kill(os.getpid(), signal.Signals[self.script.stop_signal])
            return  # it saves and ends by itself; the grace period is the driver's
        self._end_stopped()

    def _end_stopped(self, *, has_ended: bool = False) -> None:
        if self._keeps:
            deadline = time.monotonic() + self.context.job.spec.run.stop_grace_seconds / 2
            while not self._keeper.look(at_the_end=has_ended) and time.monotonic() < deadline:
                time.sleep(_STOP_POLL)
        if self.context.rank == 0:
            self._add(self.progress.take())
            self._flush()
        self.context.end(self.result(Outcome.STOPPED))

    # -- for shims ------------------------------------------------------------------------------------------------
    @property
    def stop_is_wanted(self) -> bool:
        """Whether this rank was told to stop."""
        return self.context.control.poll() is Signal.STOP

    @property
    def has_set(self) -> bool:
        """Whether an earlier attempt has left a set of files."""
        return self._set is not None

    @property
    def resume(self) -> Resume:
        """How exactly the program resumes."""
        return self._resume or Resume.SCRIPT

    def promise(self, level: Resume, words: str = "") -> None:
        """Say how exactly a part of the program resumes, and why not exactly; the least of them holds."""
        order = list(Resume)
        before = self._resume
        self._resume = level if before is None else max(before, level, key=order.index)
        if words:
            self.warn(words)
        if self._resume is not before:
            step = self._set.step if self._set else 0
            self._reporter.send(ReportKind.RESUMED, step=step, resume=self._resume)

    def was_kept(self, file: Path) -> bool:
        """Return whether a file is part of the set that this generation of ranks began with, on every rank alike."""
        return str(file.relative_to(self.context.work_dir)) in self._files

    def end_stopped(self) -> None:
        """Store the newest files and end this process as stopped; in the program's thread, when it has saved."""
        self.is_stopping = True
        self._end.set()
        self._thread.join()
        time.sleep(2 * _TICK)  # notifications of the last writes are on their way
        self._end_stopped(has_ended=True)

    def validated(self, metrics: Mapping[str, float], device: torch.device) -> None:
        """Take a validation of a framework, on every rank; ends this process if the search has decided so."""
        if self.gate.is_open and self.gate.all_end(metrics, device):
            self.end_pruned()

    def end_pruned(self) -> None:
        """End this process: the search has decided that the trial isn't continued, so nothing has to be kept."""
        self.context.end(self.result(Outcome.STOPPED))

    def _interrupt(self) -> None:
        """End the program because of an error of ours: its main thread may be anywhere, and may catch everything."""
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if self._error is not None and not self._end.wait(_INTERRUPT_SECONDS):
            self.context.fail(self._error)

    # -- after the program ----------------------------------------------------------------------------------------
    def close_files(self) -> None:
        """Store what the program wrote last. It has ended: nothing has to be waited for."""
        self._end.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        if self._keeps:
            time.sleep(2 * _TICK)  # notifications of the last writes are on their way
            deadline = time.monotonic() + OPEN_SECONDS
            while not self._keeper.look(at_the_end=True):
                if time.monotonic() > deadline:  # a process that the program left behind, perhaps
                    self.warn(
                        f"files were still changing {OPEN_SECONDS:.0f} s after the program ended; kept is the newest "
                        "set that was complete"
                    )
                    break
                time.sleep(_TICK)
        self._say_what_was_read(at_the_end=True)
        self._add(self._reporter.look())
        if self.context.rank == 0:
            self._flush()
        if self.progress.total and self.progress.step < self.progress.total:
            self.warn(
                f"the program ended with success after step {self.progress.step} of {self.progress.total} that it "
                "had announced"
            )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._end.set()
        self._hook.remove()
        self._shims.stop()
        for undo in self.at_end:
            undo()
        trainmaster._listeners.clear()
        trainmaster._stops.clear()
        self._relay.stop()
        if self._keeps:
            self._watch.stop()
        if error is not None and self._error is not None and isinstance(error, KeyboardInterrupt):
            raise self._error
        if isinstance(error, TrainingError | Exception) and self.context.rank == 0:
            with contextlib.suppress(TrainingError):
                self._add(self._reporter.look())
                self._flush()
        with contextlib.suppress(OSError, ValueError, AttributeError):  # the program may have closed or replaced it
            sys.stdout.flush()

    def result(self, outcome: Outcome) -> Result:
        """Return how the program ended."""
        stopped = self.was_signalled and outcome is Outcome.COMPLETE
        step = self.progress.step
        return Result(
            outcome=Outcome.STOPPED if stopped else outcome,
            step=step,
            total_steps=max(step, self.progress.total),
            test_metrics=self.test_metrics,
        )

    def warn(self, words: str) -> None:
        """Report a warning, once per node."""
        if self.context.local_rank == 0:
            step = self.progress.step
            self.context.report(
                Report(kind=ReportKind.WARNING, step=step, total_steps=self.progress.total, epoch=0, message=words)
            )
