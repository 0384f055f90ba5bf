import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from trainmaster_api import archive
from trainmaster_api.archive import ArchiveError, ArchiveMismatch, unpack


def tar_of(*members: tuple[str, dict[str, object] | bytes]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as tar:
        for name, what in members:
            info = tarfile.TarInfo(name)
            if isinstance(what, bytes):
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
                continue
            for key, value in what.items():
                setattr(info, key, value)
            tar.addfile(info)
    return output.getvalue()


def opened(data: bytes, folder: Path) -> Path:
    unpack(data, hashlib.sha256(data).hexdigest(), folder)
    return folder


def symlink(target: str) -> dict[str, object]:
    return {"type": tarfile.SYMTYPE, "linkname": target}


HOSTILE = {
    "absolute": ([("/etc/evil", b"x")], r"'/etc/evil' in the archive is an absolute path"),
    "drive": ([("C:/evil", b"x")], "absolute path"),
    "traversal": ([("a/../../evil", b"x")], r"'a/../../evil' in the archive leads out of the code's folder by `..`"),
    "link out": ([("out", symlink("../../evil"))], r"'out' is a link out of the code's folder, to '../../evil'"),
    "absolute link": ([("out", symlink("/etc"))], "'out' is a link to the absolute path '/etc'"),
    "chain": (
        [("a/b/down", symlink(".")), ("up", symlink("a/b/down/../..")), ("out", symlink("up/../evil"))],
        "'out' is a link out of the code's folder",
    ),
    "chain out of order": (
        [("out", symlink("one/..")), ("one", symlink("two")), ("two", symlink("three/..")), ("three", symlink("."))],
        "'(out|two|one)' is a link out of the code's folder",
    ),
    "circle": ([("a", symlink("b")), ("b", symlink("a"))], "is a link that leads in circles"),
    "write through a link": (
        [("d", symlink(".")), ("d/file", b"x")],
        "'d' in the archive is a link and something else",
    ),
    "hard link": ([("x", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})], "'x' in the archive is a hard link"),
    "device": ([("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})], "'null' in the archive is no file"),
    "pipe": ([("pipe", {"type": tarfile.FIFOTYPE})], "is no file, folder or link"),
    "twice": ([("a", b"1"), ("./a", b"2")], r"'\./a' is in the archive twice"),
    "file and folder": ([("a", b"1"), ("a/b", b"2")], "'a' in the archive can't be unpacked"),
    "no name": ([(".", b"x")], "is in the archive twice"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_unpack_refuses_hostile(case: str, tmp_path: Path) -> None:
    members, sentence = HOSTILE[case]
    with pytest.raises(ArchiveError, match=sentence):
        opened(tar_of(*members), tmp_path / "in" / "code")  # type: ignore[arg-type]
    assert not list((tmp_path / "in").iterdir())
    assert [each.name for each in tmp_path.iterdir()] == ["in"]


def test_unpack_writes_nothing_of_another_hash(tmp_path: Path) -> None:
    data = tar_of(("a", b"1"))
    with pytest.raises(ArchiveMismatch, match="SHA-256"):
        unpack(data, "0" * 64, tmp_path / "in" / "code")
    assert not (tmp_path / "in").exists()


def test_unpack_refuses_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_FILES", 3)
    opened(tar_of(*((str(number), b"") for number in range(3))), tmp_path / "three")
    folder = {"type": tarfile.DIRTYPE}
    for what in (b"", folder):
        with pytest.raises(ArchiveError, match="more than 3 files"):
            opened(tar_of(*((str(number), what) for number in range(4))), tmp_path / "four")  # type: ignore[arg-type]


def test_unpack_counts_all_files_of_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_UNPACKED", 4 * 2**20)
    two = [("a", bytes(2 * 2**20)), ("b", bytes(2 * 2**20))]
    opened(tar_of(*two), tmp_path / "fits")
    with pytest.raises(ArchiveError, match="unpacks to more than 4 MiB"):
        opened(tar_of(*two, ("c", bytes(2 * 2**20))), tmp_path / "bomb")
    assert not (tmp_path / "bomb").exists()


def test_unpack_counts_what_a_header_lies_about(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a")
    info.size = 2**40
    data = gzip.compress(info.tobuf() + bytes(2**20))
    with pytest.raises(ArchiveError, match=r"damaged|truncated"):
        opened(data, tmp_path / "code")


def test_unpack_refuses_a_large_header(tmp_path: Path) -> None:
    data = tar_of(("n" * (3 * 2**20), b"x"))  # a name of 3 MiB is in a header of its own
    with pytest.raises(ArchiveError, match="header of more than 1 MiB"):
        opened(data, tmp_path / "code")


@pytest.mark.parametrize("cut", [10, 40, 200])
def test_unpack_refuses_a_truncated_archive(cut: int, tmp_path: Path) -> None:
    data = tar_of(("a", os.urandom(5000)))[:-cut]
    with pytest.raises(ArchiveError, match=r"damaged|truncated"):
        opened(data, tmp_path / "code")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", [b"", b"no archive", gzip.compress(b"no tar" * 200, mtime=0)])
def test_unpack_refuses_what_is_no_archive(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"damaged or no \.tar\.gz"):
        opened(data, tmp_path / "code")


def test_unpack_keeps_links_inside(tmp_path: Path) -> None:
    code = opened(tar_of(("a/x", b"1"), ("b/link", symlink("../a/x")), ("c", symlink("b"))), tmp_path / "code")
    assert (code / "c" / "link").read_bytes() == b"1"
    assert os.readlink(code / "b" / "link") == "../a/x"  # noqa: PTH115


def test_unpack_is_read_only(tmp_path: Path) -> None:
    code = opened(tar_of(("d/run", {"mode": 0o4777}), ("plain", {"mode": 0o666})), tmp_path / "code")
    modes = {path.name: oct(path.stat().st_mode & 0o7777) for path in [code, *code.rglob("*")]}
    assert modes == {"code": "0o555", "d": "0o555", "run": "0o555", "plain": "0o444"}


def test_unpack_replaces(tmp_path: Path) -> None:
    opened(tar_of(("old", b"1")), tmp_path / "code")
    code = opened(tar_of(("new", b"2")), tmp_path / "code")
    assert [each.name for each in code.iterdir()] == ["new"]
    archive.remove(code)
    assert not list(tmp_path.iterdir())
