"""Sets of files of several nodes, as the driver commits them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainmaster_api.layout import MODEL, OBJECTS
from trainmaster_api.messages import CheckpointRef
from trainmaster_trainer.checkpoint import protocol
from trainmaster_trainer.context import Part, StoredFile
from trainmaster_trainer.driver.sets import Sets
from trainmaster_trainer.errors import Fenced
from trainmaster_trainer.storage.store import Store


class World:
    """Nodes that store contents and say so; every commit is awaited."""

    def __init__(self, folder: Path, nodes: int = 1, keep: int = 2, attempt: int = 1) -> None:
        self.store = Store(str(folder))
        self.commits: list[CheckpointRef] = []
        self.errors: list[BaseException] = []
        self.sets = Sets(self.store, "run", attempt, nodes, keep, self.commits.append, self.errors.append)
        self.sets.claim()
        self.sets.begin(nodes)

    def offer(self, step: int, *names: str, node: int = 0, is_complete: bool = True) -> None:
        """Say what a node has: files whose names are their contents."""
        files = []
        for name in names:
            digest = hashlib.sha256(name.encode()).hexdigest()
            self.store.put(f"{OBJECTS}/{digest}", name.encode())
            files.append(StoredFile(path=f"{name[0]}.pt", size=len(name), sha256=digest, modified=1.0))
        self.sets.take(Part(node=node, files=files, step=step, is_complete=is_complete))
        if self.sets._last is not None:
            self.sets._last.exception()

    @property
    def steps(self) -> list[int]:
        return [each.step for each in self.commits]

    def objects(self) -> set[str]:
        return {(self.store.get(path) or b"").decode() for path, _ in self.store.list(OBJECTS)}


def test_sets_wait_for_every_node(tmp_path):
    world = World(tmp_path, nodes=2)
    world.offer(10, "a1", node=0)
    assert world.steps == []
    world.offer(11, "b1", node=1)
    assert world.steps == [10]
    found = protocol.read_manifest(world.store, (1, 10))
    assert [file.path for file in found.files] == ["node-0/a.pt", "node-1/b.pt"]
    assert found.objects


def test_sets_a_node_that_writes_again_is_stale(tmp_path):
    world = World(tmp_path, nodes=2)
    world.offer(10, "a1", node=0)
    world.offer(10, node=0, is_complete=False)
    world.offer(10, "b1", node=1)
    assert world.steps == [], "a1 may be of another time than b1"
    world.offer(20, "a2", node=0)
    assert world.steps == [20]


def test_sets_same_files_are_one_set(tmp_path):
    world = World(tmp_path)
    world.offer(10, "a1")
    world.offer(12, "a1")
    assert world.steps == [10]


def test_sets_of_no_files_are_none(tmp_path):
    world = World(tmp_path)
    world.offer(10)
    assert world.steps == []


def test_sets_forget_an_older_generation(tmp_path):
    world = World(tmp_path, nodes=2)
    world.offer(10, "a1", node=0)
    world.sets.begin(2)
    world.offer(10, "b1", node=1)
    assert world.steps == []


def test_sets_retention_keeps_what_is_shared(tmp_path):
    world = World(tmp_path, keep=2)
    for step in (1, 2, 3, 4):
        world.offer(step, "shared", f"a{step}")
    assert protocol.positions(world.store) == [(1, 4), (1, 3)]
    assert world.objects() == {"shared", "a3", "a4"}


def test_sets_twice_at_a_step_leave_nothing(tmp_path):
    world = World(tmp_path, keep=3)
    world.offer(5, "a1", "shared")
    world.offer(5, "a2", "shared")
    assert world.objects() == {"a2", "shared"}
    assert [file.size for file in protocol.read_manifest(world.store, (1, 5)).files] == [2, 6]


@settings(max_examples=25, deadline=None)
@given(
    offers=st.lists(st.tuples(st.integers(0, 2), st.sets(st.sampled_from(["a1", "a2", "b1", "c1"]))), max_size=8),
    keep=st.integers(1, 3),
)
def test_sets_have_all_their_contents(tmp_path_factory, offers, keep):
    """Whatever comes: what the kept sets list is there, and nothing else."""
    world = World(tmp_path_factory.mktemp("run"), keep=keep)
    step = 0
    for more, names in offers:
        step += more
        world.offer(step, *sorted(names))
    assert not world.errors
    kept = [protocol.read_manifest(world.store, each) for each in protocol.positions(world.store)]
    listed = {file.sha256 for each in kept for file in each.files}
    there = {path.rpartition("/")[2] for path, _ in world.store.list(OBJECTS)}
    assert len(kept) <= keep
    assert there == listed


def test_sets_of_a_stale_attempt_are_fenced(tmp_path):
    world = World(tmp_path)
    World(tmp_path, attempt=2)
    world.offer(10, "a1")
    assert world.steps == []
    assert [type(error) for error in world.errors] == [Fenced]
    assert protocol.positions(world.store) == []
    with pytest.raises(Fenced):
        world.sets.finish(is_complete=True)


@pytest.mark.parametrize(("nodes", "names"), [(1, ["a.pt"]), (2, ["node-0/a.pt", "node-1/b.pt"])])
def test_sets_finish_copies_the_model(tmp_path, nodes, names):
    world = World(tmp_path, nodes=nodes)
    world.offer(10, "a1", node=0)
    if nodes == 2:
        world.offer(10, "b1", node=1)
    assert world.sets.finish(is_complete=True) == "run/model"
    found = sorted(path.removeprefix(f"{MODEL}/") for path, _ in world.store.list(MODEL))
    assert found == sorted([*names, "data.json"])
    assert world.store.get(f"{MODEL}/{names[0]}") == b"a1"


def test_sets_finish_after_a_stop_copies_nothing(tmp_path):
    world = World(tmp_path)
    world.offer(10, "a1")
    assert world.sets.finish(is_complete=False) == ""
    assert list(world.store.list(MODEL)) == []


def test_sets_of_the_attempt_before_are_known(tmp_path):
    World(tmp_path).offer(10, "a1")
    again = World(tmp_path, keep=1, attempt=2)
    again.offer(10, "a1")
    assert again.steps == [], "the files that were put back are no new set"
    again.offer(12, "a2")
    assert protocol.positions(again.store) == [(2, 12)]
    assert again.objects() == {"a2"}
