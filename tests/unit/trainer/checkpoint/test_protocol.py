"""The checkpoint protocol against crashes and rivals, at the level of stores and bytes."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from trainmaster_api.layout import BEST, CHECKPOINTS, FENCE, LATEST, MANIFEST, Pointer, checkpoint_name
from trainmaster_trainer.checkpoint import protocol
from trainmaster_trainer.checkpoint.manager import CheckpointManager, Policy, Snapshot
from trainmaster_trainer.checkpoint.protocol import Torn
from trainmaster_trainer.checkpoint.state import State
from trainmaster_trainer.errors import Fenced, StorageUnavailable
from trainmaster_trainer.storage.store import Store
from trainmaster_trainer.tasks import Objective

LOSS = Objective("val/loss", higher_is_better=False)
FILES = {"model": bytes(range(200)), "loop.json": b"{}"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def commit(store: Store, attempt: int, step: int, metrics: dict[str, float] | None = None) -> None:
    protocol.commit(store, attempt, step, 2, metrics or {}, FILES)


def state(step: int) -> State:
    model = {"w": torch.full((3,), float(step))}
    return State(model, {"state": {}, "param_groups": []}, [{"rng": {}, "lossSum": 0.0}], {"step": step})


def manager(store: Store, attempt: int = 1, keep: int = 2, keep_best: int = 1) -> CheckpointManager:
    return CheckpointManager(
        store, store.uri, attempt, 1, Policy(keep, keep_best, LOSS), lambda: None, lambda ref: None
    )


def save(checkpoints: CheckpointManager, step: int, loss: float | None = None) -> None:
    metrics = {} if loss is None else {"val/loss": loss}
    checkpoints.save(Snapshot(step, state(step), metrics))
    checkpoints.wait()


def pointer(store: Store, name: str) -> tuple[int, int] | None:
    """Where LATEST or BEST points; None: it is torn."""
    try:
        found = Pointer.model_validate_json(store.get(name) or b"")
    except ValidationError:
        return None
    return found.attempt, found.step


def steps(store: Store) -> list[int]:
    return sorted(step for _, step in protocol.positions(store))


# -- what is torn -----------------------------------------------------------------------------------------------------
def test_a_checkpoint_without_a_manifest_does_not_exist(store: Store) -> None:
    store.put(f"{protocol.directory(1, 5)}/model", b"x")
    assert protocol.positions(store) == [(1, 5)]
    assert protocol.read_manifest(store, (1, 5)) is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_to_any_byte_of_any_file_passes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut off, a byte changed, a byte more, gone: in every file and at any place."""
    store = Store(str(tmp_path_factory.mktemp("torn")))
    commit(store, 1, 5)
    manifest = protocol.read_manifest(store, (1, 5))
    assert manifest is not None
    name = data.draw(st.sampled_from(sorted(FILES)))
    content = FILES[name]
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = data.draw(
        st.sampled_from(
            [
                content[:place],
                content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :],
                content[:place] + b"!" + content[place:],
                None,
            ]
        )
    )
    path = f"{protocol.directory(1, 5)}/{name}"
    store.delete(path)
    if damaged is not None:
        store.put(path, damaged)
    with pytest.raises(Torn, match=name):
        protocol.read_files(store, (1, 5), manifest)


def test_a_manifest_cut_off_at_any_byte_is_torn(store: Store) -> None:
    commit(store, 1, 5)
    path = f"{protocol.directory(1, 5)}/{MANIFEST}"
    content = store.get(path)
    assert content is not None
    for length in range(len(content)):
        store.put(path, content[:length])
        with pytest.raises(Torn, match="manifest"):
            protocol.read_manifest(store, (1, 5))


