"""The parts of the backend that need no process: counting steps, naming metrics, choosing files."""

from __future__ import annotations

import hashlib
import io
import os
import random
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainmaster_api.layout import File, Manifest
from trainmaster_api.spec.own import Script
from trainmaster_trainer.backends.script import session as session_module
from trainmaster_trainer.backends.script.files import Keeper, Watch
from trainmaster_trainer.backends.script.program import Tail
from trainmaster_trainer.backends.script.relay import Relay
from trainmaster_trainer.backends.script.steps import Moment, Progress, last_before, metric_name
from trainmaster_trainer.backends.script.workdir import Folders, files_of, stamp_of
from trainmaster_trainer.storage.store import Store


class Optimizer:
    """Something that torch's hook passes on."""


@given(st.lists(st.integers(0, 2), max_size=40))
def test_steps_are_those_of_the_busiest_optimizer(calls):
    progress, optimizers = Progress(), [Optimizer() for _ in range(3)]
    progress.base = 100
    for each in calls:
        progress.count(optimizers[each])
    assert progress.step == 100 + max((calls.count(each) for each in range(3)), default=0)


def test_steps_that_are_told_go_before_those_counted():
    progress = Progress()
    progress.count(Optimizer())
    progress.tell(7, 20, 2, {"loss": 0.5})
    progress.count(Optimizer())
    assert (progress.step, progress.total, progress.epoch) == (7, 20, 2)
    assert progress.take() == {"train/loss": 0.5}
    assert progress.take() == {}


class Three:
    def __init__(self):
        self.followed = []

    def step_at(self, modified):
        return 3

    def follow(self, places):
        self.followed = list(places())


def test_step_at_the_time_of_a_file():
    progress, optimizer = Progress(), Optimizer()
    progress.base = 10
    before = time.time() - 1
    progress.count(optimizer)
    middle = progress._history[-1].at
    progress._history.append(Moment(middle + 5, middle + 5, 12))
    assert [progress.step_at(each) for each in (before, middle, middle + 4.9, middle + 5, middle + 99)] == [
        10, 11, 11, 12, 12,
    ]  # fmt: skip


@pytest.mark.parametrize("step_seconds", [0.0002, 0.001, 0.003, 0.005, 0.05])
@pytest.mark.parametrize("save_seconds", [0.0002, 0.001, 0.02])
@pytest.mark.parametrize("is_followed", [True, False])
def test_step_at_a_file_of_the_same_tick(step_seconds, save_seconds, is_followed):
    """Steps and saves of any length, on a clock for files that moves every 4 ms; steps vary by a tenth."""
    dice, tick = random.Random(f"{step_seconds}/{save_seconds}"), 0.004
    wrong = []
    for _ in range(300):
        now, saved_at, history, changed = 1_764_417_600 + dice.random(), dice.randrange(20, 60), [], False
        for step in range(1, 70 + int(2 * tick / step_seconds)):  # until the tick is over
            now += step_seconds * dice.uniform(0.9, 1.1)
            history.append(Moment(now, now // tick * tick, step, changed and is_followed))
            changed = step == saved_at
            if changed:
                modified = (now + save_seconds * dice.uniform(0.5, 1)) // tick * tick  # by the last of its writes
                now += save_seconds
        found = history[last_before(history, modified + 1e-6)].step
        wrong += [(saved_at, found)] * (found != saved_at)
    # a save that is short against a step is told from a longer step only by files that are followed
    assert not wrong or (not is_followed and save_seconds < step_seconds and len(wrong) < 150)


def test_step_that_finds_a_file_changed(tmp_path):
    optimizer, progress = Optimizer(), Progress()
    (tmp_path / "old.pt").write_bytes(b"1")
    progress.follow(lambda: [str(tmp_path), str(tmp_path / "old.pt")])
    for change in (None, "old.pt", None, "new.pt", None):
        if change:
            (tmp_path / change).write_bytes(b"22")
        progress.count(optimizer)
    assert [each.found_changed for each in progress._history] == [False, True, False, True, False]


@pytest.mark.parametrize("folder", ["out", "runs/first/checkpoints"])
@pytest.mark.parametrize("seconds", [0.0, 0.002])
def test_step_that_finds_the_first_file_of_a_new_folder(tmp_path, folder, seconds):
    """No set has been stored yet; what was followed is the working directory alone."""
    optimizer, progress = Optimizer(), Progress()
    Keeper(None, Folders(tmp_path, Script(path="train.py")), None, 0, None, progress).follow()
    (tmp_path / folder).mkdir(parents=True)
    for each in range(1, 5):
        progress.count(optimizer)
        if each == 3:
            (tmp_path / folder / "step.pt").write_bytes(b"weights")
        time.sleep(seconds)
    progress.count(optimizer)
    assert [each.found_changed for each in progress._history] == [True, False, False, True, False]


def test_step_at_a_file_written_right_after_it(tmp_path):
    """The kernel's time of a file is up to a tick behind a fine clock, so steps of that tick would be missed."""
    optimizer, progress = Optimizer(), Progress()
    for each in range(200):
        progress.count(optimizer)
        file = os.open(tmp_path / str(each), os.O_CREAT | os.O_WRONLY)  # without the stat that Python's open makes
        os.write(file, b"weights")
        os.close(file)
        assert progress.step_at((tmp_path / str(each)).stat().st_mtime) == each + 1


def test_step_at_the_same_nanosecond():
    """A file's seconds are a sum, a clock's a quotient: the one may be below the other by the last digit."""
    seconds = 1_764_417_600
    sums = {each: seconds + 1e-9 * each for each in range(1, 10**9, 1_234_567)}
    below = [each for each, found in sums.items() if found < (seconds * 10**9 + each) / 1e9]
    assert below
    for each in below:
        progress = Progress()
        at = (seconds * 10**9 + each) / 1e9
        progress._history.append(Moment(at, at, 7))
        assert progress.step_at(sums[each]) == 7


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loss", "train/loss"), ("train_loss", "train/loss"), ("val_loss", "val/loss"), ("eval_loss", "val/loss"),
        ("eval/f1", "val/f1"), ("lr/group0", "lr/group0"), ("validation", "train/validation"),
    ],
)  # fmt: skip
def test_metric_name(name, expected):
    assert metric_name(name) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"metrics": [{"name": "current_step", "value": "7"}, {"name": "total_steps", "value": 9}]}, (7, 9)),
        ({"progressPercentage": 50}, (5, 10)),
        ({"progressPercentage": 0, "metrics": [{"name": "loss", "value": "?"}, {}]}, (5, 0)),
    ],
)
def test_relay_takes_a_status(status, expected):
    progress = Progress()
    progress.tell(5, None, None, {})
    relay = Relay(progress)
    relay.take(status)
    relay._server.server_close()
    assert (progress.step, progress.total) == expected


