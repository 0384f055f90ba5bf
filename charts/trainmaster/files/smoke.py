"""`helm test`: a TrainingJob of a few seconds, from its creation to Complete. Runs in the operator's image.

Exits with 0, or with a message that names the condition at which the job stopped.
"""

import asyncio
import json
import os
import sys
import time

from trainmaster_operator.kube.client import TRAINING_JOBS, Client
from trainmaster_operator.kube.connection import Connection
from trainmaster_operator.kube.errors import ApiError
from trainmaster_operator.runtime.kopf_adapter import login

NAMESPACE = os.environ["SMOKE_NAMESPACE"]
# a failed test leaves its job to be looked at, so each run has a name of its own
NAME = f"smoke-{os.environ['POD_UID'][:8]}"
SECONDS = float(os.environ["SMOKE_SECONDS"])
JOB = {
    "apiVersion": TRAINING_JOBS.api_version,
    "kind": TRAINING_JOBS.kind,
    "metadata": {"name": NAME, "namespace": NAMESPACE},
    "spec": {
        "training": {
            "task": {"name": "classification", "numClasses": 3},
            "data": {"source": "sklearn:iris", "batchSize": 16},
            "model": {"name": "mlp", "args": {"hidden": [16]}},
            "loop": {"duration": "5ep"},
        },
        "run": {"retries": {"max": 0}},
    },
}


async def main() -> str | None:
    """Create the job and follow it; None when it is Complete, else what is wrong."""
    async with Connection(login, user_agent="trainmaster-helm-test") as connection:
        client = Client(connection)
        created = await client.create(TRAINING_JOBS, NAMESPACE, JOB)
        print(f"created TrainingJob {NAMESPACE}/{NAME}", flush=True)
        problem = await follow(client)
        if problem is None:
            await client.delete(TRAINING_JOBS, NAMESPACE, NAME, uid=created["metadata"]["uid"])
        return problem


async def follow(client: Client) -> str | None:
    """Print each change of phase; None when the job is Complete, else why it isn't."""
    deadline, said = time.monotonic() + SECONDS, ""
    while True:
        status = (await client.get(TRAINING_JOBS, NAMESPACE, NAME)).get("status") or {}
        now = f"{status.get('phase', 'no status yet')} {status.get('reason', '')}".strip()
        if now != said:
            print(now, flush=True)
            said = now
        held = {each["type"]: each for each in status.get("conditions", []) if each["status"] == "True"}
        if "Complete" in held:
            print(json.dumps(status.get("testMetrics", {})), flush=True)
            return None
        if "Failed" in held:
            return f"{held['Failed']['reason']}: {held['Failed']['message']}"
        refused = [c for c in status.get("conditions", []) if c["type"] == "Accepted" and c["status"] == "False"]
        if refused:
            return f"{refused[0]['reason']}: {refused[0]['message']}"
        if time.monotonic() > deadline:
            sentences = [f"{c['type']}={c['status']} {c.get('message', '')}" for c in status.get("conditions", [])]
            hint = "is the operator running?" if not status else "; ".join(sentences)
            return f"not Complete after {SECONDS:.0f} s: {now}. {hint}"
        await asyncio.sleep(1)


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except ApiError as error:
        sys.exit(f"the Kubernetes API rejected the request: {error}")