def test_a_resume_passes_over_the_torn_one_and_keeps_it(store: Store) -> None:
    first = manager(store, keep=5)
    assert first.resume(lambda text: None) is None
    for step in (10, 20, 30):
        save(first, step)
    store.put(f"{protocol.directory(1, 30)}/model.safetensors", b"torn")
    store.put(f"{protocol.directory(1, 20)}/{MANIFEST}", b"{")
    store.put(f"{protocol.directory(1, 40)}/model.safetensors", b"an orphan: its manifest was never written")
    warnings: list[str] = []
    found = manager(store, attempt=2).resume(warnings.append)
    assert found is not None
    assert found.loop["step"] == 10
    assert len(warnings) == 2
    assert steps(store) == [10, 20, 30], "torn ones stay for inspection; the orphan is swept"


def test_commit_that_fails_in_the_middle_leaves_no_checkpoint(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = manager(store)
    checkpoints.resume(lambda text: None)
    save(checkpoints, 10)
    real = Store.put

    def put(self: Store, path: str, data: bytes) -> None:
        if path.endswith("optimizer.pt"):
            raise StorageUnavailable("gone")
        real(self, path, data)

    monkeypatch.setattr(Store, "put", put)
    with pytest.raises(StorageUnavailable, match="gone"):
        save(checkpoints, 20)
    assert pointer(store, LATEST) == (1, 10)
    assert protocol.read_manifest(store, (1, 20)) is None


# -- rivals -----------------------------------------------------------------------------------------------------------
def test_the_fence_only_rises(store: Store) -> None:
    protocol.claim(store, 3)
    protocol.claim(store, 3)
    protocol.check_fence(store, 3)
    with pytest.raises(Fenced, match="attempt 3 has claimed this run; stopping attempt 2"):
        protocol.claim(store, 2)
    protocol.claim(store, 4)
    with pytest.raises(Fenced):
        protocol.check_fence(store, 3)


def test_claim_of_many_attempts_is_won_by_the_newest(store: Store) -> None:
    def claim(attempt: int) -> bool:
        try:
            protocol.claim(store, attempt)
        except Fenced:
            return False
        return True

    order = list(range(1, 13))
    random.Random(1).shuffle(order)
    with ThreadPoolExecutor(4) as threads:
        claimed = dict(zip(order, threads.map(claim, order), strict=True))
    assert claimed[12]
    assert store.get(FENCE) == b"12"


def test_fenced_writer_commits_nothing_and_moves_no_pointer(store: Store) -> None:
    old = manager(store, attempt=1)
    old.resume(lambda text: None)
    save(old, 10, 0.5)
    protocol.claim(store, 2)
    with pytest.raises(Fenced):
        save(old, 20, 0.1)
    assert protocol.read_manifest(store, (1, 20)) is None
    assert pointer(store, LATEST) == pointer(store, BEST) == (1, 10)


def test_a_fence_that_a_crash_left_empty_is_taken(store: Store) -> None:
    store.put(FENCE, b"")
    protocol.claim(store, 1)
    assert store.get(FENCE) == b"1"


@given(st.permutations([(1, 10), (1, 30), (2, 20), (3, 5)]))
@settings(deadline=None, max_examples=24)
def test_latest_never_goes_back(tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[int, int]]) -> None:
    store = Store(str(tmp_path_factory.mktemp("pointer")))
    for number, to in enumerate(moves, start=1):
        protocol.advance(store, LATEST, to)
        assert pointer(store, LATEST) == max(moves[:number])


def test_pointer_torn_is_rewritten(store: Store) -> None:
    store.put(LATEST, b"{")
    assert pointer(store, LATEST) is None
    protocol.advance(store, LATEST, (1, 10))
    assert pointer(store, LATEST) == (1, 10)


# -- what is kept -----------------------------------------------------------------------------------------------------
def test_the_newest_and_the_best_are_kept(store: Store) -> None:
    checkpoints = manager(store, keep=2, keep_best=1)
    checkpoints.resume(lambda text: None)
    for step, loss in [(10, 0.9), (20, 0.2), (30, 0.5), (40, 0.4), (50, 0.6)]:
        save(checkpoints, step, loss)
    assert steps(store) == [20, 40, 50]
    assert pointer(store, BEST) == (1, 20)
    assert pointer(store, LATEST) == (1, 50)
    assert checkpoints.best() == (1, 20)


