"""docs/cli.md has a section for every command on a cluster, with the options that it takes and no others."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from trainmaster_cli.cluster.commands import COMMANDS
from trainmaster_cli.main import _parser

PAGE = (Path(__file__).parents[4] / "docs/cli.md").read_text()
EVERYWHERE = {"-h", "--help", "-n", "--namespace", "--context"}


def parsers() -> dict[str, argparse.ArgumentParser]:
    (choices,) = [
        action.choices for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)
    ]  # argparse has no public way to its subparsers
    return {name: parser for name, parser in choices.items() if name in COMMANDS}


def test_every_command_has_a_parser() -> None:
    assert parsers().keys() == COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_has_the_options(name: str) -> None:
    taken = {option for action in parsers()[name]._actions for option in action.option_strings}
    assert taken >= EVERYWHERE
    section = PAGE.partition(f"\n## trainmaster {name}\n")[2].partition("\n## ")[0]
    assert section, f"docs/cli.md has no section `trainmaster {name}`"
    named = set(re.findall(r"`(-{1,2}[a-zA-Z][a-z-]*)", section))
    assert named == taken - EVERYWHERE
