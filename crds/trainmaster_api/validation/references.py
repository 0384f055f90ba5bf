"""References to code in a job, checked where the code is: on a laptop, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainmaster_api.spec.data import DATA_CALL
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.own import RECIPE_CALL
from trainmaster_api.spec.part import Call, Part

from .problem import Problem, shown

IMPORT_SECONDS = 300.0  # torch from a cold disk takes a minute; a module that waits for a network may never end


def check_references(job: TrainingJob, folder: Path, *, seconds: float = IMPORT_SECONDS) -> list[Problem]:
    """Import what the job refers to and compare its arguments with the signatures.

    Args:
        job: A valid job.
        folder: The job's folder: references are resolved there or among the installed packages.
        seconds: How long importing may take.

    Returns:
        Every problem. Without a reference no process is started.
    """
    parts = list(_parts(job))
    if not parts:
        return []
    request = json.dumps({"folder": str(folder.absolute()), "parts": parts})
    command = [sys.executable, "-P", "-m", "trainmaster_api.references"]
    values = {part["where"]: part["class"] or part["name"] for part in parts}
    first = next(iter(values))
    try:
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        words = f"importing it took longer than {seconds:g} s"
        return [Problem(first, words, shown(values[first]), hint="a module must not block while it is imported")]
    try:
        found = json.loads(done.stdout) if done.returncode == 0 else None
    except ValueError:
        found = None
    if found is None:
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        words = f"importing it ended the process (exit code {done.returncode}): {last}"
        return [Problem(first, words, shown(values[first]))]
    return [Problem(each["path"], each["message"], _value(values, parts, each["path"])) for each in found]


def _parts(job: TrainingJob) -> Iterator[dict[str, Any]]:
    training = job.spec.training
    data, task = training.data_or_none, training.task_or_none
    if data is not None and data.reference is not None:
        yield _asked("spec.training.data", data.reference, None, "", data.args, DATA_CALL, {})
    for key, part in (
        ("model", training.model_or_none),
        ("optimizer", training.optimizer),
        ("schedule", training.schedule),
        ("task.loss", task.loss if task else None),
        *((f"task.metrics[{index}]", metric) for index, metric in enumerate(task.metrics if task else ())),
        *((f"data.images.augment[{index}]", part) for index, part in enumerate(data.images.augment if data else ())),
    ):
        if isinstance(part, Part) and part.FAMILY.get(part.name) is None:
            call = part.FAMILY.call
            wire = part.wire()
            given = {argument: field for argument, field in call.fields.items() if field in wire}
            yield _asked(f"spec.training.{key}", part.reference, part.name, part.FAMILY.group, part.args, call, given)
    if (recipe := training.recipe) is not None:
        yield _asked("spec.training.recipe", recipe.function, None, "", recipe.args, RECIPE_CALL, {}, field="function")
    if (lightning := training.lightning) is not None:
        for key, own in (("module", lightning.module), ("datamodule", lightning.datamodule)):
            if own is not None:
                yield _asked(f"spec.training.lightning.{key}", own.reference, None, "", own.args, Call(), {})


def _asked(
    path: str,
    reference: str | None,
    name: str | None,
    group: str,
    args: Any,
    call: Call,
    fields: dict[str, str],
    *,
    field: str = "",
) -> dict[str, Any]:
    how = {
        "positional": call.positional,
        "functionPositional": call.function_positional,
        "offered": list(call.offered),
        "fields": fields,
    }
    where = f"{path}.{field or ('class' if reference else 'name')}"
    return {"path": path, "where": where, "class": reference, "name": name, "group": group, "args": args, "call": how}


def _value(values: dict[str, str], parts: list[dict[str, Any]], path: str) -> str:
    """Return what is at a path: a reference, or the value of an argument."""
    if path in values:
        return shown(values[path])
    for part in parts:
        head = f"{part['path']}.args."
        if path.startswith(head) and path.removeprefix(head) in part["args"]:
            return shown(part["args"][path.removeprefix(head)])
    return ""
