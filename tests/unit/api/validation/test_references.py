"""References of a job, imported in a process of their own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.validation.references import check_references
from trainmaster_api.validation.validate import validate

from tests.unit.api.samples import job

CODE = """
class Net:
    def __init__(self, hidden, outputs): ...

class Lion:
    def __init__(self, params, lr, betas=(0.9, 0.99)): ...

class Kappa:
    def __init__(self, weights=None): ...

class Rows:
    def __init__(self, base_dir, year): ...

def focal(output, target, gamma=2.0): ...

def ramp(step, total_steps, power=1): ...
"""
OWN: dict[str, Any] = {
    "spec.training.model": {"class": "own:Net", "args": {"hidden": [1]}},
    "spec.training.optimizer": {"class": "own:Lion", "lr": 0.1, "args": {"betas": [0.9, 0.9]}},
    "spec.training.schedule": {"class": "own:ramp", "args": {"power": 2}},
    "spec.training.data": {"class": "own:Rows", "args": {"year": 2020}},
    "spec.training.task.loss": {"class": "own:focal"},
    "spec.training.task.metrics": [{"name": "f1"}, {"class": "own:Kappa"}],
}


def said(folder: Path, *changes: dict[str, Any], code: str = CODE, **more: Any) -> list[str]:
    (folder / "own.py").write_text(code)
    found, problems = validate(job(*changes))
    assert found is not None, problems
    return [str(problem) for problem in check_references(found, folder, **more)]


def test_what_fits_has_no_problem(tmp_path: Path) -> None:
    assert said(tmp_path, OWN) == []


def test_a_job_without_references_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert said(tmp_path) == []


def test_reference_problems_all_at_once(tmp_path: Path) -> None:
    found = said(
        tmp_path,
        OWN,
        {
            "spec.training.model.args": {"hiden": 3},
            "spec.training.optimizer": {"class": "own:Lyon", "lr": 0.1},
            "spec.training.schedule.args": {"pover": 3},
            "spec.training.data.args": {},
            "spec.training.task.loss.args": {"output": 1},
            "spec.training.task.metrics": [{"class": "owm:Kappa"}],
        },
    )
    assert found == [
        "spec.training.data.args: Rows needs year",
        "spec.training.model.args.hiden = 3: Net has no such argument; its arguments are hidden; "
        "did you mean `hidden`?",
        "spec.training.model.args: Net needs hidden",
        "spec.training.optimizer.class = \"own:Lyon\": own has no 'Lyon'; did you mean `Lion`?",
        "spec.training.schedule.args.pover = 3: ramp has no such argument; its arguments are power; "
        "did you mean `power`?",
        "spec.training.task.loss.args.output = 1: focal has no such argument; its arguments are gamma",
        f"spec.training.task.metrics[0].class = \"owm:Kappa\": no module 'owm' in {tmp_path} or among the installed "
        "packages; did you mean `own`?",
    ]


def test_weight_decay_is_an_argument_only_where_it_is_given(tmp_path: Path) -> None:
    (line,) = said(tmp_path, OWN, {"spec.training.optimizer.weightDecay": 0.1})
    assert line == "spec.training.optimizer.weightDecay: Lion takes no argument weight_decay"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import json\njson.loads('{')\n", "can't be imported: JSONDecodeError: Expecting .* \\(own.py:2\\)"),
        ("class Net(:\n", "can't be imported: SyntaxError: invalid syntax \\(own.py:1\\)"),
        ("import no_such_package\n", "can't be imported: ModuleNotFoundError: .*'no_such_package' \\(own.py:1\\)"),
        ("raise SystemExit(3)\n", "can't be imported: SystemExit: 3 \\(own.py:1\\)"),
        ("import os, sys\nprint('last words', file=sys.stderr)\nos._exit(7)\n", "exit code 7\\): last words"),
        ("import os\nos.kill(os.getpid(), 11)\n", "ended the process \\(exit code -11\\): without a word"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_problem(tmp_path: Path, code: str, words: str) -> None:
    (line,) = said(tmp_path, {"spec.training.model": {"class": "own:Net"}}, code=code)
    assert line.startswith('spec.training.model.class = "own:Net": ')
    import re

    assert re.search(words, line), line


def test_module_that_prints_or_leaves_threads_does_no_harm(tmp_path: Path) -> None:
    code = "import threading, time\nprint('hello')\nthreading.Thread(target=time.sleep, args=(600,)).start()\n" + CODE
    assert said(tmp_path, OWN, code=code) == []


def test_a_module_that_hangs_is_a_problem(tmp_path: Path) -> None:
    code = "import threading\nthreading.Event().wait()\n"
    (line,) = said(tmp_path, {"spec.training.model": {"class": "own:Net"}}, code=code, seconds=2)
    assert "importing it took longer than 2 s; a module must not block while it is imported" in line


def test_an_entry_point_is_checked_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "zoo-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[trainmaster.models]\nzoo/net = own:Net\n")
    model = {"spec.training.model": {"name": "zoo/net", "args": {"hiden": 1, "hidden": 2}}}
    assert said(tmp_path, {"spec.training.model": {"name": "elsewhere/net", "args": {"hiden": 1}}}) == []
    (line,) = said(tmp_path, model)
    assert line.startswith("spec.training.model.args.hiden = 1: Net has no such argument")
