"""The API server of a cluster with the rights of the user's kubeconfig: plain data in and out, errors as sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from trainmaster_api import GROUP, PLURAL, VERSION

from trainmaster_cli.errors import UserError

Object = dict[str, Any]

FIELD_MANAGER = "trainmaster-cli"
_TIMEOUT = (5.0, 30.0)
_STREAM_TIMEOUT = (5.0, None)  # a log may be silent for hours
_IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
_FORBIDDEN = re.compile(r'cannot (\w+) resource "([^"]+)"')


class NotFound(Exception):  # noqa: N818 - an answer, not an error
    """There is no such object."""


class Exists(Exception):  # noqa: N818 - an answer, not an error
    """There is an object of that name already."""


class NotReady(Exception):  # noqa: N818 - an answer, not an error
    """The log of a container that hasn't started can't be read yet; the message says what it waits for."""


class Expired(Exception):  # noqa: N818 - an answer, not an error
    """The version that a watch should continue from is gone: list again."""


class Api(Protocol):
    """What commands need of an API server; tests have one over recorded objects."""

    namespace: str
    """Of the current context, or what was asked for."""
    server: str
    """Address, for messages."""

    def get(self, path: str, **query: Any) -> Object:
        """Return an object or a list.

        Raises:
            NotFound: There is none.
            UserError: No connection, no rights, or another refusal.
        """
        ...

    def patch(self, path: str, body: Object) -> Object:
        """Merge into an object; raises as `get` does."""
        ...

    def create(self, path: str, body: Object) -> Object:
        """Create an object below a path.

        Raises:
            Exists: There is one of that name.
            UserError: As `get` does, and where the object is invalid.
        """
        ...

    def delete(self, path: str, uid: str) -> None:
        """Delete an object, if it still is the one with this uid; raises as `get` does."""
        ...

    def lines(self, path: str, **query: Any) -> Iterator[bytes]:
        """Return the lines of a log or of a watch, as they come.

        Raises:
            NotFound: There is none.
            NotReady: The container hasn't started.
            UserError: As `get` does.
        """
        ...


def jobs_path(namespace: str | None) -> str:
    """Return the path of a namespace's TrainingJobs; None: of all."""
    where = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{GROUP}/{VERSION}{where}/{PLURAL}"


def core_path(namespace: str, kind: str, *rest: str) -> str:
    """Return a path of the core API, such as that of a pod's log."""
    return "/".join((f"/api/v1/namespaces/{namespace}/{kind}", *rest))


class Cluster:
    """The API server of a kubeconfig's context."""

    def __init__(self, client: Any, namespace: str, server: str) -> None:
        """Take an API client of the package `kubernetes`."""
        self.client = client
        self.namespace = namespace
        self.server = server

    def get(self, path: str, **query: Any) -> Object:
        """Return an object or a list; see `Api`."""
        found: Object = json.loads(self._call("GET", path, query).data)
        return found

    def patch(self, path: str, body: Object) -> Object:
        """Merge into an object; see `Api`."""
        query = {"fieldManager": FIELD_MANAGER}
        found: Object = json.loads(self._call("PATCH", path, query, body).data)
        return found

    def create(self, path: str, body: Object) -> Object:
        """Create an object; see `Api`."""
        found: Object = json.loads(self._call("POST", path, {"fieldManager": FIELD_MANAGER}, body).data)
        return found

    def delete(self, path: str, uid: str) -> None:
        """Delete an object; see `Api`."""
        self._call("DELETE", path, {}, {"propagationPolicy": "Background", "preconditions": {"uid": uid}})

    def lines(self, path: str, **query: Any) -> Iterator[bytes]:
        """Return the lines of a log or of a watch, as they come; see `Api`."""
        from urllib3.exceptions import HTTPError

        answer = self._call("GET", path, query, timeout=_STREAM_TIMEOUT)
        rest = b""
        try:
            for piece in answer.stream(2**16, decode_content=True):
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
        except HTTPError:  # the connection ended: the pod's node may be gone
            pass
        finally:
            answer.release_conn()
            answer.close()
        if rest:
            yield rest

    def _call(
        self, method: str, path: str, query: Mapping[str, Any], body: Object | None = None, timeout: Any = _TIMEOUT
    ) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "*/*" if body is None and path.endswith("/log") else "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            return self.client.call_api(
                path,
                method,
                query_params=[(name, _text(value)) for name, value in query.items() if value not in (None, False)],
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=timeout,
            )
        except ApiException as error:
            raise refused(error.status or 0, str(error.body or error.reason or ""), method, path) from None
        except HTTPError as error:
            raise UserError(
                f"the API server at {self.server} can't be reached: {_cause(error)}; check your kubeconfig and your "
                "network"
            ) from None


