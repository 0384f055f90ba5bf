"""Rules between fields, each written once as CEL (for the CRD) and once as Python (for the admission hook and the CLI).

A rule is evaluated on `self`, the object at its `scope`, after defaults. Both sides say the same sentence; a test runs
every rule's examples against Python and against a real API server and compares what they say.
"""

from __future__ import annotations

import re

from trainmaster_api.types import MAX_NAME_LENGTH, NAME_PATTERN

from .dataset_rules import DATA_RULES
from .rule import Fixed, Object, Rule

# A run is what its checkpoints belong to: the data and the model that they continue, the place where they lie, the
# metric that chose BEST, and the ranks and devices that exact resume needs. The image is the code that computes it.
# Resources, placement, retries, deadlines and how often to save only say how the run is carried out: they may change.
FIXED: tuple[Fixed, ...] = (
    Fixed("training", "the checkpoints of this run belong to it"),
    Fixed("storage", "the checkpoints of this run are there"),
    Fixed("checkpoint.metric", "it chose the best checkpoint so far"),
    Fixed("cluster.image", "the run is what this code computes", always=False),
    Fixed("cluster.workers.count", "a checkpoint is resumed by as many workers as wrote it"),
    Fixed("cluster.workers.gpus", "a run stays on the kind of device that it began on"),
    Fixed("run.resumeFrom", "the run began there", always=False),
)


_NAME = Rule(
    id="name",
    scope="",
    field="metadata.name",
    reads=("metadata.name",),
    cel=f"self.metadata.name.size() <= {MAX_NAME_LENGTH} && self.metadata.name.matches('{NAME_PATTERN}')",
    check=lambda job: (
        len(job["metadata"]["name"]) <= MAX_NAME_LENGTH
        and re.fullmatch(NAME_PATTERN, job["metadata"]["name"]) is not None
    ),
    message=(
        "must begin with a letter, have only lower-case letters, digits and '-', end with a letter or "
        f"digit, and be at most {MAX_NAME_LENGTH} characters long, because the names of the job's pods begin with it"
    ),
)


def _micro_batches(spec: Object) -> int:
    return int(spec["cluster"]["workers"]["count"]) * int(spec["training"]["loop"]["gradientAccumulation"])


def _batch_sentence(spec: Object) -> str:
    size, parts = spec["training"]["data"]["batchSize"], _micro_batches(spec)
    return (
        f"is not a multiple of {spec['cluster']['workers']['count']} workers x "
        f"{spec['training']['loop']['gradientAccumulation']} gradientAccumulation; next is "
        f"{(size // parts + 1) * parts}"
    )


_PARTS_CEL = "(self.cluster.workers.count * self.training.loop.gradientAccumulation)"

_SPEC = (
    Rule(
        id="batch-multiple",
        scope="spec",
        field="training.data.batchSize",
        reads=("training.data.batchSize", "training.loop.gradientAccumulation", "cluster.workers.count"),
        cel=f"self.training.data.batchSize % {_PARTS_CEL} == 0",
        check=lambda spec: spec["training"]["data"]["batchSize"] % _micro_batches(spec) == 0,
        message="must be a multiple of workers x gradientAccumulation",
        expression=(
            "'is not a multiple of %d workers x %d gradientAccumulation; next is %d'.format(["
            "self.cluster.workers.count, self.training.loop.gradientAccumulation, "
            f"(self.training.data.batchSize / {_PARTS_CEL} + 1) * {_PARTS_CEL}])"
        ),
        sentence=_batch_sentence,
    ),
    *(
        Rule(
            id=f"storage-{field}",
            scope="spec.storage",
            field=field,
            reads=("uri", field),
            cel=f"!has(self.{field}) || !has(self.uri) || self.uri.startsWith('s3://')",
            check=lambda storage, field=field: (  # type: ignore[misc]
                field not in storage or storage.get("uri", "s3://").startswith("s3://")
            ),
            message="is for S3 only, and storage.uri is a path: leave it out, or give the uri as s3://bucket/prefix",
        )
        for field in ("endpoint", "credentialsSecret")
    ),
)

RULES: tuple[Rule, ...] = (_NAME, *DATA_RULES, *_SPEC)
