import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.cli import main
from testbed.errors import BedError
from testbed.procs import Proc, Processes, run, start_ticks


def test_a_process_is_found_again_and_ended(tmp_path: Path) -> None:
    proc = Processes(tmp_path).start("sleeper", ["sleep", "600"])
    again = Processes(tmp_path)
    assert again.is_alive("sleeper")
    # ended by another object than the one that started it: what counts is the record
    again.stop("sleeper")
    assert start_ticks(proc.pid) is None
    assert again.all() == []


def test_a_later_process_with_the_same_pid_is_not_ours() -> None:
    mine = start_ticks(os.getpid())
    assert mine is not None
    assert Proc("x", os.getpid(), mine, [], "").alive
    assert not Proc("x", os.getpid(), mine - 1, [], "").alive


def test_stop_kills_what_ignores_sigterm(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
    proc = processes.start("stubborn", [sys.executable, "-c", code])
    log = Path(proc.log)
    processes.wait_ready("stubborn", lambda: "ready" in log.read_text(), 20)
    processes.stop("stubborn", patience=0.2)
    assert start_ticks(proc.pid) is None


def test_a_dead_component_shows_its_last_lines(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start("etcd", ["sh", "-c", "echo no space left; exit 3"])
    with pytest.raises(BedError, match=r"etcd ended[\s\S]*no space left"):
        processes.wait_ready("etcd", lambda: False, 20)


def test_processes_of_a_test_die_with_it(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from testbed.procs import Processes
proc = Processes(pathlib.Path({str(tmp_path)!r}), die_with_parent=True).start("s", ["sleep", "600"])
while pathlib.Path(f"/proc/{{proc.pid}}/comm").read_text().strip() != "sleep":  # setpriv comes first
    os.sched_yield()
print(proc.pid, proc.started, flush=True)
os.kill(os.getpid(), 9)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    proc = Proc("s", int(said[0]), int(said[1]), [], "")
    from testbed.procs import wait_until

    assert wait_until(lambda: not proc.alive, 10)


def test_a_failed_command_says_what_it_said() -> None:
    with pytest.raises(BedError, match=r"exit code 4[\s\S]*broken"):
        run(["sh", "-c", "echo broken >&2; exit 4"])


def test_the_command_line_prints_a_sentence_and_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRAINMASTER_BED_DIR", str(tmp_path / "none"))
    assert main(["kubeconfig"]) == 1
    assert capsys.readouterr().err == "error: bed tm is not up: run `python -m testbed up` first\n"
