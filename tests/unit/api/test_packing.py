import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainmaster_api import archive
from trainmaster_api.archive import ArchiveError, unpack
from trainmaster_api.packing import pack
from trainmaster_api.spec.own import Script


def tree(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def names(folder: Path) -> list[str]:
    return [each.path for each in pack(folder).files]


def content_of(folder: Path) -> dict[str, tuple[bytes | str, bool]]:
    found: dict[str, tuple[bytes | str, bool]] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = (os.readlink(path), False)  # noqa: PTH115
        elif path.is_file():
            found[name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


# letters that no ignored name starts with
_PARTS = st.text("abxyz0ü_", min_size=1, max_size=6)
_PATHS = st.lists(_PARTS, min_size=1, max_size=3).map("/".join)


def _no_prefixes(paths: dict[str, object]) -> bool:
    return not any(other.startswith(f"{path}/") for path in paths for other in paths)


_FILES = st.dictionaries(_PATHS, st.tuples(st.binary(max_size=3000), st.booleans()), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(_FILES.filter(_no_prefixes), st.randoms(use_true_random=False))
def test_pack_and_unpack_give_the_same_tree(files: dict[str, tuple[bytes, bool]], random: object) -> None:
    scratch = Path(tempfile.mkdtemp())
    try:
        for copy in ("one", "two"):
            order = list(files)
            random.shuffle(order)  # type: ignore[attr-defined]
            for name in order:
                content, is_executable = files[name]
                tree(scratch / copy, {name: content})
                (scratch / copy / name).chmod(0o740 if is_executable else 0o600)
                os.utime(scratch / copy / name, (len(copy), order.index(name)))
        one, two = pack(scratch / "one"), pack(scratch / "two")
        assert one.data == two.data
        assert one.tree == two.tree
        unpack(one.data, one.sha256, scratch / "back")
        assert content_of(scratch / "back") == files
        assert pack(scratch / "back").data == one.data
    finally:
        archive.remove(scratch)


def test_pack_is_the_same_on_every_machine(tmp_path: Path) -> None:
    tree(tmp_path, {"a.py": "x = 1\n"})
    data = pack(tmp_path).data
    # no time, no name, maximum compression, unknown operating system: what GzipFile writes wherever it runs
    assert data[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"


def test_pack_notices_every_change(tmp_path: Path) -> None:
    tree(tmp_path, {"a.py": "1", "b.py": "2"})
    seen = {pack(tmp_path).sha256}
    (tmp_path / "a.py").chmod(0o755)
    seen.add(pack(tmp_path).sha256)
    (tmp_path / "b.py").write_text("3")
    seen.add(pack(tmp_path).sha256)
    (tmp_path / "b.py").rename(tmp_path / "c.py")
    seen.add(pack(tmp_path).sha256)
    assert len(seen) == 4


def test_pack_leaves_out_what_is_never_code(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "train.py": "", ".git/config": "", ".hg/store": "", "__pycache__/train.pyc": "", "old.pyc": "",
            "node_modules/x.js": "", ".ipynb_checkpoints/n.ipynb": "", "trainmaster-runs/r": "",
            "my-env/pyvenv.cfg": "", "my-env/lib/x.py": "", "sub/conda/conda-meta/history": "", "sub/ok.py": "",
            ".trainmasterignore": "!.git\n!my-env\n",
        },
    )  # fmt: skip
    assert names(tmp_path) == [".trainmasterignore", "sub/ok.py", "train.py"]


def test_pack_honours_ignore_files_as_git_does(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            ".gitignore": "data/\n*.log\n!keep.log\n/top.txt\n",
            "data/x": "", "a.log": "", "keep.log": "", "top.txt": "", "sub/top.txt": "",
            "sub/.gitignore": "*.tmp\n!b.log\n", "sub/a.tmp": "", "sub/b.log": "", "sub/c.log": "", "other/a.tmp": "",
        },
    )  # fmt: skip
    assert names(tmp_path) == [
        ".gitignore", "keep.log", "other/a.tmp", "sub/.gitignore", "sub/b.log", "sub/top.txt",
    ]  # fmt: skip


def test_pack_honours_the_repository_above(tmp_path: Path) -> None:
    tree(tmp_path, {".git/config": "", ".gitignore": "*.ckpt\n", "src/a.py": "", "src/b.ckpt": ""})
    assert names(tmp_path / "src") == ["a.py"]
    shutil.rmtree(tmp_path / ".git")
    assert names(tmp_path / "src") == ["a.py", "b.ckpt"]


def test_pack_gives_our_ignore_file_the_last_word(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {".gitignore": "gen.py\n", ".trainmasterignore": "!gen.py\nbig.bin\n", "gen.py": "", "big.bin": "", "a.py": ""},
    )
    assert names(tmp_path) == [".gitignore", ".trainmasterignore", "a.py", "gen.py"]


SECRETS = [".env", ".env.prod", "server.pem", "ID_RSA", "credentials.json", ".netrc", "kubeconfig", "tls.key"]


def test_pack_leaves_out_secrets_and_says_so(tmp_path: Path) -> None:
    tree(tmp_path, dict.fromkeys(SECRETS, "s"))
    tree(tmp_path, {"a.py": "", ".aws/config": "s", "sub/.env": "s", ".env.example": "x", "key.py": ""})
    packed = pack(tmp_path)
    assert [each.path for each in packed.files] == [".env.example", "a.py", "key.py"]
    assert packed.skipped == tuple(sorted([*SECRETS, ".aws/", "sub/.env"]))


def test_pack_takes_a_secret_that_is_asked_for(tmp_path: Path) -> None:
    tree(tmp_path, {"a.py": "", ".env": "s", "b.pem": "s", ".gitignore": "!b.pem", ".trainmasterignore": "!.env\n"})
    packed = pack(tmp_path)
    assert ".env" in packed.listing
    assert packed.skipped == ("b.pem",), "only our own ignore file brings one in"


def test_pack_leaves_out_the_checkpoints_of_other_runs_and_says_so(tmp_path: Path) -> None:
    files = ["train.py", "out/last.pt", "deep/ck/a.pt", "deep/net.py", "asked/start.pt"]
    tree(tmp_path, dict.fromkeys(files, "x") | {".trainmasterignore": "!asked\n"})
    (tmp_path / "empty").mkdir()
    script = Script(path="train.py", checkpoints=["out", "deep/ck", "asked", "empty", "absent"])
    packed = pack(tmp_path, results=script.results)
    assert sorted(packed.listing) == [".trainmasterignore", "asked/start.pt", "deep/net.py", "train.py"]
    assert packed.left_out == [
        "not part of the code, as the checkpoints of other runs: deep/ck/, out/; `!NAME` in .trainmasterignore "
        "brings one in"
    ]


def test_folder_of_checkpoints_that_has_the_program_travels() -> None:
    assert Script(path="out/train.py", checkpoints=["out", "."]).results == []
    assert Script(path="output.py", checkpoints=["out"]).results == ["out"]
    assert Script(module="net.train", checkpoints=["out"]).results == ["out"]


def test_pack_names_the_ten_largest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 50_000)
    tree(tmp_path, {f"f{number:02}": os.urandom(4000 + 100 * number) for number in range(12)})
    with pytest.raises(
        ArchiveError, match=r"compressed, and at most 48.8 KiB can travel.*\.trainmasterignore"
    ) as error:
        pack(tmp_path)
    lines = str(error.value).splitlines()[1:]
    assert [line.split()[-1] for line in lines] == [f"f{number:02}" for number in range(11, 1, -1)]
    assert lines[0].split()[0] == "5.0"


def test_pack_refuses_before_it_reads_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_UNPACKED", 1000)
    tree(tmp_path, {"zeros": bytes(2000)})
    with pytest.raises(ArchiveError, match=r"2.0 KiB unpacked, and at most 1.0 KiB"):
        pack(tmp_path)


def test_pack_refuses_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_FILES", 2)
    tree(tmp_path, {"a": "", "b": "", "c": ""})
    with pytest.raises(ArchiveError, match="has 3 files, and at most 2 can travel"):
        pack(tmp_path)


def test_pack_keeps_links_inside_and_refuses_others(tmp_path: Path) -> None:
    code = tree(tmp_path / "code", {"a/x.py": "1"})
    (code / "b").symlink_to("a/x.py")
    (code / "c").symlink_to("./a")
    packed = pack(code)
    assert packed.listing["b"] == "-> a/x.py"
    unpack(packed.data, packed.sha256, tmp_path / "back")
    assert content_of(tmp_path / "back") == content_of(code)
    (code / "d").symlink_to("../code/a")
    with pytest.raises(ArchiveError, match="'d' is a link out of the code's folder"):
        pack(code)


def test_pack_refuses_sockets(tmp_path: Path) -> None:
    tree(tmp_path, {"a.py": ""})
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # the path of a socket has at most 107 bytes
        try:
            server.bind("s")
        finally:
            os.chdir(here)
        with pytest.raises(ArchiveError, match="s is a socket, which can't travel"):
            pack(tmp_path)


def test_pack_refuses_names_that_are_no_text(tmp_path: Path) -> None:
    tree(tmp_path, {"a.py": ""})
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.py")).write_text("")
    with pytest.raises(ArchiveError, match=r"\\udcff.py has a name that isn't valid UTF-8"):
        pack(tmp_path)


def test_pack_names_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, {"a.py": ""})

    def deny(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", deny)  # root may read everything
    with pytest.raises(ArchiveError, match=r"a\.py can't be read: permission denied; correct its permissions"):
        pack(tmp_path)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [("nothing", "does not exist"), ("file", "is a file; name its folder"), ("empty", "there is no code in")],
)
def test_pack_refuses_what_is_no_folder(make: str, sentence: str, tmp_path: Path) -> None:
    folder = tmp_path / "code"
    if make == "file":
        folder.write_text("")
    elif make == "empty":
        tree(folder, {".env": ""})
    with pytest.raises(ArchiveError, match=sentence):
        pack(folder)


def test_pack_leaves_out_results(tmp_path: Path) -> None:
    tree(tmp_path, {"a.py": "", "out/model": ""})
    assert list(pack(tmp_path, [tmp_path / "out"]).listing) == ["a.py"]
