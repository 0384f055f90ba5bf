"""Archives of a folder: the same images in the same order as the folder itself, and nothing else."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from moto.server import ThreadedMotoServer
from PIL import Image
from trainmaster_trainer.data import load_data
from trainmaster_trainer.data.images import archive as module
from trainmaster_trainer.data.images.rows import ImageRows
from trainmaster_trainer.data.tables import cache
from trainmaster_trainer.errors import DataError
from trainmaster_trainer.storage.store import Store

from tests.unit.trainer.harness import samples, small_job

PATHS = [f"{'abc'[number % 3]}/{number:02}.png" for number in range(30)]
FOREIGN = [".DS_Store", "__MACOSX/a/._00.png", "a/notes.txt", "cover.png"]
EVERYTHING = np.arange(30)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINMASTER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, path in enumerate([*PATHS, *FOREIGN]):
        file = tmp_path / "pictures" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file, "png")
    return tmp_path / "pictures"


def packed(folder: Path, name: str, below: str = "", order: int = -1) -> Path:
    """Pack a folder as the tools do that people use."""
    target = folder.parent / name
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name)[::order]
    if name.endswith(".zip"):
        method = zipfile.ZIP_STORED if "stored" in name else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(target, "w", method) as archive:
            for path in files:
                archive.write(path, below + str(path.relative_to(folder)))
    else:
        with tarfile.open(target, "w:gz" if name.endswith("gz") else "w") as tar:
            for path in files:
                tar.add(path, below + str(path.relative_to(folder)))
    return target


def loaded(root: Path, source: str, **images: Any) -> ImageRows:
    data = {"source": f"images:{source}", "imageSize": 8, "batchSize": 2, "images": images}
    job = small_job({"spec.training.data": data, "spec.training.task": {"name": "classification"}})
    rows = load_data(job, root, {}).rows
    assert isinstance(rows, ImageRows)
    return rows


def refused(root: Path, source: str, **images: Any) -> str:
    with pytest.raises(DataError) as caught:
        loaded(root, source, **images)
    return str(caught.value)


@pytest.mark.parametrize("name", ["x.zip", "stored.ZIP", "x.tar", "x.tar.gz", "x.tgz"])
@pytest.mark.parametrize("below", ["", "./", "data/pictures/"])
def test_archive_equals_its_folder(folder: Path, name: str, below: str) -> None:
    packed(folder, name.lower(), below).rename(folder.parent / name)
    plain, found = loaded(folder.parent, "pictures"), loaded(folder.parent, name)
    assert found.labels == plain.labels == ["a", "b", "c"]
    for one, other in zip(plain.batch(EVERYTHING), found.batch(EVERYTHING), strict=True):
        assert torch.equal(one, other)
    assert found.notes[: len(plain.notes)] == plain.notes
    said = {
        "data/pictures/": (f"{name}: the folder data/pictures/ holds all images, so its sub-folders are the classes",)
    }
    assert found.notes[len(plain.notes) :] == said.get(below, ())


def test_nested_folders_are_a_choice(folder: Path) -> None:
    (folder / "a" / "deep").mkdir()
    (folder / "a" / "00.png").rename(folder / "a" / "deep" / "00.png")
    packed(folder, "x.zip")
    assert "1 image in nested folders, such as a/deep/00.png" in refused(folder.parent, "x.zip")
    assert len(loaded(folder.parent, "x.zip", nested=True)) == 30


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def write_zip(path: Path, members: dict[str, bytes], change: Callable[[zipfile.ZipInfo], object] | None = None) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            if change:
                change(info)
            archive.writestr(info, content)


def write_tar(path: Path, members: dict[str, bytes | str]) -> None:
    """Write files, and hard or symbolic links for text."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = (tarfile.LNKTYPE, content) if name[-5] != "s" else (tarfile.SYMTYPE, content)
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


SOME = {f"{'ab'[number % 2]}/{number:02}.png": png(number) for number in range(20)}


