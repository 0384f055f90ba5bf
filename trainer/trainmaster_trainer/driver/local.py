"""`trainmaster run FILE`: what the head pod does, on this machine and without pods."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from trainmaster_api.archive import remove
from trainmaster_api.layout import FENCE, MODEL, run_path
from trainmaster_api.messages import ExitCode, ExitMessage, Outcome
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.tracking import Tracker, merge, names
from trainmaster_api.types import parse_quantity
from trainmaster_api.validation.yaml_reader import validate_text

from trainmaster_trainer.cluster.commands import laptop_environment
from trainmaster_trainer.data.entries import Entry
from trainmaster_trainer.data.identity import changes_since, stored
from trainmaster_trainer.errors import StorageDenied, StorageUnavailable, TrainingError
from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.kernel import cores
from trainmaster_trainer.processes import adopt_orphans, is_running_below, kill_descendants
from trainmaster_trainer.reporting.console import PlainDisplay, RichDisplay
from trainmaster_trainer.reporting.event import RunEvent
from trainmaster_trainer.reporting.trackers.base import local_entry
from trainmaster_trainer.storage.store import open_store
from trainmaster_trainer.tuning.trials import RESULT

from . import own_code
from .identity import Identity, Record, Refused, data_changed, identify, record_path
from .no_result import explain
from .own_code import packed
from .places import folder_beside, folder_of, near, only_one, short_scratch, storage_address
from .rank_output import collected
from .summary import fresh, print_complete, print_failed, print_fresh_hint, print_stopped

MODEL_END = f"{MODEL}/data.json"  # written last: with it the run is complete
BAD_INPUT = 2


class LocalRun:
    """One `trainmaster run`."""

    def __init__(self, options: argparse.Namespace, job: TrainingJob) -> None:
        """Take what is asked for; nothing is written yet.

        Args:
            options: file, storage, tracking, trackers, workers, fresh, plain.
            job: The valid job of the file.

        Raises:
            Refused: The options don't fit the job.
        """
        self.options = options
        self.job = _with_workers(job, options.workers)
        self.base_dir = folder_of(options.file)
        # what is printed comes from elsewhere, and `[/mnt]` or `:x:` in it is no markup
        self.console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
        self.storage = storage_address(options.storage, self.job)
        self.folder = folder_beside(self.storage)
        self.tracking = _tracking(options, self.job, self.folder)
        storage = self.job.spec.storage
        self.store = open_store(str(self.storage), storage.endpoint, storage.region, os.environ)
        self.workers = self.job.spec.cluster.workers.count
        self.code = packed(self.job, self.base_dir, self.folder)
        self.packages: Entry | None = None
        self.identity = Identity("", {}, is_changed=False)
        self.run = self.store

    # -- which run it is ----------------------------------------------------------------------------------------
    def identify(self) -> None:
        """Find the run that the file means. Raises Refused if the file was changed since, under the same name."""
        meta = self.job.metadata
        content = self.store.get(record_path(self.job))
        last: Record | None = json.loads(content) if content else None
        self.identity = identify(
            self.job, last, is_fresh=self.options.fresh, file=self.options.file, code=self.code,
            changed_files=lambda: self._changed_files(last or {}),
        )  # fmt: skip
        update = meta.model_copy(update={"uid": self.identity.uid})
        self.job = self.job.model_copy(update={"metadata": update})
        self.run = self.store.under(run_path(meta.namespace, meta.name, self.identity.uid))

    def _changed_files(self, last: Record) -> list[str]:
        meta = self.job.metadata
        before = self.store.under(run_path(meta.namespace, meta.name, last["uid"]))
        return own_code.changes_since(before, last.get("archive", ""), self.code)

    def note(self) -> None:
        """Write down which run is the newest of its name, and keep its code."""
        if self.code is not None:
            own_code.keep(self.run, self.code)
        if self.identity.is_changed:
            self._write_record(self.identity.record)

    def is_complete(self) -> bool:
        """Whether there is nothing left to do: the last file of the model is there, and the run wasn't made longer."""
        tuning = self.job.spec.tuning
        if tuning is not None:
            result = json.loads(self.run.get(RESULT) or b"{}")
            if result.get("budget") != tuning.budget.wire():
                return False  # it isn't over, or was extended since
            if not tuning.final_run.enabled or len(tuning.objectives) > 1:
                return True
        return not self.identity.is_outgrown and self.run.get(MODEL_END) is not None

    def require_same_data(self) -> str:
        """Compare the data with what the run began with. Nothing is written or started.

        Returns:
            Why it couldn't be compared; empty: it is the same, or the run is new.

        Raises:
            Refused: It has changed. The message says what, and offers a new run.
        """
        known = stored(self.run)
        if known is None:
            return "the run has no fingerprint of its data" if self.is_complete() else ""
        data = self.job.spec.training.data_or_none
        if not known.digest or data is None or data.source is None:
            return f"{known.source} is not compared until the run is continued"
        changes = changes_since(known, self.job, self.base_dir, os.environ)
        if changes:
            model = f"{near(self.run.uri)}/{MODEL}" if self.is_complete() else None
            raise Refused(data_changed(self.options.file, changes, model=model, again=fresh(self.options.file)))
        return ""

    def _write_record(self, record: Record) -> None:
        self.store.put(record_path(self.job), json.dumps(record, indent=1).encode())

    # -- running ------------------------------------------------------------------------------------------------
    def start(self) -> int:
        """Train, show it, and say how it ended. Returns the exit code."""
        meta = self.job.metadata
        if self.options.storage is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / ".gitignore").write_text("*\n")
        scratch = short_scratch()
        try:
            self._tell_what_is_left_out()
            code_dir = own_code.unpacked(self.job, self.code, os.environ, scratch)
            self.packages = own_code.packages(self.job, code_dir, os.environ)
            reader, writer = os.pipe()
            settings = self._settings(scratch, writer, code_dir)
            settings.write(scratch / "settings.json")
            many = "s" * (self.workers > 1)
            self.console.print(f"{meta.namespace}/{meta.name}: {self.workers} worker{many} on this machine")
            message, seconds = self._lead(settings, scratch, reader)
        finally:
            remove(scratch)  # the code in it is read-only
        return self._close(message, seconds)

    def _tell_what_is_left_out(self) -> None:
        for sentence in self.code.left_out if self.code is not None else ():
            self.console.print(sentence, style="dim")

    def _settings(self, scratch: Path, events: int, code_dir: Path | None) -> DriverSettings:
        job_file, token_file = scratch / "job.json", scratch / "token"
        code = self.job.spec.training.code
        job_file.write_text(json.dumps(self.job.wire()))
        token_file.write_text(secrets.token_hex(32))
        return DriverSettings(
            job_file=str(job_file),
            attempt=int(self.run.get(FENCE) or b"0") + 1,
            storage_uri=str(self.storage),
            base_dir=str(self.base_dir),
            code_dir=str(code_dir or ""),
            work_dir=str(self._work_dir()),
            worker_cpus=self._worker_cpus(),
            code_sha256=self.code.sha256 if self.code else code.archive_sha256 if code else "",
            git_file=own_code.note_git(self.job, self.base_dir, self.code, scratch),
            scratch=str(scratch),
            result_file=str(scratch / "result.json"),
            token_file=str(token_file),
            tracking=tuple(entry.wire() for entry in self.tracking),
            events_fd=events,
            log_file=str(scratch / "driver.log"),
        )

    def _worker_cpus(self) -> float | None:
        """Return the cores that the file declares for a worker, if this machine has them; None: it declares none.

        The number of threads decides the order of sums: with that of the pods the weights are those of the cluster.
        """
        workers = self.job.spec.cluster.workers
        if "cpus" not in workers.model_fields_set:
            return None
        return min(float(parse_quantity(workers.cpus)), max(1.0, cores() / self.workers))

    def _work_dir(self) -> Path:
        """Return where a program of the user's own runs: a copy of its code with a constant path, else the folder."""
        if self.job.spec.training.code is None:
            return self.base_dir
        meta = self.job.metadata
        return self.folder / ".work" / run_path(meta.namespace, meta.name, self.identity.uid)

    def _lead(self, settings: DriverSettings, scratch: Path, reader: int) -> tuple[ExitMessage, float]:
        log = scratch / "driver.log"
        environment = laptop_environment(
            Path(settings.token_file), scratch, {**os.environ, **own_code.variables(self.packages)}
        )
        adopt_orphans()
        # -P: a `queue.py` or `random.py` beside the job must not take the place of Python's own
        command = [sys.executable, "-P", "-m", "trainmaster_trainer.driver.attempt", str(scratch / "settings.json")]
        output = collected(scratch, environment, self.run, settings.attempt, self.console)
        with output as environment, log.open("wb") as file:
            child = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT, pass_fds=[settings.events_fd], start_new_session=True,
            )  # fmt: skip
            os.close(settings.events_fd)
            with _interrupts(child), os.fdopen(reader) as events:
                seconds = self._show(events)
                code = child.wait()
        raylet_lives = is_running_below("raylet")
        kill_descendants()  # the driver leaves its Ray behind
        if not (scratch / "result.json").exists():
            lines = log.read_text(errors="replace").splitlines()
            started = (scratch / "ray").is_dir()
            return explain(code, lines, raylet_started=started, raylet_lives=raylet_lives), seconds
        found = ExitMessage.decode((scratch / "result.json").read_text())
        return found or ExitMessage(outcome=Outcome.FAILED, message="the driver's result can't be read"), seconds

    def _show(self, events: Iterable[str]) -> float:
        metric, seconds = self.job.spec.checkpoint.metric, 0.0
        is_plain = self.options.plain or not self.console.is_terminal
        display = PlainDisplay(metric) if is_plain else RichDisplay(metric, self.console)
        try:
            for line in events:
                event: dict[str, Any] = json.loads(line)
                seconds = RunEvent.read(event).seconds
                display.show(event)
        finally:
            display.close()
        return seconds

    # -- what came of it ----------------------------------------------------------------------------------------
    def _close(self, message: ExitMessage, seconds: float) -> int:
        if message.outcome is Outcome.COMPLETE:
            if self.identity.is_outgrown:
                self._write_record(self.identity.completed())
            self.tell_complete(seconds)
            return ExitCode.COMPLETE
        if message.outcome is Outcome.STOPPED:
            print_stopped(self.console, message, self.options.file)
            return ExitCode.STOPPED
        print_failed(self.console, message)
        return ExitCode.FAILED

    def tell_complete(self, seconds: float | None = None) -> None:
        """Print the closing summary."""
        print_complete(
            self.console,
            self.run,
            names(self.tracking),
            self.options.file,
            seconds,
            has_code=self.job.spec.training.code is not None,
        )


