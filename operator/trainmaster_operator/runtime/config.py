"""Flags and environment of the operator's process."""

from __future__ import annotations

import argparse
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError
from trainmaster_api.address import AddressError
from trainmaster_api.address import parse as parse_address
from trainmaster_api.spec.tracking import Tracker

from trainmaster_operator.policy.settings import Settings

_TRACKERS: TypeAdapter[tuple[Tracker, ...]] = TypeAdapter(tuple[Tracker, ...])
PREFIX = "TRAINMASTER_"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class Config:
    """How this process runs; `docs/operator.md` has a line for each."""

    namespaces: tuple[str, ...]
    own_namespace: str
    pod_name: str
    pod_ip: str
    identity: str
    defaults: Settings
    https_port: int
    http_port: int
    tls_secret: str
    tls_files: tuple[Path, Path, Path] | None
    webhook: str
    lease_name: str
    lease_seconds: float
    concurrency: int
    qps: float
    burst: int
    resync_seconds: float
    log_format: str
    verbose: bool

    @property
    def progress_names(self) -> tuple[str, ...]:
        """Names and addresses that the endpoint's certificate must hold."""
        return (urlsplit(self.defaults.progress_url).hostname or "",)


class _Parser(argparse.ArgumentParser):
    """Flags whose default comes from the environment: `--lease-name` from TRAINMASTER_LEASE_NAME."""

    def add(self, flag: str, text: str, default: str | int | float | None = None, **more: object) -> None:
        name = PREFIX + flag.removeprefix("--").replace("-", "_").upper()
        kind = type(default) if default is not None else str
        value = os.environ.get(name) or (str(default) if default is not None else None)
        self.add_argument(flag, default=value, type=kind, help=f"{text} [{name}]", **more)  # type: ignore[arg-type]

    def flag(self, name: str, text: str) -> None:
        variable = PREFIX + name.removeprefix("--").replace("-", "_").upper()
        given = bool(os.environ.get(variable))
        self.add_argument(name, action="store_true", default=given, help=f"{text} [{variable}]")


def parse(argv: Sequence[str] | None = None) -> Config:
    """Parse flags, then environment, then defaults; exit with a message if one is invalid."""
    parser = _Parser(prog="python -m trainmaster_operator", description="The Trainmaster operator.")
    add = parser.add
    add("--namespaces", "comma-separated namespaces to watch; empty: all", "")
    add("--namespace", "namespace of the operator itself; default: that of its service account, else `default`")
    add("--pod-name", "name of the operator's pod", socket.gethostname())
    add("--pod-ip", "IP of the operator's pod, to which other replicas forward progress messages", "")
    add("--image", "default for spec.cluster.image")
    add("--storage-uri", "default for spec.storage.uri, such as s3://bucket/prefix")
    add("--storage-endpoint", "S3 endpoint of the default storage")
    add("--storage-region", "S3 region of the default storage")
    add("--storage-credentials-secret", "Secret for the default storage, in the namespace of each job")
    add(
        "--default-tracking",
        "defaults for the settings of a job's trackers, as JSON in the form of spec.tracking",
        "[]",
    )
    add("--progress-url", "URL that pods send progress to; default: the operator's Service")
    add("--https-port", "port for progress messages and admission reviews", 8443)
    add("--http-port", "port of /healthz, /readyz and /metrics", 8080)
    add(
        "--tls-secret",
        "Secret in the operator's namespace with the CA, certificate and key; created if it doesn't exist",
        "trainmaster-operator-tls",
    )
    add("--tls-files", "ca,cert,key: files to use instead of the Secret", "")
    add("--webhook", "ValidatingWebhookConfiguration whose caBundle is managed; empty: none", "")
    add("--lease-name", "Lease used for leader election", "trainmaster-operator")
    add("--lease-seconds", "lease duration; failover takes at most this long", 15.0)
    add("--concurrency", "maximum concurrent reconciles", 16)
    add("--qps", "maximum sustained requests per second to the Kubernetes API, of the whole process", 500.0)
    add("--burst", "maximum burst of requests to the Kubernetes API, of the whole process", 1000)
    add("--resync-seconds", "resync period: how often every job is reconciled without an event", 300.0)
    add("--log-format", "json or text", "json", choices=("json", "text"))
    parser.flag("--allow-host-path", "allow hostPath volumes in pod templates")
    parser.flag("--verbose", "log debug messages")
    return _config(parser, parser.parse_args(argv))


def _config(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Config:
    own = args.namespace or _own_namespace()
    files = [Path(part) for part in args.tls_files.split(",") if part]
    if files and len(files) != 3:
        parser.error(f"--tls-files {args.tls_files!r}: three files are required: ca,cert,key")
    url = args.progress_url or f"https://trainmaster-operator.{own}.svc:{args.https_port}/v1/progress"
    if not urlsplit(url).hostname or not url.startswith("https://"):
        parser.error(f"--progress-url {url!r}: an https:// URL is required")
    if args.lease_seconds < 1:
        parser.error(f"--lease-seconds {args.lease_seconds}: must be at least 1")
    if args.storage_uri:
        try:
            parse_address(args.storage_uri)
        except AddressError as error:
            parser.error(f"--storage-uri {args.storage_uri!r} {error}")
    given = {**vars(args), "default_tracking": _tracking(parser, args.default_tracking)}
    defaults = Settings(**{**_fields(Settings, given), "progress_url": url})
    made = {
        "namespaces": tuple(part.strip() for part in args.namespaces.split(",") if part.strip()),
        "own_namespace": own,
        # a restart in the same pod is another candidate: it doesn't know what its predecessor was doing
        "identity": "_".join((args.pod_name, args.pod_ip, uuid.uuid4().hex[:8])),
        "defaults": defaults,
        "tls_files": (files[0], files[1], files[2]) if files else None,
    }
    return Config(**{**_fields(Config, given), **made})


def _tracking(parser: argparse.ArgumentParser, text: str) -> tuple[Tracker, ...]:
    try:
        found = _TRACKERS.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        parser.error(f"--default-tracking {text!r}: {f'{where}: ' if where else ''}{first['msg']}; a list like "
                     "spec.tracking is required")  # fmt: skip
    if any(entry.settings is None for entry in found):
        parser.error(f"--default-tracking {text!r}: a `class` has no defaults; only built-in trackers are accepted")
    return found


def _fields(kind: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that are fields of a dataclass under the same name."""
    return {field.name: given[field.name] for field in fields(kind) if field.name in given}


def _own_namespace() -> str:
    return NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.exists() else "default"