def test_a_resumed_run_knows_the_best_of_older_attempts(store: Store) -> None:
    first = manager(store)
    first.resume(lambda text: None)
    save(first, 10, 0.1)
    save(first, 20, 0.3)
    second = manager(store, attempt=2)
    assert second.resume(lambda text: None) is not None
    for step in (30, 40, 50):
        save(second, step, 0.2)
    assert second.best() == pointer(store, BEST) == (1, 10)
    assert steps(store) == [10, 40, 50]


def test_nothing_is_deleted_before_the_newer_one_is_committed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, str]] = []
    real_put, real_delete = Store.put, Store.delete

    def put(self: Store, path: str, data: bytes) -> None:
        order.append(("put", path))
        real_put(self, path, data)

    def delete(self: Store, *paths: str) -> None:
        order.extend(("delete", path) for path in paths)
        real_delete(self, *paths)

    monkeypatch.setattr(Store, "put", put)
    monkeypatch.setattr(Store, "delete", delete)
    checkpoints = manager(store, keep=1, keep_best=0)
    checkpoints.resume(lambda text: None)
    save(checkpoints, 10)
    save(checkpoints, 20)
    old, new = (f"{CHECKPOINTS}/{checkpoint_name(1, step)}/" for step in (10, 20))
    removed = [index for index, (verb, path) in enumerate(order) if verb == "delete" and path.startswith(old)]
    assert order.index(("put", f"{new}{MANIFEST}")) < min(removed)
    assert order[removed[0]] == ("delete", f"{old}{MANIFEST}"), "and then the manifest goes first"


@pytest.mark.parametrize("files", [["model#1"], ["model", "manifest.json#1"]])
def test_sweep_takes_what_a_kill_left(store: Store, files: list[str]) -> None:
    """On disk an object is written beside its place and renamed; no list shows the half of it."""
    place = Path(store.uri) / protocol.directory(1, 5)
    place.mkdir(parents=True)
    for file in files:
        (place / file).write_bytes(b"x")
    assert manager(store, attempt=2).resume(pytest.fail) is None
    assert not place.exists()


def test_sweep_takes_what_was_never_committed(store: Store) -> None:
    checkpoints = manager(store)
    checkpoints.resume(lambda text: None)
    save(checkpoints, 10)
    store.put(f"{protocol.directory(1, 7)}/model.safetensors", b"a process of this attempt died here")
    checkpoints.sweep()
    assert steps(store) == [10]


def test_snapshots_are_committed_in_order(store: Store) -> None:
    committed: list[int] = []
    checkpoints = CheckpointManager(
        store, store.uri, 1, 1, Policy(3, 1, LOSS), lambda: None, lambda ref: committed.append(ref.step)
    )
    checkpoints.resume(lambda text: None)
    checkpoints.keep(Snapshot(10, state(10), {"val/loss": 0.1}))
    checkpoints.save(Snapshot(20, state(20), {}))
    checkpoints.close()
    assert committed == [10, 20]
    assert checkpoints.best() == (1, 10)


def test_a_copy_is_not_changed_by_what_follows() -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    copy = State.capture(model, optimizer, [], {"step": 1})
    before = copy.files()
    optimizer.step()
    assert copy.files() == before
    loaded: dict[str, Any] = State.from_files(before).model
    assert not torch.equal(loaded["weight"], model.state_dict()["weight"])


def test_all_checkpoints_of_a_run_go_and_pointers_go_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any) -> None:
        raise StorageUnavailable("no answer")

    commit(store, 1, 10)
    for name in (LATEST, BEST, "objects/0a", "metrics.jsonl"):
        store.put(name, b"x")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete_directory", fail)
        with pytest.raises(StorageUnavailable):
            protocol.remove_all(store)
    assert (store.get(LATEST), store.get(BEST)) == (None, None)
    assert protocol.has_manifest(store, (1, 10))
    protocol.remove_all(store)
    assert [path.name for path in store.root.rglob("*") if path.is_file() and path.name != ".lock"] == ["metrics.jsonl"]
