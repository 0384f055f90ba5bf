"""Unchanged programs: killed twice, on the same disk and on another one, they end with the files of an undisturbed run
where they themselves resume exactly."""

from __future__ import annotations

import json
import random
import shutil

import pytest

from .conftest import WARM
from .launching import PROGRAMS, Run, undisturbed

SLOWLY = ["--steps", "400", "--sleep", "0.01", "--every", "100"]
PLAIN = {"path": "plain.py", "args": SLOWLY, "checkpoints": ["out"]}


def killed_twice(run: Run, seed: int, *, new_disks: bool) -> None:
    """Kill the ranks some steps after a set was committed, twice; then let them end."""
    dice = random.Random(seed)
    for _ in range(2):
        run.start(new_disks=new_disks)
        known, more = len(run.commits), dice.randrange(3, 12)
        run.until(lambda known=known: len(run.commits) > known or _is_over(run))
        wanted = run.step + more
        run.until(lambda wanted=wanted: run.step >= wanted or _is_over(run))
        assert not _is_over(run), run.log()
        run.kill()
    run.start(new_disks=new_disks)
    run.finish()


def _is_over(run: Run) -> bool:
    return bool(run.results or run.failures)


def resumed_at(run: Run) -> list[int]:
    return [each["step"] for each in run.reports if each["kind"] == "Resumed" and each["reads"]]


@pytest.mark.parametrize("world", [1, 2])
def test_script_killed_on_other_disks(tmp_path, world):
    expected = undisturbed(tmp_path / "a", world, **PLAIN)
    run = Run(tmp_path / "b", world, **PLAIN)
    killed_twice(run, world, new_disks=True)
    assert run.model() == expected
    assert {each["reads"] for each in run.reports if each["reads"]} == {"the program read out/last.pt"}
    assert len(resumed_at(run)) == 2
    assert all(step and step % 100 == 0 for step in resumed_at(run)), "the steps that the files are of"
    assert run.results[0]["step"] == 400


def test_script_killed_on_its_disk(tmp_path):
    expected = undisturbed(tmp_path / "a", **PLAIN)
    run = Run(tmp_path / "b", **PLAIN)
    killed_twice(run, 3, new_disks=False)
    assert run.model() == expected


def test_script_files_of_every_rank(tmp_path):
    shape = {"path": "per_rank.py", "args": [], "checkpoints": ["ck"]}
    expected = undisturbed(tmp_path / "a", 2, **shape)
    assert list(expected) == ["node-0/ck/model.pt", "node-0/ck/rng-0.pt", "node-1/ck/rng-1.pt"]
    run = Run(tmp_path / "b", 2, **shape)
    run.start()
    run.until(lambda: bool(run.commits))
    run.kill()
    run.start(new_disks=True)
    run.finish()
    assert {name: run.model()[name] for name in expected} == expected


def test_script_sharded_checkpoint_is_kept_whole(tmp_path):
    """The shards of every rank and the index, which has no ending; where `checkpoints` doesn't name their folder."""
    calm, run = (Run(tmp_path / name, 2, path="sharded.py") for name in "ab")
    calm.warm = run.warm = WARM
    calm.start()
    run.start()
    run.until(lambda: bool(run.commits))
    run.kill()
    run.start(new_disks=True)
    run.finish()
    calm.finish()
    assert resumed_at(run)[0] >= 10
    assert run.results[0]["step"] == 60, "the step that torch makes to load an optimizer isn't one"
    names = ["node-0/ck/60/.metadata", "node-0/ck/60/__0_0.distcp", "node-1/ck/60/__1_0.distcp"]
    assert [each for each in run.model() if "/ck/60/" in each] == names
    assert run.model()["node-0/final.pt"] == calm.model()["node-0/final.pt"]


def test_script_that_reads_nothing_is_said(tmp_path):
    run = Run(tmp_path, path="plain.py", args=["--ignore", "--sleep", "0.02"], checkpoints=["out"])
    run.start()
    run.finish()
    run.reports.clear()
    run.start(new_disks=True)
    run.finish()
    (again,) = [each for each in run.reports if each["beganAgain"]]
    assert again["step"] == 0
    assert again["reads"].startswith("there are checkpoint files (out/last.pt) and the program read none of them")


def test_script_torn_file_is_moved_aside(tmp_path):
    run = Run(tmp_path, **PLAIN)
    run.start()
    run.until(lambda: bool(run.commits))
    run.kill()
    torn = run.disk(0) / "out" / "last.pt"
    whole = torn.read_bytes()
    torn.write_bytes(whole[:100])
    (run.disk(0) / "out" / "next.pt").write_bytes(whole[:50])
    run.start()
    run.finish()
    assert run.results[0]["step"] == 400
    assert [file.name for file in run.disk(0).glob(".trainmaster/incomplete/*/out/*")] == ["next.pt"]
    assert any("moved to .trainmaster/incomplete" in each["message"] for each in run.reports)


