"""Lock files: what is read, and what is refused with its line."""

from __future__ import annotations

import pytest
from trainmaster_api.requirements import MOST_BYTES, Pin, normalized, read
from trainmaster_api.spec.code import Code

ONE, TWO = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


def test_a_lock_file_is_read() -> None:
    text = f"""# made by a tool
Ruamel.Yaml==0.18.1 \\
    --hash={ONE} \\
    --hash={TWO}
    # via something
torch[opt]==2.13.0+cpu ; sys_platform == "linux" and python_version < "3.13" --hash={ONE}  # a comment

last == 1.0rc1 --hash {ONE}"""
    pins, problems = read(text.encode())
    assert problems == []
    assert pins == [
        Pin("ruamel-yaml", "0.18.1", "", (ONE, TWO), 2),
        Pin("torch", "2.13.0+cpu", 'sys_platform == "linux" and python_version < "3.13"', (ONE,), 6),
        Pin("last", "1.0rc1", "", (ONE,), 8),
    ]
    assert str(pins[0]) == f"ruamel-yaml==0.18.1 --hash={ONE} --hash={TWO}"
    assert read(str(pins[0]).encode())[0][0].hashes == (ONE, TWO)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("numpy>=2.0 --hash=" + ONE, "`numpy>=2.0` must be NAME==VERSION"),
        ("numpy --hash=" + ONE, "must be NAME==VERSION"),
        ("numpy==2.* --hash=" + ONE, "must be NAME==VERSION"),
        ("numpy===2.0 --hash=" + ONE, "must be NAME==VERSION"),
        ("numpy==2.0", "`numpy==2.0` has no checksum (--hash=sha256:...)"),
        ("numpy==2.0 --hash=md5:1", "has the checksum md5:1, which is no sha256:..."),
        ("-e .", "`-e .` is an editable install"),
        ("--editable=./x", "is an editable install"),
        ("-r other.txt", "names another file"),
        ("--index-url https://index.example/simple", "says where packages come from; remove it"),
        ("--pre", "is an option"),
        ("https://files.example/a-1.0-py3-none-any.whl --hash=" + ONE, "is an address"),
        ("a @ file:///tmp/a --hash=" + ONE, "is an address"),
        ("git+ssh://git@git.example/a", "is an address"),
        ("./a.whl", "must be NAME==VERSION"),
    ],
)
def test_lines_that_fix_nothing_are_refused(line: str, words: str) -> None:
    pins, (problem,) = read(f"ok==1.0 --hash={ONE}\n\n{line}\n".encode())
    assert problem.startswith("line 3: ")
    assert words in problem
    assert [pin.name for pin in pins] == ["ok"]


def test_ten_problems_are_named() -> None:
    _, problems = read(b"a>=1\n" * 13)
    assert [problem[:8] for problem in problems[:2]] == ["line 1: ", "line 2: "]
    assert (len(problems), problems[-1]) == (11, "3 more")


def test_files_that_are_no_text_are_refused() -> None:
    assert read(b"\xff\xfe")[1] == ["it is not text: byte 0 is not UTF-8"]
    assert read(b"#" * (MOST_BYTES + 1))[1] == ["it has 4 MiB; a lock file has at most 4"]
    assert read(b"") == ([], [])


def test_names_are_compared_as_pip_does() -> None:
    assert {normalized(name) for name in ("Ruamel.Yaml", "ruamel_yaml", "ruamel--yaml")} == {"ruamel-yaml"}


def test_wheels_are_a_folder_or_an_address() -> None:
    for given, kept in (("wheels/linux", "wheels/linux"), ("s3://bucket/w/", "s3://bucket/w"), ("/mnt/w/", "/mnt/w")):
        assert Code.model_validate({"image": "/app", "requirements": "a", "wheels": given}).wheels == kept
    for bad in ("../w", "s3://bucket/w#1", "https://index.example/w"):
        with pytest.raises(ValueError):
            Code.model_validate({"image": "/app", "requirements": "a", "wheels": bad})