def test_decompressing_says_how_far_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(folder, "x.tar.gz")
    monkeypatch.setattr(cache, "_SAY_SECONDS", 0.0)
    said: list[str] = []
    data = {"source": "images:x.tar.gz", "imageSize": 8, "batchSize": 2}
    job = small_job({"spec.training.data": data, "spec.training.task": {"name": "classification"}})
    load_data(job, folder.parent, {}, said.append)
    assert said[0].startswith("decompressing x.tar.gz [####################] 100% of ")
    assert said[-1] == "checking x.tar.gz [####################] 100% of 30 images"


def test_links_in_a_tar(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {**SOME, "b/hard.png": "a/04.png", "b/syms.png": "../a/02.png"})
    rows = loaded(tmp_path, "x.tar")
    assert len(rows) == 21
    hard = [rows.content.name(row) for row in range(21)].index("b/hard.png")
    assert set((samples(rows, np.array([hard])) * 255).round().flatten().tolist()) == {4.0}
    assert rows.notes == ("1 link passed over, such as b/syms.png",)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_last_of_a_name_counts(tmp_path: Path, kind: str) -> None:
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for name, content in SOME.items():
                archive.writestr(name, content)
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("a/00.png", png(200))
    else:
        with tarfile.open(tmp_path / "x.tar", "w") as tar:
            for name, content in [*SOME.items(), ("a/00.png", png(200))]:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    rows = loaded(tmp_path, f"x.{kind}")
    assert len(rows) == 20
    assert float(samples(rows, np.array([0])).max()) == pytest.approx(200 / 255)


def test_names_of_windows(tmp_path: Path) -> None:
    write_zip(
        tmp_path / "x.zip",
        {name.replace("/", "\\"): content for name, content in SOME.items()},
        lambda info: setattr(info, "create_system", 0),
    )
    assert loaded(tmp_path, "x.zip").labels == ["a", "b"]


@pytest.mark.parametrize("name", ["../a/1.png", "/a/1.png", "a/../../1.png", "../../etc/passwd"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    members: dict[str, Any] = {**SOME, name: png(1)}
    (write_zip if kind == "zip" else write_tar)(tmp_path / f"x.{kind}", members)
    assert f"x.{kind} has names that lead out of the archive: {name!r}; pack it" in refused(tmp_path, f"x.{kind}")


def test_what_a_zip_hides_is_refused(tmp_path: Path) -> None:
    def change(info: zipfile.ZipInfo) -> None:
        if info.filename in ("a/02.png", "b/03.png"):
            info.compress_type = zipfile.ZIP_LZMA

    write_zip(tmp_path / "x.zip", SOME, change)
    path = tmp_path / "x.zip"
    assert "a/02.png: compressed by method 14; use stored or deflated; b/03.png: comp" in refused(tmp_path, "x.zip")
    write_zip(path, SOME)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # encrypted, by the first entry of the directory
    path.write_bytes(content)
    assert "has images that can't be read: a/00.png: encrypted" in refused(tmp_path, "x.zip")


def test_zip_bomb_is_refused_by_what_it_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1_000_000)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**SOME, "a/bomb.png": bytes(10_000_000)}.items():
            archive.writestr(name, content)
    assert "a/bomb.png: says to have 10,000,000 bytes, of 1,000,000 at most" in refused(tmp_path, "x.zip")


