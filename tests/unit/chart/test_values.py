"""values.yaml, its schema and its comments say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from trainmaster_api.address import PATTERN

from .conftest import CHART, ROOT, HelmError

VALUES = (CHART / "values.yaml").read_text()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def objects(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every object of the schema that has named properties."""
    if "properties" in schema:
        yield path, schema
        for name, child in schema["properties"].items():
            yield from objects(child, (*path, name))


def leaves(values: Any, schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if "properties" not in schema:
        yield path
        return
    for name, value in values.items():
        yield from leaves(value, schema["properties"].get(name, {}), (*path, name))


def documented() -> set[tuple[str, ...]]:
    """Paths of keys in values.yaml that have a comment right above them."""
    found, stack, comment = set(), list[tuple[int, str]](), False
    for line in VALUES.splitlines():
        key = re.match(r"^( *)([A-Za-z]+):", line)
        if key:
            stack = [(indent, name) for indent, name in stack if indent < len(key[1])] + [(len(key[1]), key[2])]
            if comment:
                found.add(tuple(name for _, name in stack))
        comment = line.lstrip().startswith("#")
    return found


@pytest.mark.parametrize("path", [path for path, _ in objects(SCHEMA)], ids=".".join)
def test_an_unknown_value_is_refused_at_every_level(helm: Callable[..., str], path: tuple[str, ...]) -> None:
    with pytest.raises(HelmError, match="imagge"):
        helm("template", "t", str(CHART), "--kube-version", "1.34.0", "--set", ".".join((*path, "imagge")) + "=1")


def test_schema_and_values_have_the_same_names() -> None:
    values = yaml.safe_load(VALUES)
    for path, schema in objects(SCHEMA):
        assert schema["additionalProperties"] is False, path
        node = values
        for name in path:
            node = node[name]
        assert set(node) == set(schema["properties"]) - {"global"}, path


def test_an_address_is_what_the_contract_takes() -> None:
    found = SCHEMA["properties"]["defaults"]["properties"]["storage"]["properties"]["uri"]["pattern"]
    assert found == f"^({PATTERN[1:-1]})?$"


def test_every_value_has_a_comment() -> None:
    assert set(leaves(yaml.safe_load(VALUES), SCHEMA)) - documented() == set()


@pytest.mark.parametrize(
    "setting",
    [
        "operator.replicas=-1",
        "operator.image.pullPolicy=Sometimes",
        "operator.image.digest=sha256:12",
        "operator.namespaces={Team_A}",
        "defaults.storage.uri=s3:bucket",
        "defaults.storage.uri=s3://bucket//x",
        "defaults.storage.uri=s3://bucket/x#1",
        "defaults.storage.endpoint=minio:9000",
        "defaults.tracking={mlflow}",
        "webhook.failurePolicy=ignore",
        "service.port=0",
        "metrics.serviceMonitor.interval=30",
    ],
)
def test_a_value_that_makes_no_sense_is_refused(helm: Callable[..., str], setting: str) -> None:
    with pytest.raises(HelmError, match=setting.partition("=")[0].rpartition(".")[2]):
        helm("template", "t", str(CHART), "--kube-version", "1.34.0", "--set", setting)


@pytest.mark.parametrize("extra", [(), ("-f", str(ROOT / "testbed" / "values.yaml"))], ids=["defaults", "test bed"])
def test_helm_lint(helm: Callable[..., str], extra: tuple[str, ...]) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), *extra)
