"""The admission webhook as a pure function: AdmissionReview in, AdmissionReview out."""

from __future__ import annotations

from typing import Any

from trainmaster_api import KIND
from trainmaster_api.spec.job import Spec

from .constraints import TRANSITIONS, has_not_begun
from .fields import fill_defaults
from .problem import Problem, format_problems
from .validate import validate


def admit(request: dict[str, Any]) -> dict[str, Any]:
    """Answer an AdmissionReview (admission.k8s.io/v1) for a TrainingJob.

    Creation is checked whole. An update must leave the fields that fix the run's identity, and must bring no problem
    that the old spec didn't have: a job that an older version accepted can still be suspended.

    Args:
        request: the review as the API server sends it.

    Returns:
        The review to answer with. Never raises: what isn't a review is denied with a message.
    """
    asked = request.get("request") if isinstance(request, dict) else None
    if not isinstance(asked, dict):
        return _review("", [Problem("request", "is required: this is not an AdmissionReview")])
    uid = str(asked.get("uid", ""))
    if asked.get("operation") not in ("CREATE", "UPDATE") or asked.get("subResource"):
        return _review(uid, [])
    new, old = asked.get("object"), asked.get("oldObject")
    if asked["operation"] == "CREATE":
        return _review(uid, validate(new)[1])
    return _review(uid, update_problems(new, old))


def update_problems(new: Any, old: Any) -> list[Problem]:
    """Return what forbids the change from `old` to `new`, two TrainingJobs as plain data."""
    new_spec, old_spec = _filled(new), _filled(old)
    if isinstance(new_spec, dict) and new_spec == old_spec:
        return []
    changed = []
    if isinstance(new_spec, dict) and isinstance(old_spec, dict) and not has_not_begun(old):
        broken = [rule for rule in TRANSITIONS if not rule.holds(new_spec, old_spec)]
        changed = [Problem(f"spec.{rule.field}", rule.message) for rule in broken]
    known = validate(old)[1]
    return changed + [problem for problem in validate(new)[1] if problem not in known]


def _filled(job: Any) -> Any:
    return fill_defaults(job.get("spec") if isinstance(job, dict) else None, Spec)


def _review(uid: str, problems: list[Problem]) -> dict[str, Any]:
    response: dict[str, Any] = {"uid": uid, "allowed": not problems}
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        message = f"the {KIND} has {count}:\n{format_problems(problems)}"
        response["status"] = {"code": 422, "reason": "Invalid", "message": message}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
