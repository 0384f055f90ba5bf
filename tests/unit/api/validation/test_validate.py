"""Sentences of validate(): one table of mistakes, each with the line that a user reads."""

import pytest
from trainmaster_api.validation.validate import Problem, format_problems, validate

from tests.unit.api.samples import REMOVE, TABLE, VIT, job


def lines(document) -> list[str]:
    found, problems = validate(document)
    assert (found is None) == bool(problems)
    return [str(problem) for problem in problems]


ODD, TWO = "spec.training.data.batchSize", "spec.cluster.workers.count"
SCHEDULE, METRICS = "spec.training.schedule", "spec.training.task.metrics"
LATE = {"name": "cosine", "warmup": "11ep"}
MISTAKES = [
    ({"spec.training.loop.duration": "20"}, 'duration = "20": must be a string such as 20ep, 1000step'),
    ({"spec.training.loop.duration": 20}, "duration = 20: must be a string such as 20ep, 1000step"),
    ({"spec.training.schedule": {"name": "cosine", "warmup": 0}}, "quote it: YAML would parse it as another type"),
    ({"spec.training.data.batchSize": 0}, "batchSize = 0: must be an integer of at least 1 and at most 1000000"),
    ({"spec.training.data.batchSize": "64"}, 'batchSize = "64": must be an integer'),
    ({"spec.training.data.batchSize": True}, "batchSize = true: must be an integer"),
    ({"spec.training.data.batchSize": 1.5}, "batchSize = 1.5: must be an integer"),
    ({"spec.training.data.normalize": "yes"}, 'normalize = "yes": must be true or false'),
    ({"spec.training.data.batchsize": 8}, "spec.training.data.batchsize = 8: unknown field; did you mean `batchSize`?"),
    ({"spec.training.data.batch_size": 8}, "did you mean `batchSize`?"),
    ({"spec.workers": 2}, "did you mean spec.cluster.workers?"),
    (
        {"spec.xyzzy": {}},
        "unknown field: known fields are training, tuning, hyperparameterSearch, tracking, storage, checkpoint, "
        "cluster, run",
    ),
    ({"spec.tuning": {"space": {}}}, "spec.tuning.space = {}: must be a mapping with at least 1 entry"),
    (
        {"spec.training.model": {"name": "vti"}},
        'spec.training.model.name = "vti": unknown model; known are cnn, mlp, transformer, vit, or use your own with '
        '`class: "package.module:Name"`; did you mean `vit`?',
    ),
    ({"spec.training.model": {"name": "MLP"}}, "did you mean `mlp`?"),
    ({"spec.training.optimizer": {"name": "adam"}}, 'optimizer.name = "adam": unknown optimizer; known are adamw, sgd'),
    ({"spec.training.task.loss": {"name": "crossentropy"}}, "unknown loss; known are cross_entropy, huber, mae, mse"),
    ({"spec.training.task.metrics": [{"name": "acuracy"}]}, 'metrics[0].name = "acuracy": unknown metric'),
    ({"spec.training.model": {}}, "spec.training.model: needs exactly one of name, class"),
    ({"spec.training.model": {"name": "mlp", "class": "a:B"}}, "spec.training.model: needs exactly one of name, class"),
    ({"spec.training.model": {"class": "my_pkg.Net"}}, "must be a string such as my_package.module:Name"),
    (
        {"spec.training.model": {"name": None}},
        "spec.training.model.name: is empty: a string such as cnn, mlp, transformer, vit, package/name",
    ),
    ({"spec.training.model": {"name": "mlp", "args": {"dropout": "x"}}}, 'args.dropout = "x": must be a number of'),
    ({"spec.training.model": {"name": "mlp", "args": {"hidden": [0]}}}, "args.hidden[0] = 0: must be an integer"),
    ({"spec.training.model": {"name": "mlp", "args": []}}, "args = []: must be a mapping"),
    ({"spec.training.model": {"class": "a:B", "args": {"x": [float("nan")]}}}, "args.x[0] = NaN: must be a finite"),
    ({"spec.training.schedule": {"name": "cosine", "args": {"factor": 1}}}, "there are none here; did you mean spec"),
    ({"spec.training.optimizer": {"class": "a:B"}}, "spec.training.optimizer.lr: is required: a number above 0"),
    (
        {"spec.training.optimizer": {"name": "sgd", "momentum": 0.9}},
        "did you mean spec.training.optimizer.args.mom",
    ),
    ({"spec.training.schedule": {"name": "plateau", "metric": "val/loss"}}, "did you mean spec.training.schedule.args"),
    ({"spec.training.task.labelSmoothing": 0.1}, "did you mean spec.training.task.loss.args.labelSmoothing?"),
    (
        {"spec.training.model": "mlp"},
        'spec.training.model = "mlp": must be a mapping with the fields name, class, args',
    ),
    ({"spec.training.model": None}, "spec.training.model: is empty"),
    ({"spec.training.model": REMOVE}, "spec.training: needs exactly one of model, recipe, script"),
    ({"spec.training.framework": "jax"}, 'framework = "jax": must be one of torch, lightning, script'),
    ({"spec.training": []}, "spec.training = []: must be a mapping with the fields framework, code, task"),
    ({"spec": REMOVE}, "spec: is required"),
    ({"metadata": REMOVE}, "metadata: is required"),
    ({"metadata.name": REMOVE}, "metadata.name: is required"),
    ({"metadata.name": "Digits"}, 'metadata.name = "Digits": must start with a letter, contain only lower-case'),
    ({"metadata.lables": {"a": "b"}}, "metadata: has no field `lables` in Kubernetes; did you mean `labels`?"),
    ({"metadata.labels": {"a": 1}}, "metadata.labels.a = 1: must be a string"),
    ({"kind": "Job"}, 'kind = "Job": must be TrainingJob'),
    ({"apiVersion": REMOVE}, "apiVersion: is missing: trainmaster.dev/v1alpha1"),
    (
        {"spec.training.optimizer": {"name": "adamw", "args": {"betas": [0.9]}}},
        "must be a list of 2 items, each a number of",
    ),
    (
        {"spec.training.optimizer": {"name": "adamw", "args": {"betas": [0.9, 1]}}},
        "betas[1] = 1: must be a number of at least 0",
    ),
    ({"spec.training.optimizer": {"name": "adamw", "lr": "fast"}}, 'lr = "fast": must be a number above 0'),
    ({"spec.training.loop.clipNorm": float("nan")}, "clipNorm = NaN: must be a number above 0"),
    ({"spec.training.loop.clipNorm": float("inf")}, "clipNorm = Infinity: must be a number above 0"),
    (
        {"spec.storage.uri": "gs://bucket"},
        'uri = "gs://bucket": has the scheme gs://, which is not supported: use s3://',
    ),
    (
        {"spec.storage.uri": "s3://Bucket"},
        "has the bucket name `Bucket`, which is invalid: use 3 to 63 lower-case letters",
    ),
    ({"spec.storage.uri": "runs"}, 'uri = "runs": must be s3://bucket/prefix or an absolute path'),
    ({"spec.storage.uri": 3}, "uri = 3: must be a string such as s3://bucket/prefix"),
    ({"spec.storage.uri": "s3://runs/exp#1"}, 'spec.storage.uri = "s3://runs/exp#1": contains `#`'),
    ({"spec.run.resumeFrom": "s3://runs//x"}, 'spec.run.resumeFrom = "s3://runs//x": contains `//`'),
    ({"spec.training.data.source": "images:s3://runs/../x"}, "spec.training.data.source = "),
    ({"spec.cluster.workers.cpus": 1.5}, "cpus = 1.5: must be a quantity such as 500m, 2, 2Gi"),
    ({"spec.cluster.workers.memory": "2GB"}, 'memory = "2GB": must be a quantity such as 500m, 2, 2Gi'),
    ({"spec.cluster.workers.template": {"metadata": {"labels": {"a": 1}}}}, "labels.a = 1: must be a string"),
    ({"spec.cluster.workers.template": {"spec": ["x"]}}, 'template.spec = ["x"]: must be a mapping'),
    ({"spec.cluster.workers.template": {"spec": {"hostPID": True}}}, "template.spec.hostPID = true: is not allowed"),
    ({"spec.run.retries.max": -1}, "max = -1: must be an integer of at least 0"),
]