def test_zip_member_with_more_than_it_claims(tmp_path: Path) -> None:
    """The claim bounds what is decompressed."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**SOME, "a/zz.png": bytes(10_000_000)}.items():
            archive.writestr(name, content)
    content = (tmp_path / "x.zip").read_bytes()
    size = (10_000_000).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(content.replace(size, (1000).to_bytes(4, "little")))
    assert "1 image of 21 can't be read: x.zip/a/zz.png: damaged in the archive (wrong checksum)" in refused(
        tmp_path, "x.zip"
    )


def test_compressed_tar_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_UNPACKED", 10_000)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("a/1.png")
        info.size = 3_000_000
        tar.addfile(info, io.BytesIO(bytes(3_000_000)))
    assert "x.tar.gz becomes more than" in refused(tmp_path, "x.tar.gz")
    assert not list((tmp_path / "cache").rglob("*.partial"))


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
@pytest.mark.parametrize("content", [b"", b"junk" * 100])
def test_file_that_is_no_archive(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert name in refused(tmp_path, name)


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tgz"])
def test_incomplete_archive(folder: Path, name: str) -> None:
    path = packed(folder, name)
    path.write_bytes(path.read_bytes()[:5000])
    assert f"images:{name} can't be " in refused(folder.parent, name)


def test_damaged_member_is_named(folder: Path) -> None:
    path = packed(folder, "stored.zip")
    content = bytearray(path.read_bytes())
    content[content.index((folder / "b" / "04.png").read_bytes()) + 70] ^= 0xFF
    path.write_bytes(content)
    message = refused(folder.parent, "stored.zip")
    assert message.startswith("1 image of 30 can't be read: stored.zip/b/04.png: damaged in the archive")


def test_missing_archive(tmp_path: Path) -> None:
    assert "x.zip: no such file" in refused(tmp_path, "x.zip")


def test_folder_that_is_named_as_an_archive(folder: Path) -> None:
    folder.rename(folder.parent / "pictures.zip")
    assert len(loaded(folder.parent, "pictures.zip")) == 30


def test_compressed_tar_is_decompressed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(folder, "x.tar.gz")
    loaded(folder.parent, "x.tar.gz")
    monkeypatch.setattr(module, "LEAST_UNPACKED", 0)
    monkeypatch.setattr(module, "MOST_UNPACKED", 0)
    loaded(folder.parent, "x.tar.gz")
    path.write_bytes(path.read_bytes())  # the same bytes, but written again
    assert "becomes more than" in refused(folder.parent, "x.tar.gz")


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_pixels_of_an_archive_are_found_again(folder: Path, name: str) -> None:
    path = packed(folder, name)
    for _ in range(2):
        loaded(folder.parent, name, cache={"disk": "1Mi"})
        assert len(list((folder.parent / "cache" / "pixels").iterdir())) == 1
    path.write_bytes(path.read_bytes())  # another time
    loaded(folder.parent, name, cache={"disk": "1Mi"})
    assert len(list((folder.parent / "cache" / "pixels").iterdir())) == 2


def _first(rows: ImageRows, queue: Any) -> None:
    queue.put(samples(rows, np.array([7])).numpy())


@pytest.mark.parametrize("name", ["pictures", "x.zip", "x.tar"])
def test_forked_process_reads_too(folder: Path, name: str) -> None:
    if name != "pictures":
        packed(folder, name)
    rows = loaded(folder.parent, name)
    expected = samples(rows, np.array([7])).numpy()
    rows = pickle.loads(pickle.dumps(rows))  # without the pixels that are kept
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_first, args=(rows, queue))
    process.start()
    try:
        assert np.array_equal(queue.get(timeout=60), expected)
    finally:
        process.kill()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_archive_on_s3(folder: Path, endpoint: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1"
    )
    client.create_bucket(Bucket="data")
    client.put_object(Bucket="data", Key=f"sets/{name}", Body=packed(folder, name).read_bytes())
    whole = Store.get
    monkeypatch.setattr(Store, "get", lambda store, path: None if path == name else whole(store, path))
    job = small_job(
        {
            "spec.training.data": {"source": f"images:s3://data/sets/{name}", "imageSize": 8, "batchSize": 2},
            "spec.training.task": {"name": "classification"},
            "spec.storage": {"uri": "s3://data/runs", "endpoint": endpoint},
        }
    )
    found, plain = load_data(job, folder.parent, keys).rows, loaded(folder.parent, "pictures")
    assert torch.equal(samples(found, EVERYTHING), samples(plain, EVERYTHING))
