"""docs/cli.md has what the commands of `trainmaster tune` take and say, and no more."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from trainmaster_cli.main import _parser, main
from trainmaster_cli.tune.commands import COMMANDS

ROOT = Path(__file__).parents[4]
SECTION = (ROOT / "docs/cli.md").read_text().partition("\n## trainmaster tune\n")[2].partition("\n## ")[0]
COMMON = {"--storage", "-n", "--namespace", "--context"}


def choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (found,) = [each.choices for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    return dict(found)


def options(name: str) -> set[str]:
    parser = choices(choices(_parser())["tune"])[name]
    return {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}


def part(name: str) -> str:
    return SECTION.partition(f"\n### trainmaster tune {name}\n")[2].partition("\n### ")[0]


def test_every_command_has_a_parser() -> None:
    assert choices(choices(_parser())["tune"]).keys() == COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_has_the_options(name: str) -> None:
    assert part(name), f"docs/cli.md has no section `trainmaster tune {name}`"
    text = re.sub(r"(?m)^\|.*$", "", part(name))  # but for the table of sentences
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
    assert named == options(name) - COMMON
    assert options(name) & COMMON in (set(), COMMON)
    assert set(re.findall(r"`(-{1,2}[a-z]+)", SECTION.partition("\n### ")[0])) == COMMON


def test_the_page_shows_what_plan_prints(capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = re.findall(r"\$ trainmaster tune plan examples/search/trainingjob.yaml\n(.*?)```", SECTION, re.DOTALL)
    assert main(["tune", "plan", str(ROOT / "examples/search/trainingjob.yaml")]) == 0
    assert capsys.readouterr().out == shown


def test_the_sentences_have_tests() -> None:
    tests = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    named = re.findall(r"`(test_\w+)` \|$", part("extend"), re.MULTILINE)
    assert len(named) == 7
    assert all(f"def {name}(" in tests for name in named)
