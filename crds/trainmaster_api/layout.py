"""The storage layout of a run, the same on S3 and on a laptop's disk.

    <uri>/<namespace>/<name>/<uid>/
      spec.json  environment.json  code.diff  code/<sha256>.tar.gz  code/<sha256>.json
      checkpoints/a2-step-0001200/  LATEST  BEST  metrics.jsonl  events.jsonl  logs/a2/<pod>.log
      data/fingerprint.json  model/  export/  report/
      tuning/result.json  tuning/study.log  tuning/journal-<attempt>-<n>.jsonl  trials/<number>/

A checkpoint exists when its manifest does. LATEST and BEST hold (attempt, step) and never go back.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from .address import parse
from .types import Model

SPEC = "spec.json"
CHECKPOINTS = "checkpoints"
MANIFEST = "manifest.json"
LATEST = "LATEST"
BEST = "BEST"
METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
LOGS = "logs"
FINGERPRINT = "data/fingerprint.json"  # of the data, written once, before the first step
CODE = "code"
ENVIRONMENT = "environment.json"  # what the run was made with: code, commit, packages, hardware
CODE_DIFF = "code.diff"  # how the code differed from its commit, where it did
MODEL = "model"
OBJECTS = "objects"  # contents by their checksum
EXPORT = "export"
REPORT = "report"
TEST_METRICS = f"{REPORT}/test-metrics.json"
SEARCH = "tuning"
SEARCH_RESULT = f"{SEARCH}/result.json"  # what a search has found: budget, why it is over, best, front, trials
SEARCH_JOURNAL = f"{SEARCH}/study.log"  # the whole journal, for Optuna's own file backend and for optuna-dashboard
FENCE = "FENCE"  # holds the newest attempt; a writer of an older one stops when it reads it

_CHECKPOINT = re.compile(r"^a([1-9][0-9]*)-step-([0-9]{7,})$")


def run_path(namespace: str, name: str, uid: str) -> str:
    """Return the directory of a run under the storage URI."""
    return f"{namespace}/{name}/{uid}"


def run_uri(uri: str, namespace: str, name: str, uid: str) -> str:
    """Return the address of a run. Raises AddressError for a storage address that is none."""
    return str(parse(uri).under(run_path(namespace, name, uid)))


def checkpoint_name(attempt: int, step: int) -> str:
    """Return the directory name of a checkpoint; names sort correctly only up to 10^7 steps, so compare them parsed."""
    return f"a{attempt}-step-{step:07d}"


def code_path(sha256: str) -> str:
    """Return the path of an archive of code, in a run's directory or beside the runs of a namespace."""
    return f"{CODE}/{sha256}.tar.gz"


def code_listing_path(sha256: str) -> str:
    """Return the path of the listing of an archive: path -> checksum, so that a change can name the files."""
    return f"{CODE}/{sha256}.json"


def parse_checkpoint_name(name: str) -> tuple[int, int] | None:
    """Return (attempt, step) of a checkpoint's directory name, or None for any other name."""
    match = _CHECKPOINT.match(name)
    return (int(match[1]), int(match[2])) if match else None


def log_path(attempt: int, pod: str) -> str:
    """Return the path of a pod's log in the run: a head's is its driver's, a worker's is what its rank printed."""
    return f"{LOGS}/a{attempt}/{pod}.log"


class File(Model):
    """One file of a checkpoint."""

    path: str
    """Relative to the checkpoint's directory."""
    size: Annotated[int, Field(ge=0)]
    """Bytes."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Checksum of the content."""
    modified: float | None = None
    """Time of the last change, seconds since the epoch, of a file that a program of the user's own wrote."""
    link: str = ""
    """What a symbolic link points to; it has no content."""


class Manifest(Model):
    """Written last: its presence makes the checkpoint exist."""

    version: int = 1
    """Version of this format."""
    attempt: int
    """Attempt that wrote it."""
    step: int
    """Optimizer steps done."""
    world_size: int
    """Workers that wrote it; exact resume needs the same number."""
    time: str
    """When it was written, RFC 3339."""
    metrics: dict[str, float] = {}
    """Validation metrics at that step."""
    files: list[File]
    """Everything in the directory but the manifest."""
    objects: bool = False
    """Whether the contents are in `objects/<sha256>` of the run, as for the files of a program of the user's own,
    of which most stay the same from one checkpoint to the next; their paths begin with `node-<n>/`."""


class Pointer(Model):
    """Content of LATEST and BEST."""

    attempt: int
    """Attempt of the checkpoint."""
    step: int
    """Step of the checkpoint."""

    @property
    def name(self) -> str:
        """Directory name of the checkpoint that it points at."""
        return checkpoint_name(self.attempt, self.step)


class Lines(Model):
    """The lines of a text file, so that a changed file can say which of them differ."""

    count: Annotated[int, Field(ge=0)]
    """Number of lines, the header included."""
    per_block: Annotated[int, Field(ge=1)]
    """Number of lines of a block; the last block may have fewer."""
    blocks: list[str]
    """Checksum of each block, the first 12 hex digits of SHA-256."""


class DataFile(Model):
    """One file of a run's data."""

    path: str
    """Relative to the source's directory."""
    size: Annotated[int, Field(ge=0)]
    """Bytes."""
    version: str
    """ETag of an object on S3; time of the last change of a file on disk."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Checksum of the content; None: the file was too large, or there were too many."""
    lines: Lines | None = None
    """Its lines, of a text file with a checksum."""
    rows: int | None = None
    """Number of rows, of a Parquet file with a checksum."""


class Fingerprint(Model):
    """What identifies a run's data: an attempt that finds another one trains nothing."""

    version: int = 1
    """Version of this format."""
    source: str
    """`data.source` or `data.class`; all sources where splits have their own."""
    digest: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    """SHA-256 over everything below; empty: the data has nothing to be identified by."""
    value: str = ""
    """Of data without files of its own: the library's version and the name of its set, or the attribute `fingerprint`
    of the user's class."""
    count: int = 0
    """Number of files."""
    size: int = 0
    """Bytes of all files."""
    files: list[DataFile] = []
    """The files by path; empty where there are too many to list."""
    sources: dict[str, Fingerprint] = {}
    """Where splits have sources of their own: the fingerprint of each by its field, `source`, `validationSource` and
    `testSource`. The digest is over theirs, and the files are there."""

    @property
    def short(self) -> str:
        """The digest as it is shown."""
        return self.digest[:12]
