"""`trainmaster dashboard`: the way to a running job's Ray dashboard, which asks for the attempt's token."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from typing import Any

from trainmaster_api import PLURAL, names

from .errors import UserError


def attempt_token(name: str, namespace: str | None) -> str:
    """Token of a job's current attempt, with the rights that the user has by kubectl.

    Raises:
        UserError: No kubectl, no such job, no right to read its Secret, or no attempt yet.
    """
    job = _get(PLURAL, name, namespace)
    attempt = (job.get("status") or {}).get("attempt", 0)
    if not attempt:
        raise UserError(f"TrainingJob {name} has no attempt yet, so no Ray cluster: see `kubectl get tj {name}`")
    secret = _get("secret", names.run_secret(name), namespace)
    key = base64.b64decode(secret["data"][names.KEY_RAY]).decode()
    return names.ray_token(key, attempt)


def forward_command(name: str, namespace: str | None) -> list[str]:
    """The port-forward to the head of whatever attempt lives."""
    where = ["--namespace", namespace] if namespace else []
    return ["kubectl", *where, "port-forward", f"service/{names.head_service(name)}", str(names.PORT_DASHBOARD)]


def _get(kind: str, name: str, namespace: str | None) -> dict[str, Any]:
    if shutil.which("kubectl") is None:
        raise UserError("kubectl is not on PATH; it knows your cluster and your rights")
    where = ["--namespace", namespace] if namespace else []
    done = subprocess.run(
        ["kubectl", *where, "get", kind, name, "--output", "json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"kubectl get {kind} {name}: {done.stderr.strip() or 'failed'}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
