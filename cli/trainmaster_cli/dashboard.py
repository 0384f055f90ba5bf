"""`trainmaster dashboard`: the way to a running job's Ray dashboard, which asks for the attempt's token."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from typing import Any

from trainmaster_api import PLURAL, names

from .errors import UserError


def current_attempt(name: str, namespace: str | None, context: str | None = None) -> int:
    """Return the number of a job's current attempt.

    Raises:
        UserError: No kubectl, no such job, or no attempt yet.
    """
    job = _get(PLURAL, name, namespace, context)
    attempt: int = (job.get("status") or {}).get("attempt", 0)
    if not attempt:
        raise UserError(f"TrainingJob {name} has no attempt yet, so no Ray cluster: see `kubectl get tj {name}`")
    return attempt


def attempt_token(name: str, attempt: int, namespace: str | None, context: str | None = None) -> str:
    """Return the token of an attempt's Ray cluster, with the rights that the user has by kubectl.

    Raises:
        UserError: No right to read the job's Secret, or no such Secret.
    """
    secret = _get("secret", names.run_secret(name), namespace, context)
    key = base64.b64decode(secret["data"][names.KEY_RAY]).decode()
    return names.ray_token(key, attempt)


def forward_command(name: str, attempt: int, namespace: str | None, context: str | None = None) -> list[str]:
    """Return the port-forward to the head pod of an attempt."""
    where = _where(namespace, context)
    return ["kubectl", *where, "port-forward", f"pod/{names.head_pod(name, attempt)}", str(names.PORT_DASHBOARD)]


def _get(kind: str, name: str, namespace: str | None, context: str | None) -> dict[str, Any]:
    if shutil.which("kubectl") is None:
        raise UserError("kubectl was not found on PATH; it is needed to reach your cluster")
    where = _where(namespace, context)
    done = subprocess.run(
        ["kubectl", *where, "get", kind, name, "--output", "json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"kubectl get {kind} {name}: {done.stderr.strip() or 'failed'}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _where(namespace: str | None, context: str | None) -> list[str]:
    """Return kubectl's options for a namespace and a context."""
    return [*(["--context", context] if context else []), *(["--namespace", namespace] if namespace else [])]