@pytest.mark.parametrize(("change", "expected"), MISTAKES, ids=[expected[:40] for _, expected in MISTAKES])
def test_each_mistake_is_one_line(change, expected):
    found = lines(job(change))
    assert len(found) == 1, found
    assert expected in found[0]


def test_validate_misspelt_argument_suggestion():
    (line,) = lines(job(VIT, {"spec.training.model.args.dpeth": 2}))
    assert line == "spec.training.model.args.dpeth = 2: unknown field; did you mean `depth`?"
    (line,) = lines(job(VIT, {"spec.training.model.args.zzz": 2}))
    assert line.endswith("known fields are dim, depth, heads, mlpRatio, dropout, patch")


def test_validate_problems_of_schema_and_rules_at_once():
    found = lines(
        job(
            TABLE,
            {
                "metadata.name": "Digits",
                "spec.training.data.target": REMOVE,
                "spec.training.data.split": {"train": 0.5},
                "spec.training.loop.duration": "long",
                "spec.checkpoint.metric": "val/rmse",
                "spec.cluster.workers.count": 3,
                "spec.foo": 1,
            },
        )
    )
    paths = {line.partition(":")[0].partition(" =")[0] for line in found}
    assert paths == {
        "metadata.name",
        "spec.training.data.target",
        "spec.training.data.split",
        "spec.training.loop.duration",
        "spec.checkpoint.metric",
        "spec.training.data.batchSize",
        "spec.foo",
    }
    assert len(found) == len(paths)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("spec.cluster.workers.count", {"spec.cluster.workers.count": 0}),
        # each of these has a default or a stand-in that would break a rule
        ("spec.training.loop.gradientAccumulation", {"spec.training.loop.gradientAccumulation": 0, ODD: 33, TWO: 2}),
        ("spec.training.loop.duration", {"spec.training.loop.duration": "long", SCHEDULE: LATE}),
        ("spec.training.data.split.train", {"spec.training.data.split": {"train": "x", "test": 0.5}}),
        ("spec.training.data.source", {"spec.training.data": {"source": 3, "target": "label", "features": ["a"]}}),
        ("spec.training.task.name", {"spec.training.task": {"name": "other"}, "spec.checkpoint.metric": "val/rmse"}),
        ("spec.training.model.name", {"spec.training.model.name": "cmn", "spec.training.data.source": "sklearn:iris"}),
        ("spec.training.task.metrics[0].name", {METRICS: [{"name": "x"}], "spec.checkpoint.metric": "val/x"}),
    ],
)
def test_a_rule_is_silent_about_what_is_wrong_already(path, change):
    task = {"spec.training.task.numClasses": 3} if "iris" in str(change) else {}
    (line,) = lines(job(task, change))
    assert line.startswith(path)


