"""`trainmaster run FILE`: what the head pod does, on this machine and without pods."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from trainmaster_api.layout import FENCE, LATEST, MODEL, TEST_METRICS, Pointer, run_path
from trainmaster_api.messages import ExitCode, ExitMessage, Outcome
from trainmaster_api.reasons import FAILURE_RULES
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.validation.yaml_reader import validate_text

from trainmaster_trainer.cluster.commands import laptop_environment, make_scratch
from trainmaster_trainer.errors import TrainingError
from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.processes import adopt_orphans, kill_descendants
from trainmaster_trainer.reporting.console import PlainDisplay, RichDisplay, seconds_text, summary
from trainmaster_trainer.reporting.trackers.mlflow import RUN_FILE, flatten
from trainmaster_trainer.storage.store import open_store

RUNS = "trainmaster-runs"
MODEL_END = f"{MODEL}/data.json"  # written last: with it the run is complete
LAST = "last.json"  # the newest run of a name: its uid, and what fixed it
BAD_INPUT = 2


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """The run can't start; the message says why and what to do."""


class LocalRun:
    """One `trainmaster run`."""

    def __init__(self, options: argparse.Namespace) -> None:
        """`options`: file, storage, mlflow, workers, fresh, plain."""
        self.options = options
        self.home = Path(RUNS).absolute()
        self.job = self._job()
        self.console = Console(highlight=False, soft_wrap=True)
        self.storage_uri = self._storage_uri()
        storage = self.job.spec.storage
        self.store = open_store(self.storage_uri, storage.endpoint, storage.region, os.environ)
        self.workers = self.job.spec.cluster.workers.count
        self.uid = ""
        self.run = self.store

    # -- what is asked ------------------------------------------------------------------------------------------
    def _job(self) -> TrainingJob:
        ((job, problems),) = validate_text(Path(self.options.file).read_text())
        if job is None:
            raise Refused("\n".join(map(str, problems)))
        if self.options.workers is None:
            return job
        document = job.wire()
        document["spec"]["cluster"]["workers"]["count"] = self.options.workers
        ((changed, problems),) = validate_text(json.dumps(document))
        if changed is None:
            raise Refused(f"with --workers {self.options.workers}: " + "\n".join(map(str, problems)))
        return changed

    def _storage_uri(self) -> str:
        asked = self.options.storage
        if asked == "spec":
            if self.job.spec.storage.uri is None:
                raise Refused("--storage spec: the file has no spec.storage.uri; give one, or leave --storage out")
            return self.job.spec.storage.uri
        return str(asked) if asked and "://" in asked else str(Path(asked or RUNS).absolute())

    def _mlflow(self) -> tuple[str, str]:
        """(address, where artifacts go); empty: none."""
        asked, spec = self.options.mlflow, self.job.spec.tracking.mlflow
        if asked == "off" or (asked is None and spec is None):
            return "", ""
        if asked == "spec":
            if spec is None or spec.uri is None:
                raise Refused(
                    "--mlflow spec: the file has no spec.tracking.mlflow.uri; give one, or leave --mlflow out"
                )
            return spec.uri, ""
        if asked:
            return str(asked), ""
        return f"sqlite:///{self.home / 'mlflow.db'}", str(self.home / "mlflow-artifacts")

    # -- which run it is ----------------------------------------------------------------------------------------
    def identify(self) -> None:
        """Find the run that the file means: the newest one of its name, or a new one.

        Raises:
            Refused: The file was changed since, under the same name.
        """
        fixed = {"training": self.job.spec.training.wire(), "workers": self.workers}
        text = json.dumps(fixed, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        meta = self.job.metadata
        path = f"{meta.namespace}/{meta.name}/{LAST}"
        content = self.store.get(path)
        last: dict[str, Any] = json.loads(content) if content else {}
        if last and last["digest"] != digest and not self.options.fresh:
            raise Refused(_changed(meta.name, last["fixed"], fixed, self.options.file))
        number = last.get("number", 1)
        if last and self.options.fresh:
            number = max(last.get("numbers", {}).get(digest, 0), number if last["digest"] == digest else 0) + 1
        numbers = {**last.get("numbers", {}), digest: number}
        self.uid = digest if number == 1 else f"{digest}-{number}"
        if not last or self.options.fresh:
            data = {"digest": digest, "number": number, "numbers": numbers, "fixed": fixed}
            self.store.put(path, json.dumps(data, indent=1).encode())
        self.job = self.job.model_copy(update={"metadata": meta.model_copy(update={"uid": self.uid})})
        self.run = self.store.under(run_path(meta.namespace, meta.name, self.uid))

    def is_complete(self) -> bool:
        """Whether there is nothing left to do: the last file of the model is there."""
        return self.run.get(MODEL_END) is not None

    # -- running ------------------------------------------------------------------------------------------------
    def start(self) -> int:
        """Train, show it, say how it ended. Returns the exit code."""
        mlflow, artifacts = self._mlflow()
        meta = self.job.metadata
        self.home.mkdir(parents=True, exist_ok=True)
        if mlflow.startswith("sqlite") or not self.storage_uri.startswith("s3://"):
            (self.home / ".gitignore").write_text("*\n")
        scratch = _scratch()
        try:
            job_file, token_file, result_file = scratch / "job.json", scratch / "token", scratch / "result.json"
            job_file.write_text(json.dumps(self.job.wire()))
            token_file.write_text(secrets.token_hex(32))
            reader, writer = os.pipe()
            settings = DriverSettings(
                job_file=str(job_file),
                attempt=self._attempt(),
                workers=self.workers,
                storage_uri=self.storage_uri,
                base_dir=str(Path(self.options.file).absolute().parent),
                scratch=str(scratch),
                result_file=str(result_file),
                token_file=str(token_file),
                mlflow_uri=mlflow,
                mlflow_experiment=self._experiment(),
                mlflow_artifacts=artifacts,
                events_fd=writer,
                log_file=str(scratch / "driver.log"),
                grace_seconds=self.job.spec.run.stop_grace_seconds,
            )
            settings.write(scratch / "settings.json")
            self.console.print(
                f"{meta.namespace}/{meta.name}: {self.workers} worker{'s' * (self.workers > 1)} on this machine"
            )
            message, seconds = self._lead(settings, scratch, reader)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return self._close(message, seconds, mlflow)

    def _experiment(self) -> str:
        meta, spec = self.job.metadata, self.job.spec.tracking.mlflow
        return (spec.experiment if spec else None) or f"{meta.namespace}/{meta.name}"

    def _attempt(self) -> int:
        held = self.run.get(FENCE)
        return int(held or b"0") + 1

    def _lead(self, settings: DriverSettings, scratch: Path, reader: int) -> tuple[ExitMessage, float]:
        log = scratch / "driver.log"
        environment = laptop_environment(Path(settings.token_file), scratch, os.environ)
        adopt_orphans()
        with log.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "trainmaster_trainer.driver.attempt", str(scratch / "settings.json")],
                env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                pass_fds=[settings.events_fd], start_new_session=True,
            )  # fmt: skip
        os.close(settings.events_fd)
        with _interrupts(child, self.console), os.fdopen(reader) as events:
            seconds = self._show(events)
            code = child.wait()
        kill_descendants()  # the driver leaves its Ray behind
        if not (scratch / "result.json").exists():
            lines = log.read_text(errors="replace").splitlines()[-12:]
            text = f"the driver ended with status {code} and without a result"
            return ExitMessage(outcome=Outcome.FAILED, message=text, last_lines=lines), seconds
        found = ExitMessage.decode((scratch / "result.json").read_text())
        return found or ExitMessage(outcome=Outcome.FAILED, message="the driver's result can't be read"), seconds

    def _show(self, events: Any) -> float:
        metric, seconds = self.job.spec.checkpoint.metric, 0.0
        is_plain = self.options.plain or not self.console.is_terminal
        display = PlainDisplay(metric) if is_plain else RichDisplay(metric, self.console)
        try:
            for line in events:
                event = json.loads(line)
                seconds = event["seconds"]
                display.show(event)
        finally:
            display.close()
        return seconds

    # -- what came of it ----------------------------------------------------------------------------------------
    def _close(self, message: ExitMessage, seconds: float, mlflow: str) -> int:
        again = f"{_command('trainmaster')} run {self.options.file}"
        if message.outcome is Outcome.COMPLETE:
            self.tell_complete(seconds, mlflow, message.mlflow_run)
            return ExitCode.COMPLETE
        if message.outcome is Outcome.STOPPED:
            self.console.print(f"{message.message}\ngo on with: {again}")
            return ExitCode.STOPPED
        where = f" (rank {message.rank})" if message.rank is not None else ""
        failure = message.failure_class
        self.console.print(f"failed{f': {failure}' if failure else ''}{where}\n{message.message}", style="bold")
        for line in message.last_lines:
            self.console.print(f"  {line}", style="dim", markup=False)
        if failure:
            self.console.print(f"next: {FAILURE_RULES[failure].advice}")
        return ExitCode.FAILED

    def tell_complete(self, seconds: float | None = None, mlflow: str = "", mlflow_run: str = "") -> None:
        """The closing summary."""
        report = json.loads(self.run.get(TEST_METRICS) or b"{}")
        latest = self.run.get(LATEST)
        step = Pointer.model_validate_json(latest).step if latest else None
        run = json.loads(self.run.get(RUN_FILE) or b"{}")
        uri = self.run.uri
        shown = _near(uri)
        metrics = "  ".join(f"{name} {value:.4f}" for name, value in sorted(report.get("metrics", {}).items()))
        rows = [
            ("complete", f"{step} steps" if seconds is None else f"{step} steps in {seconds_text(seconds)}"),
            ("test", metrics),
            ("model", f"{shown}/model"),
            ("checkpoints", f"{shown}/checkpoints"),
            ("MLflow run", run.get("run_id", mlflow_run)),
        ]
        self.console.print(summary(rows))
        self.console.print("\nnext:")
        address = run.get("uri", mlflow)
        if address.startswith("sqlite"):
            database = _near(address.removeprefix("sqlite:///"))
            self.console.print(f"  {_command('mlflow')} ui --backend-store-uri sqlite:///{database}")
        self.console.print(f"  kubectl apply -f {self.options.file}    # the same job on a cluster")