def manifest(*files: tuple[str, str]) -> Manifest:
    listed = [File(path=path, size=1, sha256=hashlib.sha256(text.encode()).hexdigest()) for path, text in files]
    return Manifest(attempt=1, step=1, world_size=2, time="2026-01-01T00:00:00Z", files=listed, objects=True)


def test_files_of_a_node_are_its_own_then_the_lowest():
    found = manifest(
        ("node-10/log.pt", "ten"), ("node-0/log.pt", "zero"), ("node-2/log.pt", "two"), ("node-10/only.pt", "x")
    )
    chosen = {node: {path: file.path for path, file in files_of(found, node).items()} for node in (0, 2, 3)}
    assert chosen[0] == {"log.pt": "node-0/log.pt", "only.pt": "node-10/only.pt"}
    assert chosen[2]["log.pt"] == "node-2/log.pt"
    assert chosen[3]["log.pt"] == "node-0/log.pt", "2 and 10 come later than 0, as numbers"


def written(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)


def test_folders_by_default_are_those_with_a_checkpoint(tmp_path):
    written(
        tmp_path, "a.pt", "notes.txt", "run/model.safetensors", "run/config.json", "logs/log.txt", "__pycache__/x.bin",
        "b.pt.tmp", "data/given.npy", ".trainmaster/x.pt",
    )  # fmt: skip
    folders = Folders(tmp_path, Script(path="x.py"), {"data/given.npy": stamp_of(tmp_path / "data/given.npy")})
    assert sorted(folders.files()) == ["a.pt", "run/config.json", "run/model.safetensors"]
    assert folders.concerns(tmp_path / "run" / "config.json")
    assert not folders.concerns(tmp_path / "notes.txt")


def test_folders_have_what_came_with_the_code_once_it_is_changed(tmp_path):
    written(tmp_path, "out/last.pt", "out/config.json", "start.pt")
    code = {path: stamp_of(tmp_path / path) for path in ("out/last.pt", "out/config.json", "start.pt")}
    folders = Folders(tmp_path, Script(path="x.py"), code)
    assert not folders.files()
    assert sorted(path for path in code if folders.may_be_of_another_run(path)) == ["out/last.pt", "start.pt"]
    (tmp_path / "out/last.pt").write_text("the program's own")
    assert sorted(folders.files()) == ["out/last.pt"]
    declared = Folders(tmp_path, Script(path="x.py", checkpoints=["out"]), code)
    assert sorted(declared.files()) == ["out/config.json", "out/last.pt"], "also unchanged: it is said when it begins"


