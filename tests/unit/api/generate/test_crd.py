"""The generated CRD: what is committed, what it may not hold, and that its defaults are pydantic's."""

import copy
from typing import Any

import pytest
import yaml
from trainmaster_api.generate import crd
from trainmaster_api.generate.structural import structural
from trainmaster_api.spec.job import Spec, TrainingJob
from trainmaster_api.spec.training import Training
from trainmaster_api.validation.fields import fill_defaults

from tests.unit.api.samples import REGRESSION, SGD, VIT, job

SCHEMA = crd.custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(schema: dict[str, Any], path: str = ""):
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


def test_committed_yaml_is_what_the_models_generate(capsys):
    assert crd.main(["--check"]) == 0, capsys.readouterr().err


def test_check_says_what_to_do_about_an_old_file(tmp_path, capsys):
    old = tmp_path / "crd.yaml"
    old.write_text(crd.render() + "# changed\n")
    assert crd.main([str(old), "--check"]) == 1
    assert "python -m trainmaster_api.generate.crd" in capsys.readouterr().err
    assert crd.main([str(old)]) == 0
    assert old.read_text() == crd.render()


def test_size_leaves_room_for_plain_kubectl_apply(record_property):
    size = len(yaml.safe_load(crd.render()).__repr__()), len(crd.render().encode())
    print(f"the CRD has {size[1]:,} bytes of YAML; plain apply takes {crd.MAX_BYTES:,}")
    record_property("crd_bytes", size[1])
    assert max(size) < crd.MAX_BYTES


def test_every_field_has_a_description():
    outside = {".metadata", ".metadata.name"}
    missing = [
        path
        for path, node in nodes(SCHEMA)
        if not node.get("description") and not path.endswith("[]") and path not in outside
    ]
    assert missing == []


def test_schema_is_structural():
    forbidden = {"$ref", "oneOf", "allOf", "discriminator", "const", "title", "examples"}
    for path, node in nodes(SCHEMA):
        assert not forbidden & set(node), path
        kinds = ("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields")
        assert "type" in node or any(node.get(each) for each in kinds), path
        assert not ("type" in node and node.get("x-kubernetes-int-or-string")), path


def test_every_default_object_starts_the_defaults_below_it():
    always: set[str] = set()
    for path, node in nodes(SCHEMA["properties"]["spec"]):
        below = [name for name, child in node.get("properties", {}).items() if "default" in child]
        always |= {f"{path}.{name}" for name in node.get("required", [])}
        if below and path not in always and path and "default" not in node:
            assert _is_optional(path), f"{path}: the defaults of {below} never apply"


def _is_optional(path: str) -> bool:
    """Objects that mean something by being there have no default, and items of a list are there or not."""
    optional = (
        "mlflow",
        "earlyStopping",
        "template",
        "loss",
        "task",
        "data",
        "model",
        "datamodule",
        "tuning",
        "hyperparameterSearch",
        *Training.EXACTLY_ONE,
    )
    return path.endswith("[]") or path.rpartition(".")[2] in optional


def test_status_has_no_defaults():
    assert [path for path, node in nodes(SCHEMA["properties"]["status"]) if "default" in node] == []


@pytest.mark.parametrize(
    "document",
    [
        job(),
        job(VIT),
        job(SGD),
        job(REGRESSION),
        job({"spec.training.model": {"name": "cnn"}, "spec.training.loop.earlyStopping": {}}),
        job({"spec.training.model": {"class": "my_pkg:Net"}, "spec.training.task.metrics": [{"name": "f1"}]}),
        job({"spec.training.task": {"name": "classification", "loss": {"class": "my_pkg:Loss", "args": {"a": 1}}}}),
        job({"spec.training.optimizer": {"class": "my_pkg:Lion", "lr": 0.1, "weightDecay": 0.0}}),
        job({"spec.cluster.workers.template": {}, "spec.tracking": [{"mlflow": {}}]}),
        *(job({"spec.training.schedule": {"name": name}}) for name in ("constant", "cosine", "linear", "plateau")),
    ],
)
def test_defaults_are_those_of_pydantic_field_by_field(document):
    by_crd = _with_defaults(copy.deepcopy(document)["spec"], SCHEMA["properties"]["spec"])
    assert by_crd == fill_defaults(document["spec"], Spec)
    by_pydantic = _flat(TrainingJob.model_validate(document).wire()["spec"])
    from_name = {"training.optimizer.lr", "training.optimizer.weightDecay", "training.schedule.warmup"}
    here = {path: value for path, value in _flat(by_crd).items() if ".args" not in path}
    assert here.items() <= by_pydantic.items()
    assert {path for path in by_pydantic if path not in here and ".args" not in path} <= from_name


def _with_defaults(value: Any, schema: dict[str, Any]) -> Any:
    """What the API server makes of a value."""
    if isinstance(value, list):
        return [_with_defaults(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    filled = dict(value)
    for name, child in schema.get("properties", {}).items():
        if name not in filled and "default" in child:
            filled[name] = copy.deepcopy(child["default"])
        if name in filled:
            filled[name] = _with_defaults(filled[name], child)
    if isinstance(entry := schema.get("additionalProperties"), dict):
        filled = {name: _with_defaults(item, entry) for name, item in filled.items()}
    return filled


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {
            key: item
            for name, child in value.items()
            for key, item in _flat(child, f"{path}.{name}" if path else name).items()
        }
    return {path: repr(value)}


def test_examples_in_messages_match_their_pattern():
    import re

    with_pattern = [(path, node) for path, node in nodes(structural()) if "pattern" in node]
    assert len(with_pattern) > 10
    for path, node in with_pattern:
        assert node.get("examples"), f"{path}: a pattern alone tells nobody what to write"
        for example in node["examples"]:
            assert re.search(node["pattern"], example), (path, example)


def test_printed_columns():
    columns = crd.custom_resource_definition()["spec"]["versions"][0]["additionalPrinterColumns"]
    names = ["Phase", "Workers", "Progress", "ETA", "Metric", "Restarts", "Checkpoint", "Age", "Reason"]
    assert [column["name"] for column in columns] == names
    known = {path for path, _ in nodes(SCHEMA)}
    for column in columns[:-2] + columns[-1:]:
        assert column["jsonPath"] in known, column
