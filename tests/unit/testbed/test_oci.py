import io
import json
import tarfile
from pathlib import Path

import pytest

from testbed.errors import BedError
from testbed.oci import Layout, image_name


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\x7fELF" + bytes(1000))
    layout = Layout(tmp_path / "layout")
    layout.add_scratch_image("docker.io/x/a:dev", {"/a": binary}, ["/a"])
    return layout


def members(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


def test_an_archive_holds_the_whole_image(layout: Layout) -> None:
    out = io.BytesIO()
    written = layout.write_archive("docker.io/x/a:dev", out)
    blobs = {f"blobs/sha256/{d.removeprefix('sha256:')}" for d in layout.blobs_of("docker.io/x/a:dev")}
    assert blobs == {name for name in members(out.getvalue()) if name.startswith("blobs/")}
    assert written == sum((layout.folder / name).stat().st_size for name in blobs)


def test_an_archive_leaves_out_what_the_node_has(layout: Layout) -> None:
    manifest, config, layer = layout.blobs_of("docker.io/x/a:dev")
    out = io.BytesIO()
    layout.write_archive("docker.io/x/a:dev", out, without={config, layer})
    blobs = [name for name in members(out.getvalue()) if name.startswith("blobs/")]
    assert blobs == [f"blobs/sha256/{manifest.removeprefix('sha256:')}"]


def test_the_same_files_make_the_same_image(layout: Layout, tmp_path: Path) -> None:
    other = Layout(tmp_path / "other")
    other.add_scratch_image("docker.io/x/a:dev", {"/a": tmp_path / "binary"}, ["/a"])
    assert other.digests() == layout.digests()


def test_pruning_keeps_what_a_name_uses(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"new")
    old = set(layout.blobs_of("docker.io/x/a:dev"))
    layout.add_scratch_image("docker.io/x/a:dev", {"/a": tmp_path / "binary"}, ["/a"])
    layout.prune()
    assert {f"sha256:{blob.name}" for blob in layout.blobs.iterdir()} == set(layout.blobs_of("docker.io/x/a:dev"))
    assert not any(layout.blob(digest).exists() for digest in old)


def test_an_entry_that_lost_its_name_is_ignored(layout: Layout) -> None:
    index = json.loads((layout.folder / "index.json").read_text())
    index["manifests"].append({"mediaType": "m", "digest": "sha256:0", "size": 1})
    (layout.folder / "index.json").write_text(json.dumps(index))
    assert list(layout.digests()) == ["docker.io/x/a:dev"]


def test_an_archive_can_be_taken_in_again(layout: Layout, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    with archive.open("wb") as out:
        layout.write_archive("docker.io/x/a:dev", out)
    other = Layout(tmp_path / "other")
    assert other.import_archive(archive) == ["docker.io/x/a:dev"]
    assert other.digests() == layout.digests()
    assert all(other.blob(digest).exists() for digest in other.blobs_of("docker.io/x/a:dev"))


def test_a_missing_image_says_how_to_get_it(layout: Layout) -> None:
    with pytest.raises(BedError, match=r"images build.*docker.io/x/a:dev"):
        layout.descriptor("docker.io/x/b:dev")


def test_short_names() -> None:
    assert image_name("trainer") == "docker.io/trainmaster/trainer:dev"
    assert image_name("docker.io/library/python:3.11") == "docker.io/library/python:3.11"