def test_script_first_file_is_moved_aside_where_no_set_was_complete(tmp_path):
    """Killed in its first save, on a disk that it finds again."""
    run = Run(tmp_path, path="plain.py", args=["--steps", "40", "--sleep", "0.02"], checkpoints=["out"])
    run.warm = WARM
    run.start()
    run.until(lambda: run.step > 2)
    run.kill()
    assert not run.commits
    (run.disk(0) / "out" / "last.pt").write_bytes(b"torn")
    run.attempt -= 1  # other ranks of the same attempt
    run.start()
    run.finish()
    assert run.results[0]["step"] == 40, "it doesn't read what is torn"
    assert [file.name for file in run.disk(0).glob(".trainmaster/incomplete/*/out/*")] == ["last.pt"]
    said = [each["message"] for each in run.reports if each["kind"] == "Warning"]
    assert [each.partition(" and were ")[2] for each in said] == ["moved to .trainmaster/incomplete: out/last.pt"]


def test_script_stop_keeps_the_newest_files(tmp_path):
    run = Run(tmp_path, **PLAIN)
    run.start()
    run.until(lambda: run.step > 110)
    (run.root / "stop").touch()
    run.until(lambda: bool(run.results))
    run.sets.finish(is_complete=False)
    assert run.results[0]["outcome"] == "Stopped"
    assert run.commits[-1].step >= 100


def test_script_reports_progress_itself(tmp_path):
    run = Run(tmp_path, path="without_torch.py")
    run.start()
    run.finish()
    last = [each for each in run.reports if each["kind"] in ("Step", "Validation", "FirstStep")][-1]
    assert (last["step"], last["totalSteps"], last["epoch"]) == (60, 60, 3)
    assert last["metrics"]["val/mae"] == 0.5
    assert "train/loss" in last["metrics"]
    lines = [json.loads(line) for line in (run.root / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["val/mae"] == 0.5


def test_script_checkpoint_that_came_with_the_code_is_said_and_its_successors_are_kept(tmp_path):
    """The program was run in the folder of its code before: it continues from what is there."""
    shape = {"path": "plain.py", "args": SLOWLY}
    expected = undisturbed(tmp_path / "a", **shape)
    before = Run(tmp_path / "before", path="plain.py", args=["--steps", "100", "--every", "100"])
    before.start()
    before.finish()
    code = tmp_path / "code"
    shutil.copytree(PROGRAMS, code)
    shutil.copytree(before.disk(0) / "out", code / "out")
    run = Run(tmp_path / "b", 1, code, **shape)
    run.start()
    run.until(lambda: bool(run.commits))
    run.kill()
    run.start(new_disks=True)
    run.finish()
    (said,) = [each["message"] for each in run.reports if "came with the code" in each["message"]]
    assert said.startswith("the program read out/last.pt, which came with the code")
    assert [each["reads"] for each in run.reports if each["reads"]] == ["the program read out/last.pt"]
    assert run.model() == expected


def test_script_data_that_came_with_the_code_is_no_checkpoint(tmp_path):
    run = Run(tmp_path, **{**PLAIN, "checkpoints": []})
    run.start()
    run.finish()
    assert not [each["message"] for each in run.reports if "came with the code" in each["message"]]


def test_script_files_of_another_run_are_said(tmp_path):
    """On a laptop, where a job without `code` runs in the folder of its file."""
    run = Run(tmp_path, path="without_torch.py", checkpoints=["kept"])
    run.code = run.disk(0)
    (run.disk(0) / "kept").mkdir(parents=True)
    (run.disk(0) / "kept" / "old.pt").write_bytes(b"of another run")
    shutil.copy(PROGRAMS / "without_torch.py", run.disk(0))
    run.start()
    run.finish()
    (said,) = [each["message"] for each in run.reports if "before this run began" in each["message"]]
    assert said.startswith("kept/old.pt was there before this run began")


@pytest.mark.parametrize(("declared", "given"), [(["out"], []), ([], ["given.pt"])])
def test_script_killed_before_a_set_was_stored_begins_as_it_began(tmp_path, declared, given):
    """Its own files may be torn, and of which step they are isn't known; a file of its code is there again."""
    code = tmp_path / "code"
    shutil.copytree(PROGRAMS, code)
    (code / "out").mkdir()
    for name in given:
        (code / "out" / name).write_bytes(b"of the code")
    run = Run(tmp_path / "b", 1, code, path="plain.py", args=SLOWLY, checkpoints=declared)
    out = run.disk(0) / "out"
    out.mkdir(parents=True)
    run.start()
    run.until(lambda: run.step >= 5)
    run.kill()
    assert not run.commits
    names = [*given, "last.pt"]
    for name in names:
        (out / name).write_bytes(b"torn")
    run.start()
    run.finish()
    assert run.results[0]["step"] == 400
    moved = sorted(file.name for file in run.disk(0).glob(".trainmaster/incomplete/*/out/*"))
    assert moved == names
    assert all((out / name).read_bytes() == b"of the code" for name in given)
    (said,) = [each["message"] for each in run.reports if "of no complete set" in each["message"]]
    assert said.startswith(f"{len(names)} files are of no complete set and were moved to .trainmaster/incomplete: ")