def main(options: argparse.Namespace, job: TrainingJob) -> int:
    """Carry out `trainmaster run`.

    Returns:
        The exit code: 0 complete, 75 stopped, 1 failed, 2 bad input, which changed data of a known run is, too.
    """
    try:
        run = LocalRun(options, job)
        run.identify()
        with only_one(run.folder, run.job):
            unknown = run.require_same_data()
            run.note()
            if run.is_complete():
                run.tell_complete()
                if unknown:
                    run.console.print(f"  # whether the data has changed since is unknown: {unknown}")
                print_fresh_hint(run.console, options.file)
                return ExitCode.COMPLETE
            return run.start()
    except Refused as refusal:
        print(f"trainmaster: {refusal}", file=sys.stderr)
    except (StorageDenied, StorageUnavailable) as error:
        hint = "" if options.storage else "; --storage DIRECTORY stores results elsewhere"
        print(f"trainmaster: {error}{hint}", file=sys.stderr)
    except TrainingError as error:
        print(f"trainmaster: {error}", file=sys.stderr)
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, a read-only folder, no more processes: never our fault
        where = f"{error.filename}: " if error.filename else ""
        print(f"trainmaster: {where}{(error.strerror or str(error)).lower()}", file=sys.stderr)
    return BAD_INPUT


