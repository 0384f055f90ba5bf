"""YAML as kubectl reads it; mistakes carry their line; nothing that a user writes raises."""

import copy
import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trainmaster_api.validation.validate import format_problems, validate
from trainmaster_api.validation.yaml_reader import MAX_BYTES, parse_documents, validate_text

from tests.unit.api.samples import ALL_EXAMPLES, job


def only(text: str):
    (document,) = parse_documents(text)
    return document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        ("1.5", 1.5),
        ("0x10", 16),
        ("010", 8),
        ("-3", -3),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ("yes", True),
        ("y", True),
        ("N", False),
        ("nn", "nn"),
        ("~", None),
        ("'1'", "1"),
        ("20ep", "20ep"),
        ("5%", "5%"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_scalars_are_read_as_kubectl_reads_them(text, value):
    assert only(f"a: {text}").data == {"a": value}


def test_lines_point_at_keys_and_items():
    document = only("a:\n  b:\n  - 1\n  - c: 2\n")
    assert document.lines["a.b[1].c"] == 4
    assert document.line("a.b[1].c.d") == 4
    assert document.line("a.z") == 1
    assert document.line("nowhere") == 1


def test_several_documents_and_empty_ones():
    text = "---\na: 1\n---\n---\n# nothing\n---\nb: 2\n"
    assert [document.data for document in parse_documents(text)] == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize("text", ["", "---\n", "# only a comment\n"])
def test_an_empty_file_holds_no_job(text):
    assert "contains no TrainingJob" in str(only(text).problems[0])


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("a: [1\nb: 2\n", 2, "can't be read as YAML"),
        ("a: 1\na: 2\n", 2, "a: duplicate key (first defined on line 1)"),
        ("a:\n  ? [1]\n  : 2\n", 2, "mapping keys must be strings"),
        ("a: !!python/object:os.system x\n", 1, "unsupported YAML tag !!python/object:os.system"),
        ("a: !!binary aGk=\n", 1, "unsupported YAML tag !!binary"),
        ("a: !x 1\n", 1, "a: unsupported YAML tag !x"),
        ("a: \x07\n", 0, "can't be read as YAML"),
        ("a: *nobody\n", 1, "can't be read as YAML"),
        ("a: &a [*a]\n", 0, "nested too deeply"),
        ("[" * 5000, 0, "nested too deeply"),
        ("a: " + "x" * MAX_BYTES, 0, "longer than"),
    ],
)
def test_bad_yaml_is_a_sentence_with_its_line(text, line, sentence):
    problem = only(text).problems[0]
    assert sentence in str(problem)
    assert problem.line == line


def test_aliases_that_grow_are_refused():
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "nested too deeply" in str(only("\n".join(levels)).problems[0])


def test_merge_keys_work():
    assert only("base: &b {x: 1}\nuse:\n  <<: *b\n  y: 2\n").data["use"] == {"x": 1, "y": 2}


def test_problems_come_in_the_order_of_the_file():
    text = yaml.safe_dump(job({"spec.foo": 1, "metadata.name": "Digits"}), sort_keys=False)
    ((found, problems),) = validate_text(text)
    assert found is None
    assert [problem.line for problem in problems] == [4, text.splitlines().index("  foo: 1") + 1]


# --- never raises --------------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
ADDED = ("name", "class", "args", "lr", "metric", "uri", "momentum", "metrics", "loss")
VALID = [good for _, _, good in ALL_EXAMPLES.values()]


def paths(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, (*path, key))


@st.composite
def mutated(draw):
    """A valid job with up to three values replaced, removed, or put under a name that isn't known."""
    document = copy.deepcopy(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in paths(document) if path]))
        parent = document
        for step in path[:-1]:
            parent = parent[step]
        if not isinstance(parent, dict):
            continue
        action = draw(st.sampled_from(("replace", "remove", "rename", "add")))
        value = parent.pop(path[-1], None)
        if action == "replace":
            parent[path[-1]] = draw(JSON)
        elif action == "rename":
            parent[draw(st.text(min_size=1, max_size=8))] = value
        elif action == "add":
            parent[path[-1]] = value
            parent[
                draw(st.sampled_from(("name", "class", "args", "lr", "metric", "uri", "momentum", "metrics", "loss")))
            ] = draw(JSON)
    return document


def holds_together(document) -> None:
    found, problems = validate(document)
    assert (found is None) == bool(problems)
    text = format_problems(problems)
    assert len([line for line in text.splitlines() if line]) >= len(problems)
    if found is not None:
        again = validate({**document, "spec": found.wire()["spec"]})
        assert again[1] == []


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_a_damaged_job_never_raises(document):
    holds_together(document)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_data_never_raises(document):
    holds_together(document)


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=80) | st.text("{}[]:,-&*!|>'\"%@`#? \n\tab1<", max_size=60)
)
def test_any_text_never_raises(text):
    for found, problems in validate_text(text):
        assert found is None
        assert problems


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_text_says_the_same_as_data(document):
    try:
        text = json.dumps(document, allow_nan=False)
    except ValueError:
        return  # YAML writes these numbers in another way
    if parse_documents(text)[0].data != document:
        return  # characters that YAML has no place for
    ((found, problems),) = validate_text(text)
    assert (found is None) == (validate(document)[0] is None)
    assert sorted(str(problem) for problem in problems) == sorted(str(problem) for problem in validate(document)[1])
