"""Reports and results as plain JSON data, for the channel between processes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from trainmaster_api.messages import CheckpointRef, Outcome

from trainmaster_trainer.context import Report, ReportKind, Result


def report_to_wire(report: Report) -> dict[str, Any]:
    """A report as a message of type `report`."""
    checkpoint = report.checkpoint.wire() if report.checkpoint else None
    return {"type": "report", **asdict(report), "checkpoint": checkpoint}


def report_from_wire(data: dict[str, Any]) -> Report:
    """The report behind `report_to_wire`."""
    fields = {key: value for key, value in data.items() if key != "type"}
    fields["kind"] = ReportKind(fields["kind"])
    fields["checkpoint"] = _checkpoint(fields.get("checkpoint"))
    return Report(**fields)


def result_to_wire(result: Result) -> dict[str, Any]:
    """A result as plain data."""
    return {**asdict(result), "checkpoint": result.checkpoint.wire() if result.checkpoint else None}


def result_from_wire(data: dict[str, Any]) -> Result:
    """The result behind `result_to_wire`."""
    fields = {**data, "outcome": Outcome(data["outcome"]), "checkpoint": _checkpoint(data.get("checkpoint"))}
    return Result(**fields)


def _checkpoint(data: dict[str, Any] | None) -> CheckpointRef | None:
    return CheckpointRef.model_validate(data) if data else None
