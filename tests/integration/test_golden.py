"""The root that nodes start from, with a real containerd: nothing is written twice, and what was replaced goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed import golden, images, system
from testbed.node import ctr_command
from testbed.oci import Layout
from testbed.procs import run, wait_until

pytestmark = pytest.mark.skipif(not system.is_linux_root(), reason="containerd runs on Linux as root")
NAME = "docker.io/x/a:dev"


class Images:
    """A layout, buildah's store and a golden root of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.layout = Layout(home / "layout")

    def build(self, text: str) -> Path:
        """An image of one file; returns the file of its layer in buildah's store."""
        source = self.home / f"{text}.txt"
        source.write_text(text)
        self.layout.add_scratch_image(NAME, {"/some/file": source}, ["/some/file"])
        (layer,) = self.layout.layers_of(NAME)
        store = self.home / "storage" / "root"
        file = store / "overlay" / text / "diff" / "some" / "file"
        file.parent.mkdir(parents=True)
        file.write_text(text)
        file.parent.parent.chmod(0o555)  # as buildah's own folder is
        record = store / "overlay-layers" / "layers.json"
        record.parent.mkdir(exist_ok=True)
        record.write_text(json.dumps([{"id": text, "diff-digest": layer}]))
        return file

    def unpacked(self) -> list[Path]:
        """The files in the golden root's snapshots."""
        snapshots = golden.folder() / "io.containerd.snapshotter.v1.overlayfs" / "snapshots"
        return list(snapshots.glob("*/fs/some/file"))

    def blobs(self) -> set[Path]:
        """The golden root's blobs."""
        return set((golden.folder() / "io.containerd.content.v1.content" / "blobs" / "sha256").iterdir())


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Images:
    system.ensure_packages()
    monkeypatch.setattr(images, "home", lambda: tmp_path)
    return Images(tmp_path)


def test_layers_and_blobs_are_the_files_that_were_built(own: Images) -> None:
    built = own.build("first")
    golden.update([NAME])
    (file,) = own.unpacked()
    assert file.samefile(built)
    assert file.parent.parent.stat().st_mode & 0o777 == 0o755, "the root of a container"
    assert {blob.name for blob in own.blobs()} == {d.removeprefix("sha256:") for d in own.layout.blobs_of(NAME)}
    assert all(blob.samefile(own.layout.blobs / blob.name) for blob in own.blobs())


def test_a_layer_that_buildah_no_longer_has_is_unpacked(own: Images) -> None:
    built = own.build("first")
    built.parent.parent.rename(own.home / "gone")
    golden.update([NAME])
    (file,) = own.unpacked()
    assert (file.read_text(), file.stat().st_nlink) == ("first", 1)


def test_what_a_new_build_replaces_is_collected(own: Images) -> None:
    own.build("first")
    golden.update([NAME])
    before = own.blobs()
    built = own.build("second")
    golden.update([NAME])
    (file,) = own.unpacked()
    assert file.samefile(built)
    assert not own.blobs() & before


def test_what_nothing_refers_to_yet_is_not_collected(own: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_late(socket: Path, name: str) -> int:
        # as at the end of the image before: containerd would collect within a second or two
        for lease in (("create", "--id", "x"), ("delete", "x")):
            run(ctr_command(socket, "leases", *lease))
        assert not wait_until(lambda: not images.blobs_in(socket), 3)
        return load_into(socket, name)

    load_into = images.load_into
    monkeypatch.setattr(images, "load_into", load_late)
    own.build("first")
    golden.update([NAME])
    assert len(own.blobs()) == 3


@pytest.mark.parametrize("step", ["_upper", "lend_blobs", "_forget"])
def test_unpacking_that_was_killed_can_begin_again(own: Images, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    built = own.build("first")
    with monkeypatch.context() as patch:
        patch.setattr(golden, step, killed)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                golden.update([NAME])
    golden.update([NAME])
    (file,) = own.unpacked()
    assert file.samefile(built)
    own.build("second")
    golden.update([NAME])
    assert [file.read_text() for file in own.unpacked()] == ["second"]
