"""Rules for trainings that a program of the user's own defines: which other fields go with it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

from trainmaster_api.archive import checksum
from trainmaster_api.parameters import NAME, flat, variable
from trainmaster_api.spec.job import Spec
from trainmaster_api.spec.training import Training

from .check import Check, registering
from .problem import Problem

OWN_CHECKS: list[Check] = []
_check = registering(OWN_CHECKS, optional=True)
_TRAINING = "spec.training"
_PARTS = ("task", "data")
_LOOP = ("optimizer", "schedule", "loop", "distributed")
# A field that has its default may have been filled in by the API server, so only other values are rejected.
_NOT_WITH = {
    "recipe": _PARTS,
    "script": (*_PARTS, *_LOOP),
    "lightning": (*_PARTS, *_LOOP),
    "transformers": _LOOP,
}
_SAID_BY = {
    "recipe": "the recipe returns it",
    "script": "the program says it itself",
    "lightning": "the module and `lightning.trainer` say it",
    "transformers": "`transformers.arguments` say it",
}


@_check(*(f"{_TRAINING}.{field}" for field in (*Training.EXACTLY_ONE, *_PARTS)))
def _required_parts(spec: Spec) -> Iterator[Problem]:
    """`task` and `data` are required with `model` and with `transformers`."""
    training = spec.training
    if training.model_or_none is None and training.transformers is None:
        return
    for field, value in (("task", training.task_or_none), ("data", training.data_or_none)):
        if value is None:
            yield Problem(f"{_TRAINING}.{field}", "is required")


@_check(*(f"{_TRAINING}.{field}" for field in (*Training.EXACTLY_ONE, *_LOOP)))
def _not_with(spec: Spec) -> Iterator[Problem]:
    """Fields that the user's own program says itself are not accepted beside it."""
    training = spec.training
    keys = {info.alias or name: name for name, info in Training.model_fields.items()}
    for own, fields in _NOT_WITH.items():
        if getattr(training, own) is None:
            continue
        for field in fields:
            if getattr(training, keys[field]) != Training.model_fields[keys[field]].default:
                yield Problem(f"{_TRAINING}.{field}", f"doesn't go with `{own}`: {_SAID_BY[own]}; remove it")


@_check(
    f"{_TRAINING}.transformers",
    *(f"{_TRAINING}.{path}" for path in ("task.name", "task.loss", "data.columns", "data.sampling")),
)
def _texts(spec: Spec) -> Iterator[Problem]:
    """`transformers` needs a classification of texts, in the Trainer's order and with the model's own loss."""
    training = spec.training
    task, data = training.task_or_none, training.data_or_none
    if training.transformers is None or task is None or data is None:
        return
    if task.name != "classification":
        yield Problem(f"{_TRAINING}.task.name", "must be classification with `transformers`")
    if task.loss is not None:
        yield Problem(f"{_TRAINING}.task.loss", "doesn't go with `transformers`: the model has its own; remove it")
    if not data.text_columns:
        words = "needs a column with the role text: a model of `transformers` reads texts"
        yield Problem(f"{_TRAINING}.data.columns", words)
    if data.sampling != "uniform":
        yield Problem(f"{_TRAINING}.data.sampling", "must be uniform with `transformers`: its Trainer draws the order")


@_check(f"{_TRAINING}.framework", *(f"{_TRAINING}.{field}" for field in Training.EXACTLY_ONE))
def _framework(spec: Spec) -> Iterator[Problem]:
    """`framework` must be that of the section that is given."""
    training = spec.training
    if training.framework not in ("torch", training.backend):
        words = f"needs the section `{training.framework}` in place of {_given(training)}"
        yield Problem(f"{_TRAINING}.framework", words)


@_check(f"{_TRAINING}.script.parameters", f"{_TRAINING}.script.parametersAs")
def _script_parameters(spec: Spec) -> Iterator[Problem]:
    """Names of `script.parameters` must be words, and differ as environment variables where they become such."""
    script = spec.training.script
    if script is None:
        return
    path, seen = f"{_TRAINING}.script.parameters", dict[str, str]()
    for name in flat(script.parameters):
        if not all(NAME.fullmatch(each) for each in name.split(".")):
            yield Problem(f"{path}.{name}", "must be of letters, digits and underscores, and begin with a letter")
        elif script.parameters_as == "env" and (other := seen.setdefault(variable(name), name)) != name:
            words = f"becomes {variable(name)}, as {other} does; rename one of them, or set parametersAs to args"
            yield Problem(f"{path}.{name}", words)


@_check(f"{_TRAINING}.code.inline.data", f"{_TRAINING}.code.inline.sha256")
def _inline_code(spec: Spec) -> Iterator[Problem]:
    """`code.inline.data` must be the base64 of an archive with the SHA-256 of `code.inline.sha256`."""
    inline = spec.training.code.inline if spec.training.code is not None else None
    if inline is None:
        return
    path = f"{_TRAINING}.code.inline"
    try:
        data = base64.b64decode(inline.data, validate=True)
    except binascii.Error as error:
        yield Problem(f"{path}.data", f"is not base64 ({error}): write it with `trainmaster submit`")
        return
    if checksum(data) != inline.sha256:
        words = f"is not that of `data`, which has {checksum(data)}: write both with `trainmaster submit`"
        yield Problem(f"{path}.sha256", words)


@_check(f"{_TRAINING}.code.requirements", f"{_TRAINING}.code.wheels")
def _wheels(spec: Spec) -> Iterator[Problem]:
    """`code.wheels` needs `code.requirements`."""
    code = spec.training.code
    if code is not None and code.wheels is not None and code.requirements is None:
        yield Problem(
            f"{_TRAINING}.code.wheels", "needs `code.requirements`, the lock file that says which are installed"
        )


def _given(training: Training) -> str:
    keys = {info.alias or name: name for name, info in Training.model_fields.items()}
    return next(f"`{field}`" for field in Training.EXACTLY_ONE if getattr(training, keys[field]) is not None)
