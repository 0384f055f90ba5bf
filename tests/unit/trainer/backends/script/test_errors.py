"""What users do wrong, and what they are told: the class, the sentence, their own line first."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.cluster.process import crash_lines
from trainmaster_trainer.context import Result
from trainmaster_trainer.driver.group import Agent, Fail, Group, StartRanks
from trainmaster_trainer.ipc.messages import Exited, Failed, Finished

from .launching import Run

STEPS = """
import os, sys, signal, time, pathlib
import torch
import torch.distributed as dist
world, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
if world > 1:
    dist.init_process_group("gloo")
model = torch.nn.Linear(2, 1)
net = torch.nn.parallel.DistributedDataParallel(model) if world > 1 else model
optimizer = torch.optim.SGD(model.parameters(), 0.1)
def train(steps, at=lambda step: None):
    for step in range(steps):
        at(step + 1)
        optimizer.zero_grad()
        net(torch.ones(4, 2)).sum().backward()
        optimizer.step()
"""
USER, CONFIGURATION = FailureClass.USER_CODE_ERROR, FailureClass.INVALID_CONFIGURATION
# what is done -> program, class, what the sentence says, the user's line that comes first
FAILURES: dict[str, tuple[str, FailureClass, str, str]] = {
    "at import": ("import helper", USER, "RuntimeError: not today (helper.py:2 in <module>)", "helper.py"),
    "in __init__": (
        "import torch\nclass Net(torch.nn.Module):\n    def __init__(self):\n"
        "        self.x = torch.nn.Linear(2, 1)\nNet()",
        USER, "cannot assign module before Module.__init__() call (main.py:4 in __init__)", "line 4",
    ),
    "wrong shape": (
        STEPS + "model(torch.ones(4, 3))", USER, "mat1 and mat2 shapes cannot be multiplied", 'main.py", line 17',
    ),
    "missing package": ("import notthere", USER, "No module named 'notthere'", "line 1"),
    "syntax": ("x = 1\nif x\n", USER, "SyntaxError: expected ':' (main.py, line 2)", "line 2"),
    "exit status": (
        "import sys\nprint('the reason', file=sys.stderr)\nsys.exit(3)", USER,
        "ended itself with exit status 3 before its first step; the last line that it printed to stderr: the reason",
        "line 3",
    ),
    "exit with words": ("import sys\nsys.exit('no data')", USER, "exit status 1 before its first step; the last", "2"),
    "argparse": (
        "import argparse\nargparse.ArgumentParser(prog='main.py').parse_args(['--foo'])", USER,
        "exit status 2 before its first step; the last line that it printed to stderr: main.py: error: unrecognized "
        "arguments: --foo", "line 2",
    ),
}  # fmt: skip
SUCCESSES = {
    "sys.exit(0) half-way": (STEPS + "train(5)\nsys.exit(0)", 5),
    "100 MB": (STEPS + "for _ in range(100):\n    print('x' * 2**20)\ntrain(2)", 2),
    "closes its stdout": (STEPS + "train(3)\nsys.stdout.close()", 3),
    "own SIGTERM handler": (STEPS + "signal.signal(signal.SIGTERM, lambda *_: os._exit(9))\ntrain(4)", 4),
    "changes directory": (STEPS + "os.chdir('/')\ntrain(3)", 3),
    "deletes its directory": (STEPS + "import shutil\nshutil.rmtree(os.getcwd())\ntrain(3)", 3),
}


def run_of(tmp_path: Path, text: str, world: int = 1, **script: Any) -> Run:
    code = tmp_path / "code"
    code.mkdir()
    (code / "main.py").write_text(text)
    (code / "helper.py").write_text("\nraise RuntimeError('not today')\n")
    run = Run(
        tmp_path / "r", world, code, **(script if {"path", "module"} & set(script) else {"path": "main.py", **script})
    )
    run.start()
    return run


@pytest.mark.parametrize("mistake", FAILURES)
def test_error_is_told(tmp_path, mistake):
    text, failure_class, says, first = FAILURES[mistake]
    run = run_of(tmp_path, text)
    run.until(lambda: bool(run.failures))
    found = run.failures[0]
    assert found["class"] == failure_class
    assert says in found["message"]
    assert first in found["lines"][0]
    assert not found["peer"], "so it isn't tried again"


@pytest.mark.parametrize("script", [{"path": "train.py"}, {"module": "pkg.train"}])
def test_error_program_that_is_not_there(tmp_path, script):
    run = run_of(tmp_path, "", **script)
    run.until(lambda: bool(run.failures))
    found = run.failures[0]
    assert found["class"] == CONFIGURATION
    assert found["message"].startswith(f"script.{min(script)}: ")
    assert found["message"].endswith("Python files there are helper.py, main.py")


@pytest.mark.parametrize("habit", SUCCESSES)
def test_habit_is_no_failure(tmp_path, habit):
    text, step = SUCCESSES[habit]
    run = run_of(tmp_path, text)
    run.finish()
    assert (run.results[0]["outcome"], run.results[0]["step"]) == ("Complete", step)


def test_exit_before_the_announced_end_is_said(tmp_path):
    run = run_of(tmp_path, "import trainmaster, sys\ntrainmaster.report(step=3, total_steps=9)\nsys.exit(0)")
    run.finish()
    said = [each["message"] for each in run.reports if each["kind"] == "Warning"]
    assert said == ["the program ended with success after step 3 of 9 that it had announced"]


def test_error_on_one_rank_is_the_cause(tmp_path):
    text = STEPS + "def at(step):\n    if rank == 1 and step == 7:\n        raise ValueError('row 7')\ntrain(20, at)"
    run = run_of(tmp_path, text, 2)
    run.until(lambda: len(run.failures) == 2)
    assert run.failures[0]["peer"]
    assert run.failures[1]["class"] == USER
    assert run.failures[1]["message"] == "rank 1: ValueError: row 7 (main.py:19 in at)"
    assert "line 19" in run.failures[1]["lines"][0]
    found = decided(run)
    assert (found.failure.failure_class, found.failure.rank, found.failure.recoverable) == (USER, 1, False)


def test_rank_that_ends_early_is_the_cause(tmp_path):
    run = run_of(tmp_path, STEPS + "train(5 if rank == 1 else 9)", 2)
    run.until(lambda: bool(run.failures) and bool(run.results))
    found = decided(run)
    assert (found.failure.failure_class, found.failure.recoverable) == (USER, False)
    assert found.failure.message.startswith("rank 1 ended its program with success after step 5 while rank 0 still")


def test_os_exit_is_said(tmp_path):
    run = run_of(tmp_path, STEPS + "train(3, lambda step: os._exit(0) if rank == 1 and step == 2 else None)", 2)
    run.until(lambda: bool(run.failures) and run.ranks[1].poll() is not None)
    found = decided(run)
    assert (found.failure.failure_class, found.failure.rank, found.failure.recoverable) == (USER, 1, False)
    assert "rank 1 ended its process with os._exit(0)" in found.failure.message


def decided(run: Run) -> Any:
    """What the driver makes of how the ranks ended."""
    group = Group(run.world, lambda message: 1, is_own_program=True)
    for rank in range(run.world):
        group.on_agent(Agent(rank, rank, "g", f"w-{rank}", "h"), 0.0)
    commands = []
    for rank, process in enumerate(run.ranks):
        if rank in run.results:
            commands += group.on_rank(rank, Finished(generation=1, result=Result(**_snake(run.results[rank]))), 1.0)
        elif rank in run.failures:
            said = run.failures[rank]
            failed = Failed(generation=1, failure_class=said["class"], message=said["message"], peer=said["peer"])
            commands += group.on_rank(rank, failed, 1.0)
        commands += group.on_rank(rank, Exited(generation=1, code=process.wait()), 1.0)
    (end,) = [command for command in commands + group.on_time(99.0) if isinstance(command, Fail)]
    return end


def _snake(result: dict[str, Any]) -> dict[str, Any]:
    return {"outcome": Outcome(result["outcome"]), "step": result["step"], "total_steps": result["totalSteps"]}


def test_crash_shows_the_users_line_first():
    frames = [
        '  File "/usr/lib/python3.12/ctypes/__init__.py", line 519 in string_at',
        '  File "/home/me/job/main.py", line 7 in deep',
        '  File "/home/me/job/main.py", line 9 in <module>',
        '  File "/x/trainer/trainmaster_trainer/backends/script/program.py", line 70 in run',
    ]
    other = [f'  File "/usr/lib/python3.12/threading.py", line {n} in wait' for n in range(20)]
    text = ["Fatal Python error: Segmentation fault", "", "Thread 0x1 (most recent call first):", *other, ""]
    text += ["Current thread 0x2 (most recent call first):", *frames, "", "Extension modules: numpy (total: 1)"]
    found = crash_lines("\n".join(text))
    assert found == ["Fatal Python error: Segmentation fault", frames[1], frames[2], frames[0], frames[3]]


def test_crash_is_tried_three_times():
    in_a_row = [0]

    def recovering(message: str) -> int:
        in_a_row[0] += 1
        return in_a_row[0]

    group = Group(1, recovering, is_own_program=True)
    commands = group.on_agent(Agent(0, 0, "g", "w-0", "h"), 0.0)
    for generation in range(1, 4):
        assert commands == [StartRanks(generation, "h", group.agents)]
        commands = group.on_rank(0, Exited(generation=generation, code=-11, last_lines=["mine"]), 1.0)
    (end,) = group.on_rank(0, Exited(generation=4, code=-11, last_lines=["mine"]), 1.0)
    assert (end.failure.failure_class, end.failure.last_lines) == (FailureClass.NO_PROGRESS, ["mine"])
    assert end.failure.message.endswith("last: the process of rank 0 crashed with SIGSEGV")


def test_segfault_ends_the_rank(tmp_path):
    run = run_of(tmp_path, "import ctypes\nctypes.string_at(0)")
    assert run.ranks[0].wait() == -11
    assert not run.failures


# -- stopping ----------------------------------------------------------------------------------------------------------
HANDLER = (
    STEPS
    + """