def _with_workers(job: TrainingJob, workers: int | None) -> TrainingJob:
    if workers is None:
        return job
    document = job.wire()
    document["spec"]["cluster"]["workers"]["count"] = workers
    ((changed, problems),) = validate_text(json.dumps(document))
    if changed is None:
        raise Refused(f"with --workers {workers}: " + "\n".join(map(str, problems)))
    return changed


def _tracking(options: argparse.Namespace, job: TrainingJob, folder: Path) -> list[Tracker]:
    """The trackers of this run: the file's, kept on this machine unless the command line says otherwise."""
    entries = job.spec.tracking
    if options.tracking == "off":
        return []
    if options.tracking == "spec":
        missing = [
            f"spec.tracking[{index}].{entry.kind}.{field}"
            for index, entry in enumerate(entries)
            for field in getattr(entry.settings, "required_in_cluster", ())
            if getattr(entry.settings, field) is None
        ]
        if missing or not entries:
            what = ", ".join(missing) or "spec.tracking"
            raise Refused(f"--tracking spec: the file has no {what}; add it, or leave --tracking out")
        return list(entries)
    asked: list[Tracker] = options.trackers
    kinds = {entry.kind for entry in asked}
    kept = [entry for entry in entries if entry.kind not in kinds]
    overridden = [merge([wanted], [entry])[0] for wanted in asked for entry in entries if entry.kind == wanted.kind]
    added = [wanted for wanted in asked if wanted.kind not in {entry.kind for entry in entries}]
    return [*(local_entry(entry, folder) for entry in kept), *overridden, *added]


@contextlib.contextmanager
def _interrupts(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """The first Ctrl-C saves and stops, the second ends at once."""
    asked = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            return
        asked = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGTERM)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
