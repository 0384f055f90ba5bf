"""An archive that was taken apart as buildah's store does it comes out the same; what doesn't, isn't stored."""

import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from testbed import images, tarsplit


class Taken:
    """A layer's archive, taken apart: the files below `files`, the rest in `record`."""

    def __init__(self, home: Path) -> None:
        source, store = home / "source", home / "storage" / "root"
        self.files, index = store / "overlay" / "l1" / "diff", store / "overlay-layers"
        self.record = index / "l1.tar-split.gz"
        source.mkdir()
        index.mkdir(parents=True)
        (source / "folder").mkdir()
        (source / "folder" / "empty").touch()
        (source / "folder" / "long").write_bytes(os.urandom(3_000_001))
        (source / ("n" * 150)).write_text("a name that needs a second header")
        (source / "link").symlink_to("folder/long")
        (source / "hard").hardlink_to(source / "folder" / "long")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.add(source, ".")
        self.archive = packed.getvalue()
        self.digest = f"sha256:{hashlib.sha256(self.archive).hexdigest()}"
        self._take_apart()
        (index / "layers.json").write_text(json.dumps([{"id": "l1", "diff-digest": self.digest}, {"id": "no digest"}]))

    def _take_apart(self) -> None:
        entries: list[dict[str, object]] = []
        end = 0
        with tarfile.open(fileobj=io.BytesIO(self.archive)) as tar:
            for member in tar:
                piece = self.archive[end : member.offset_data]
                entries.append({"type": 2, "payload": base64.b64encode(piece).decode()})
                size = member.size if member.isreg() else 0
                entries.append({"type": 1, "name": member.name, "payload": None} | ({"size": size} if size else {}))
                end = member.offset_data + size
            tar.extractall(self.files, filter="tar")
        entries += [{"type": 2, "payload": base64.b64encode(self.archive[end:]).decode()}, {"type": 2, "payload": ""}]
        with gzip.open(self.record, "wt") as out:
            out.writelines(json.dumps(entry) + "\n" for entry in entries)


@pytest.fixture
def taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Taken:
    monkeypatch.setattr(images, "home", lambda: tmp_path)
    return Taken(tmp_path)


def test_the_archive_comes_out_the_same_to_the_byte(taken: Taken) -> None:
    out = io.BytesIO()
    assert tarsplit.assemble(taken.record, taken.files, out) == taken.digest
    assert out.getvalue() == taken.archive


def test_the_layout_gets_the_layer(taken: Taken) -> None:
    images._store_layers()
    assert images.layout().blob(taken.digest).read_bytes() == taken.archive


def _change(taken: Taken) -> None:
    (taken.files / "folder" / "long").write_bytes(bytes(3_000_001))


def _lose(taken: Taken) -> None:
    (taken.files / "folder" / "long").unlink()


def _break(taken: Taken) -> None:
    taken.record.write_bytes(taken.record.read_bytes()[:-200])


def _garble(taken: Taken) -> None:
    taken.record.write_bytes(gzip.compress(b"{no json\n"))


@pytest.mark.parametrize("harm", [_change, _lose, _break, _garble])
def test_what_comes_out_different_is_left_to_skopeo(taken: Taken, harm: object) -> None:
    assert callable(harm)
    harm(taken)
    images._store_layers()
    assert list(images.layout().blobs.iterdir()) == []