@pytest.mark.parametrize("document", [None, [], "text", 3, True, {1: 2}, {"spec": {1: {}}}])
def test_what_is_no_job_is_refused_in_a_sentence(document):
    found = lines(document)
    assert found
    assert all(line.strip() for line in found)


def test_a_document_that_contains_itself_is_refused():
    document = job()
    document["spec"]["cluster"] = document
    assert "can't be written as JSON" in lines(document)[0]


def test_validate_null_is_the_default_where_there_is_one():
    nulls = {"spec.training.loop": None, "spec.run": {"suspend": None}, "spec.training.model.args": {"dropout": None}}
    found, problems = validate(job(nulls))
    assert not problems
    assert found is not None
    assert found.spec.training.loop.duration == "10ep"
    assert lines(job({"metadata.labels": None, "metadata.creationTimestamp": None})) == []
    (line,) = lines(job({"spec.storage.uri": None}))
    assert line.startswith("spec.storage.uri: is empty: a string such as s3://bucket/prefix")


def test_status_is_the_operators_and_no_part_of_validation():
    assert validate(job({"status": {"nonsense": 1}}))[1] == []


def test_a_whole_number_is_a_quantity():
    found, _ = validate(job({"spec.cluster.workers.cpus": 2}))
    assert found is not None
    assert found.spec.cluster.workers.cpus == "2"


def test_format_names_file_and_line():
    problems = [Problem("spec.a", "must be", '"x"', "a number", line=7), Problem("", "is no job")]
    assert format_problems(problems, "job.yaml") == 'job.yaml:7: spec.a = "x": must be a number\njob.yaml: is no job'