def test_folders_have_all_of_a_sharded_checkpoint(tmp_path):
    """Torch's has an index without a name; DeepSpeed's has a file that says which is the newest."""
    torchs = ["ck/10/.metadata", "ck/10/__0_0.distcp", "ck/10/__1_0.distcp"]
    deepspeeds = ["saved/last.ckpt/checkpoint/mp_rank_00_model_states.pt", "saved/last.ckpt/latest"]
    written(tmp_path, *torchs, *deepspeeds, "ck/10/.metadata.tmp", "ck/.hidden", "saved/notes.txt")
    assert sorted(Folders(tmp_path, Script(path="x.py")).files()) == [*torchs, *deepspeeds]


def test_folders_do_not_wait_for_event_files(tmp_path):
    """TensorBoard keeps them open as long as the program runs."""
    written(tmp_path, "run/a.ckpt", "run/events.out.tfevents.1.host.2.0")
    folders = Folders(tmp_path, Script(path="x.py"))
    assert sorted(folders.files()) == ["run/a.ckpt", "run/events.out.tfevents.1.host.2.0"]
    assert [folders.concerns(file) for file in folders.files().values()] == [True, False]


def test_folders_declared_have_every_file(tmp_path):
    written(tmp_path, "a.pt", "out/log.txt", "out/deep/x.pt", "out/x.tmp")
    assert sorted(Folders(tmp_path, Script(path="x.py", checkpoints=["out"])).files()) == [
        "out/deep/x.pt",
        "out/log.txt",
    ]


def keeper(tmp_path):
    work, store = tmp_path / "work", Store(str(tmp_path / "run"))
    work.mkdir()
    folders, parts = Folders(work, Script(path="x.py", checkpoints=["."])), []
    return work, store, parts, Keeper(store, folders, Watch(folders), 0, parts.append, Three())


def test_keeper_follows_the_folder_and_the_newest_files(tmp_path):
    work, _, _, kept = keeper(tmp_path)
    written(work, "a.pt", "b.pt")
    os.utime(work / "a.pt", (1, 1))
    assert kept.look(at_the_end=True)
    assert kept._steps.followed == [str(work), str(work / "b.pt"), str(work / "a.pt")]


def test_links_that_leave_are_not_kept(tmp_path):
    work, _, parts, kept = keeper(tmp_path)
    written(work, "step/a.pt")
    written(tmp_path, "outside.pt")
    (work / "latest").symlink_to(work / "step" / "a.pt")
    (work / "away").symlink_to(tmp_path / "outside.pt")
    assert kept.look(at_the_end=True)
    assert {file.path: file.link for file in parts[-1].files} == {"latest": "step/a.pt", "step/a.pt": ""}


def test_contents_that_come_back_are_stored_again(tmp_path):
    """The driver removes what no set has any more, and doesn't say so."""
    work, store, parts, kept = keeper(tmp_path)
    digest = hashlib.sha256(b"first").hexdigest()
    for number, text in enumerate(("first", "second", "first")):
        (work / "a.pt").write_text(text)
        os.utime(work / "a.pt", (number, number))
        assert kept.look(at_the_end=True)
        if text == "second":
            store.delete(f"objects/{digest}")
    assert parts[-1].files[0].sha256 == digest
    assert store.get(f"objects/{digest}") == b"first"


def test_stderr_is_remembered_to_its_end():
    stream = io.StringIO()
    tail = Tail(stream)
    tail.write("x" * 10_000_000)
    tail.writelines(["\n", *(f"line {n}\n" for n in range(50))])
    print("last", file=tail)
    assert tail.lines() == [*(f"line {n}" for n in range(39, 50)), "last"]
    assert len(tail._text) <= 8192
    assert tail.getvalue().endswith("line 49\nlast\n")
    assert SimpleNamespace(stream=tail).stream.closed is False


def test_files_that_never_come_to_rest_dont_hold_up_the_end(monkeypatch):
    monkeypatch.setattr(session_module, "OPEN_SECONDS", 0.3)
    said: list[str] = []
    nothing = threading.Thread(target=lambda: None)
    nothing.start()
    session = SimpleNamespace(
        _end=threading.Event(), _thread=nothing, _error=None, _keeps=True,
        _keeper=SimpleNamespace(look=lambda at_the_end: False), warn=said.append,
        _say_what_was_read=lambda at_the_end: None, _add=lambda metrics: None, _reporter=SimpleNamespace(look=dict),
        context=SimpleNamespace(rank=1), progress=Progress(),
    )  # fmt: skip
    session_module.Session.close_files(session)
    assert said == ["files were still changing 0 s after the program ended; kept is the newest set that was complete"]