def main(options: argparse.Namespace) -> int:
    """`trainmaster run`. Returns the exit code: 0 complete, 75 stopped, 1 failed, 2 bad input."""
    try:
        run = LocalRun(options)
        run.identify()
        with _only_one(run):
            if run.is_complete():
                run.tell_complete()
                run.console.print(f"  {_command('trainmaster')} run {options.file} --fresh    # train it anew")
                return ExitCode.COMPLETE
            return run.start()
    except (Refused, TrainingError) as refusal:
        print(f"trainmaster: {refusal}", file=sys.stderr)
        return BAD_INPUT


@contextlib.contextmanager
def _only_one(run: LocalRun) -> Iterator[None]:
    """Two at once on one run would fence each other off; the second gets a sentence instead."""
    folder = run.home / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{run.job.metadata.namespace}-{run.job.metadata.name}-{run.uid}").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Refused(
                f"{run.job.metadata.name} runs already, in process {lock.read().strip() or '?'}; wait for it, stop it, "
                f"or give this job another name"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextlib.contextmanager
def _interrupts(child: subprocess.Popen[bytes], console: Console) -> Iterator[None]:
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


def _changed(name: str, old: Any, new: Any, file: str) -> str:
    before, after = flatten(old), flatten(new)
    lines = [f"{file} was changed since the last run of {name}:"]
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            lines.append(f"  {key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}")
    lines.append("go on with a new run under the same name (--fresh), or give the job another metadata.name")
    return "\n".join(lines)


def _scratch() -> Path:
    try:
        return make_scratch()
    except OSError as error:
        raise Refused(str(error)) from None


def _command(name: str) -> str:
    """How a program of this environment is called from here: by its name only where the shell finds this very one."""
    own = Path(sys.executable).parent / name
    return name if shutil.which(name) == str(own) else _near(str(own))


def _near(path: str) -> str:
    """A path below the working directory, relative."""
    with contextlib.suppress(ValueError):
        return str(Path(path).relative_to(Path.cwd())) if path.startswith("/") else path
    return path