def connect(context: str | None, namespace: str | None) -> Cluster:
    """Return the cluster of a kubeconfig's context.

    Args:
        context: Its name; None: the current one.
        namespace: What to look at; None: the namespace of the context.

    Raises:
        UserError: There is no usable kubeconfig, or no such context.
    """
    import kubernetes.client
    import kubernetes.config
    from kubernetes.config.config_exception import ConfigException

    configuration = kubernetes.client.Configuration()
    try:
        contexts, current = kubernetes.config.list_kube_config_contexts()
    except ConfigException as error:
        if context is None and _IN_CLUSTER_NAMESPACE.exists():
            kubernetes.config.load_incluster_config(client_configuration=configuration)
            return _cluster(configuration, namespace or _IN_CLUSTER_NAMESPACE.read_text().strip())
        raise UserError(
            f"no kubeconfig: {_one_line(error)}; set KUBECONFIG to one; `trainmaster run` trains on this machine"
        ) from None
    names = [str(each["name"]) for each in contexts]
    if context is not None and context not in names:
        raise UserError(f"the kubeconfig has no context {context}; it has {', '.join(names)}")
    chosen = next(each for each in contexts if each["name"] == context) if context else current
    try:
        kubernetes.config.load_kube_config(context=chosen["name"], client_configuration=configuration)
    except (ConfigException, OSError) as error:
        raise UserError(f"the context {chosen['name']} of the kubeconfig can't be used: {_one_line(error)}") from None
    return _cluster(configuration, namespace or chosen["context"].get("namespace") or "default")


def _cluster(configuration: Any, namespace: str) -> Cluster:
    import kubernetes.client

    configuration.retries = False  # a server that is away is said at once
    return Cluster(kubernetes.client.ApiClient(configuration), namespace, str(configuration.host))


def refused(status: int, body: str, method: str, path: str) -> Exception:
    """Return what an answer of the API server means: an exception with a sentence."""
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = body.strip()
    jobs, namespace = path.startswith(jobs_path(None).rpartition("/")[0]), _namespace_of(path)
    if status == HTTPStatus.GONE:
        return Expired(message)
    if status == HTTPStatus.UNAUTHORIZED:
        return UserError("the API server refuses your credentials; log in again, or correct your kubeconfig")
    if status == HTTPStatus.FORBIDDEN:
        found = _FORBIDDEN.search(message)
        verb, what = (found[1], found[2]) if found else (_VERBS.get(method, method.lower()), path)
        where = f" in namespace {namespace}" if namespace else " in all namespaces"
        role = "the role `edit` has it" if verb in ("patch", "create", "delete") else "the role `view` has it"
        return UserError(f"you have no right to {verb} {what}{where}; {role if jobs else 'ask for it'}: {message}")
    if status == HTTPStatus.NOT_FOUND:
        if jobs and ("could not find the requested resource" in message or "page not found" in message):
            return UserError(
                f"this cluster has no TrainingJobs (the CRD {PLURAL}.{GROUP} is not installed): install the chart, or "
                "choose another cluster with --context"
            )
        return NotFound(message)
    if status == HTTPStatus.CONFLICT and method == "POST":
        return Exists(message)
    if status == HTTPStatus.CONFLICT and method == "DELETE":  # another object has the name by now
        return NotFound(message)
    if status == HTTPStatus.BAD_REQUEST and path.endswith("/log"):
        return NotReady(message)
    return UserError(f"the API server answered {status}: {_one_line(message)}")


def _namespace_of(path: str) -> str:
    found = re.search(r"/namespaces/([^/]+)/", path)
    return found[1] if found else ""


def _text(value: Any) -> str:
    return "true" if value is True else str(value)


def _cause(error: BaseException) -> str:
    """Return what is below the layers of an HTTP library: `connection refused`."""
    text = _one_line(getattr(error, "reason", None) or error)
    for pattern in (r"\[Errno -?\d+\] (.+?)['\")]*$", r": (.+)$"):
        found = re.search(pattern, text)
        if found:
            return found[1].lower().rstrip(")'\"")
    return text


def _one_line(text: Any) -> str:
    return re.sub(r"\s+", " ", str(text)).strip().rstrip(".")