path = pathlib.Path("ck.pt")
state = {"step": 0}
def save(number, frame):
    torch.save(state, path)
    sys.exit(128 + number)
signal.signal(signal.SIGUSR1, save)
def at(step):
    state["step"] = step
    time.sleep(0.02)
train(10_000, at)
"""
)


def test_stop_signal_lets_the_program_save(tmp_path):
    run = run_of(tmp_path, HANDLER, stopSignal="SIGUSR1")
    run.until(lambda: run.step > 3)
    (run.root / "stop").touch()
    run.finish()
    assert run.results[0]["outcome"] == "Stopped"
    assert [each.path for each in run.sets._newest.files] == ["node-0/ck.pt"]
    assert run.commits[-1].step >= 3


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["as usual", "ignored"])
def test_stop_by_interrupt_is_no_failure(tmp_path, handler):
    before = signal.signal(signal.SIGINT, handler)  # which a rank inherits where it is ignored
    try:
        run = run_of(tmp_path, STEPS + "train(10_000, lambda step: time.sleep(0.02))", stopSignal="SIGINT")
    finally:
        signal.signal(signal.SIGINT, before)
    run.until(lambda: run.step > 3)
    (run.root / "stop").touch()
    run.finish()
    assert run.results[0]["outcome"] == "Stopped"


def test_stop_without_a_signal_leaves_handlers_alone(tmp_path):
    text = STEPS + "signal.signal(signal.SIGTERM, lambda *_: os._exit(9))\ntrain(10_000, lambda step: time.sleep(0.02))"
    run = run_of(tmp_path, text)
    run.until(lambda: run.step > 3)
    (run.root / "stop").touch()
    run.until(lambda: bool(run.results))
    assert run.results[0]["outcome"] == "Stopped"
    assert run.ranks[0].wait() == 0


def test_interrupt_that_is_swallowed_ends_all_the_same(tmp_path):
    """Storage is gone: the program is told by a KeyboardInterrupt, catches it, and is ended without its help."""
    loop = "\nwhile True:\n    try:\n        train(10_000, lambda step: time.sleep(0.02))\n"
    loop += "    except BaseException:\n        pass"
    run = run_of(tmp_path, STEPS + loop)
    run.until(lambda: run.step > 3)
    (run.root / "FENCE").write_text("99")
    (run.root / "stop").touch()
    run.until(lambda: bool(run.failures))
    assert run.failures[0]["class"] == FailureClass.CANCELLED
    assert "attempt 99 has claimed this run" in run.failures[0]["message"]
