"""The journal: whole operations, in order, whatever happens between them."""

from __future__ import annotations

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from trainmaster_trainer.errors import ConfigurationError, Fenced
from trainmaster_trainer.storage.store import open_store
from trainmaster_trainer.tuning import journal as module
from trainmaster_trainer.tuning.journal import Journal


def test_what_was_not_flushed_is_not_there(tmp_path):
    store = open_store(f"file://{tmp_path}", None, None, {})
    journal = Journal(store, 1)
    journal.append_logs([{"a": 1}, {"a": 2}])
    journal.flush()
    journal.append_logs([{"a": 3}])
    assert list(Journal(store, 1).read_logs(0)) == [{"a": 1}, {"a": 2}]
    assert list(Journal(store, 1).read_logs(1)) == [{"a": 2}]


def test_files_are_limited_and_read_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_FILE_BYTES", 100)
    store = open_store(f"file://{tmp_path}", None, None, {})
    for attempt in range(3):
        journal = Journal(store, 1)
        for number in range(20):
            journal.append_logs([{"attempt": attempt, "number": number}])
            journal.flush()
    assert [(each["attempt"], each["number"]) for each in Journal(store, 1).read_logs(0)] == [
        (attempt, number) for attempt in range(3) for number in range(20)
    ]
    assert len(store.list("tuning")) > 10
    assert max(size for _, size in store.list("tuning")) < 200


def test_older_attempt_writes_no_longer(tmp_path):
    """Its node was lost and comes back: what it still decides must not be among what the newer one reads."""
    store = open_store(f"file://{tmp_path}", None, None, {})
    old = Journal(store, 1)
    old.append_logs([{"a": 1}])
    old.flush()
    new = Journal(store, 2)
    old.append_logs([{"a": 2}])
    with pytest.raises(Fenced):
        old.flush()
    new.append_logs([{"a": 3}])
    new.flush()
    assert list(Journal(store, 3).read_logs(0)) == [{"a": 1}, {"a": 3}]
    with pytest.raises(Fenced):
        Journal(store, 2)


def test_damaged_line_is_named(tmp_path):
    store = open_store(f"file://{tmp_path}", None, None, {})
    store.put("tuning/journal-000001-000000000.jsonl", b'{"a": 1}\n{"a": \n')
    with pytest.raises(
        ConfigurationError, match=r"journal-000001-0+\.jsonl: line 2 of the search's journal is damaged"
    ):
        Journal(store, 1)


@pytest.mark.parametrize("earlier", [0, 2])
def test_write_that_arrives_late_changes_nothing(tmp_path, monkeypatch, earlier):
    """The node of a head was cut off between its look at the fence and its write, and comes back."""
    store, check = open_store(f"file://{tmp_path}", None, None, {}), module.check_fence
    old = Journal(store, 1)
    old.append_logs([{"a": number} for number in range(earlier)])
    old.flush()

    def others_begin(run, attempt):
        check(run, attempt)
        monkeypatch.setattr(module, "check_fence", check)
        new = Journal(store, 2)
        new.append_logs([{"b": 1}])
        new.flush()

    monkeypatch.setattr(module, "check_fence", others_begin)
    old.append_logs([{"late": 1}, {"late": 2}])
    old.flush()
    assert any(b"late" in (store.get(name) or b"") for name, _ in store.list("tuning")), "it has arrived"
    expected = [*({"a": number} for number in range(earlier)), {"b": 1}]
    assert list(Journal(store, 3).read_logs(0)) == expected


@pytest.mark.parametrize("cut", [0, 3])
def test_operations_that_are_missing_are_said(tmp_path, monkeypatch, cut):
    """A file is gone, or a power cut of the machine that stores it took its end."""
    monkeypatch.setattr(module, "_FILE_BYTES", 10)
    store = open_store(f"file://{tmp_path}", None, None, {})
    journal = Journal(store, 1)
    for first in (0, 5):
        journal.append_logs([{"a": number} for number in range(first, first + 5)])
        journal.flush()
    name = "tuning/journal-000001-000000000.jsonl"
    store.put(name, b"".join((store.get(name) or b"").splitlines(keepends=True)[:cut]))
    with pytest.raises(ConfigurationError, match=rf"0005\.jsonl: the operations {cut + 1} to 5 before this file"):
        Journal(store, 1)


def test_file_of_another_version_is_refused_and_not_left_out(tmp_path):
    run = open_store(f"file://{tmp_path}", None, None, {})
    run.put("tuning/journal-000001.jsonl", b"")
    run.put("tuning/result.json", b"{}")
    with pytest.raises(ConfigurationError, match=r"journal-000001\.jsonl isn't named as a file of a search's journal"):
        Journal(run, 1)


def test_optuna_reads_the_files_that_are_put_together(tmp_path):
    """As optuna-dashboard would open them."""
    store = open_store(f"file://{tmp_path}", None, None, {})
    journal = Journal(store, 1)
    study = optuna.create_study(storage=JournalStorage(journal), study_name="s")
    for value in (3.0, 1.0):
        trial = study.ask()
        study.tell(trial, value + trial.suggest_float("x", 0, 1))
    journal.flush()
    pieces = b"".join((tmp_path / name).read_bytes() for name, _ in sorted(store.list("tuning")))
    assert Journal(store, 1).whole() == pieces
    file = tmp_path / "study.log"
    file.write_bytes(pieces)
    found = optuna.load_study(storage=JournalStorage(JournalFileBackend(str(file))), study_name="s")
    assert [each.value for each in found.trials] == [each.value for each in study.trials]
