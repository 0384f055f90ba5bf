"""The pages name fields, flags, metrics, files and pages that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from trainmaster_api import reasons
from trainmaster_api.generate.structural import structural
from trainmaster_api.validation.schema import node_at
from trainmaster_api.validation.validate import validate
from trainmaster_operator.runtime import config

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


def promises() -> list[tuple[str, str]]:
    """Every (file, test or empty) that the table of guarantees names."""
    return re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", (ROOT / "docs" / "guarantees.md").read_text())


@pytest.mark.parametrize(("path", "test"), promises())
def test_guarantees_name_tests_that_exist(path: str, test: str) -> None:
    target = ROOT / path
    files = sorted(target.rglob("test_*.py")) if target.is_dir() else [target]
    assert files, f"docs/guarantees.md names {path}, which holds no test"
    for file in files:
        assert file.is_file(), f"docs/guarantees.md names {path}, which doesn't exist"
    if test:
        assert f"def {test}(" in target.read_text(), f"docs/guarantees.md names {test}, which {path} doesn't have"


def test_guarantees_are_all_proved() -> None:
    rows = [line for line in (ROOT / "docs" / "guarantees.md").read_text().splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    for row in rows:
        assert "`tests/" in row, f"no test proves: {row}"


def test_quickstart_shows_the_example() -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text()
    for language, file in (("python", "recipe.py"), ("yaml", "trainingjob.yaml")):
        (block,) = re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
        assert block == (ROOT / "examples" / "recipe" / file).read_text()


def test_lifecycle_names_real_classes_and_costs() -> None:
    text = (ROOT / "docs" / "lifecycle.md").read_text()
    named = {str(c) for c in reasons.FailureClass if f"`{c}`" in text}
    assert {"Preempted", "HeadLost", "DeadlineExceeded"} <= named
    assert reasons.FAILURE_RULES[reasons.FailureClass.PREEMPTED].retry is reasons.Retry.FREE
    assert reasons.FAILURE_RULES[reasons.FailureClass.HEAD_LOST].retry is reasons.Retry.COUNTED


def test_the_check_of_fields_can_fail() -> None:
    assert exists("run.retries.max")
    assert not exists("run.retries.maximum")


def test_operator_page_has_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        config.parse(["--help"])
    variables = re.findall(r"\[TRAINMASTER_(\w+)\]", capsys.readouterr().out)
    _, _, section = (ROOT / "docs" / "operator.md").read_text().partition("## Flags\n")
    rows = "".join(line.split(" | ")[0] for line in section.partition("\n## ")[0].splitlines() if line.startswith("| "))
    assert sorted(re.findall(r"`--([a-z-]+)`", rows)) == sorted(name.lower().replace("_", "-") for name in variables)


def test_operator_page_has_every_metric() -> None:
    runtime = ROOT / "operator" / "trainmaster_operator" / "runtime"
    code = "".join((runtime / name).read_text() for name in ("metrics.py", "app.py"))
    _, _, section = (ROOT / "docs" / "operator.md").read_text().partition("## Health and metrics\n")
    listed = {name.removesuffix("_total") for name in re.findall(r"`(trainmaster_\w+)", section)}
    assert listed == set(re.findall(r'"(trainmaster_\w+)"', code))


def test_jobs_of_pages_are_valid() -> None:
    blocks = [block for _, block in mentions(re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE))]
    jobs = [yaml.safe_load(block) for block in blocks if "kind: TrainingJob" in block]
    assert jobs
    for job in jobs:
        assert validate(job)[1] == []
