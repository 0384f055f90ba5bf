"""Names, labels, ports, mount paths and environment variables that operator and trainer agree on."""

from __future__ import annotations

import hashlib
import hmac

from . import GROUP

LABEL_JOB = f"{GROUP}/job"
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_ROLE = f"{GROUP}/role"
LABEL_INDEX = f"{GROUP}/index"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "trainmaster"
ROLE_HEAD = "head"
ROLE_WORKER = "worker"

# One headless Service per namespace gives every head pod a host name. It belongs to no job and outlives them all.
HEADS_SERVICE = "trainmaster-heads"

CONTAINER = "trainer"
PROGRESS_AUDIENCE = f"{GROUP}/progress"
PROGRESS_PATH = "/v1/progress"
# Of the response to a progress message: what the kubelets report that the attempt's pods run, separated by commas.
IMAGES_HEADER = "X-Trainmaster-Images"

# What the trainer finds as files under RUN_DIR. All but the job are keys of the Secret `<job>-run`, written once.
KEY_RAY = "ray-key"
KEY_OWNER = "owner-uid"  # UID of the TrainingJob that the Secret was made for
KEY_JOB = "job.json"  # the resolved TrainingJob: metadata {name, namespace, uid} and spec with every default filled in
# The job comes from this annotation of the pod, so every attempt has the spec as it is when its pods are made: a user
# who raises memory or checkpoint.every after a failure is heard.
ANNOTATION_JOB = f"{GROUP}/resolved-job"
# `loop.duration` of the spec that the pod was made from: the operator compares it without parsing the whole job.
ANNOTATION_DURATION = f"{GROUP}/duration"
# `budget.maxTrials` of its search, likewise; absent without one.
ANNOTATION_TRIALS = f"{GROUP}/max-trials"
# `budget.maxHours` of its search, likewise; absent without a limit.
ANNOTATION_HOURS = f"{GROUP}/max-hours"
# What git says about the code that `trainmaster submit` packed: no part of the code, and so not of the spec.
ANNOTATION_GIT = f"{GROUP}/git"
KEY_GIT = "git-state"  # that annotation as a key of the Secret
MOST_GIT_STATE = 128 * 1024  # characters; all annotations of an object together may have 256 KiB
KEY_PROGRESS_URL = "progress-url"
KEY_PROGRESS_CA = "progress-ca.crt"
KEY_CODE = "code.tar.gz"  # archive of `spec.training.code.inline`; the job above has its checksum alone

RUN_DIR = "/var/run/trainmaster/job"
TOKEN_DIR = "/var/run/trainmaster/token"  # projected service-account token, file `token`
SCRATCH_DIR = "/scratch"  # emptyDir: HOME, TMPDIR and Ray's temp dir, because the root file system is read-only
TERMINATION_MESSAGE_PATH = "/dev/termination-log"

# What a Secret of storage.credentialsSecret must have.
CREDENTIAL_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

# Environment of head and worker containers. AWS_* come from storage.credentialsSecret by envFrom.
ENV_ROLE = "TRAINMASTER_ROLE"
ENV_ATTEMPT = "TRAINMASTER_ATTEMPT"
ENV_INDEX = "TRAINMASTER_INDEX"
ENV_JOB_UID = "TRAINMASTER_JOB_UID"
ENV_POD_IP = "POD_IP"
ENV_POD_NAME = "POD_NAME"
ENV_HEAD_ADDRESS = "TRAINMASTER_HEAD_ADDRESS"
# Of ranks, set by their launcher and by `trainmaster run`: folder with the packages of `code.requirements`.
ENV_PACKAGES = "TRAINMASTER_PACKAGES"

# Fixed, so that a NetworkPolicy can name them.
PORT_GCS = 6379
PORT_DASHBOARD = 8265
PORT_NODE_MANAGER = 6380
PORT_OBJECT_MANAGER = 6381
PORT_RUNTIME_ENV_AGENT = 6382
PORT_AGENT_GRPC = 6383
PORT_CONTROL = 6384  # the driver's: reports of rank 0, stop, leave
PORT_CLIENT = 10001  # Ray starts a server for remote clients on every head; it is not used
PORT_RENDEZVOUS_MIN, PORT_RENDEZVOUS_MAX = 29400, 29415  # rank 0's, a different one for each group of ranks in a row
PORT_AGENT_HTTP = 52365
PORT_METRICS = 8080
PORT_WORKER_MIN = 10002
PORT_WORKER_MAX = 10999


def head_pod(job: str, attempt: int) -> str:
    """Name of the head pod of an attempt."""
    return f"{job}-{attempt}-head"


def worker_pod(job: str, attempt: int, index: int) -> str:
    """Name of worker `index` of an attempt."""
    return f"{job}-{attempt}-w-{index}"


def run_secret(job: str) -> str:
    """Return the name of the Secret with the Ray key and the progress URL."""
    return f"{job}-run"


def attempt_head_address(job: str, attempt: int, namespace: str) -> str:
    """Return the host name of the head of one attempt, as its workers resolve it.

    Every attempt has a name of its own, because resolvers remember the address of the head before for up to 30 s.
    """
    return f"{head_pod(job, attempt)}.{HEADS_SERVICE}.{namespace}.svc"


def heads_labels() -> dict[str, str]:
    """Return the labels of the Service that all heads of a namespace share; it has no job's label."""
    return {
        "app.kubernetes.io/name": HEADS_SERVICE,
        "app.kubernetes.io/part-of": "trainmaster",
        LABEL_MANAGED_BY: MANAGED_BY,
    }


def labels(job: str, attempt: int | None = None, role: str | None = None, index: int | None = None) -> dict[str, str]:
    """Return the labels of a dependent; attempt, role and index only if given."""
    found = {
        "app.kubernetes.io/name": "trainingjob",
        "app.kubernetes.io/instance": job,
        "app.kubernetes.io/part-of": "trainmaster",
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_JOB: job,
    }
    if attempt is not None:
        found[LABEL_ATTEMPT] = str(attempt)
    if role is not None:
        found[LABEL_ROLE] = found["app.kubernetes.io/component"] = role
    if index is not None:
        found[LABEL_INDEX] = str(index)
    return found


def ray_token(key: str, attempt: int) -> str:
    """Return the token of an attempt's Ray cluster: 64 hex characters.

    It depends on the attempt, so a zombie worker of an older attempt can't join the new head.
    """
    return hmac.new(key.encode(), f"attempt-{attempt}".encode(), hashlib.sha256).hexdigest()
