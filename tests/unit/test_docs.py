"""The pages name fields, files and pages that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from trainmaster_api import reasons
from trainmaster_api.generate.structural import structural
from trainmaster_api.validation.schema import node_at

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
SECTIONS = ("training", "tracking", "storage", "checkpoint", "cluster", "run")
FIELD = re.compile(rf"`(?:spec\.)?((?:{'|'.join(SECTIONS)})(?:\.(?!py`)[a-zA-Z]+)+)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def exists(path: str) -> bool:
    """Whether the schema has the field."""
    return node_at(structural(), f"spec.{path}") is not None


def mentions(pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for found in pattern.findall(page.read_text()):
            yield str(page.relative_to(ROOT)), found


@pytest.mark.parametrize(("page", "field"), sorted(set(mentions(FIELD))))
def test_fields_exist(page: str, field: str) -> None:
    assert exists(field), f"{page} speaks of `{field}`"


@pytest.mark.parametrize(("page", "target"), sorted(set(mentions(LINK))))
def test_links_lead_somewhere(page: str, target: str) -> None:
    assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


def test_lifecycle_names_real_classes_and_costs() -> None:
    text = (ROOT / "docs" / "lifecycle.md").read_text()
    named = {str(c) for c in reasons.FailureClass if f"`{c}`" in text}
    assert {"Preempted", "HeadLost", "DeadlineExceeded"} <= named
    assert reasons.FAILURE_RULES[reasons.FailureClass.PREEMPTED].retry is reasons.Retry.FREE
    assert reasons.FAILURE_RULES[reasons.FailureClass.HEAD_LOST].retry is reasons.Retry.COUNTED


def test_the_check_of_fields_can_fail() -> None:
    assert exists("run.retries.max")
    assert not exists("run.retries.maximum")
