"""A way to servers that only the cluster can reach: a local port, forwarded to a pod by the API server."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from trainmaster_cli.errors import UserError

from .api import Api, Cluster, NotFound, Object, core_path

_SERVICE = re.compile(r"^([a-z0-9-]+)\.([a-z0-9-]+)(\.svc(\.cluster\.local)?)?$")
_CHUNK = 2**16


def reachable(api: Api, endpoint: str) -> str:
    """Return an address by which an endpoint can be reached from here.

    An endpoint with the name of a Service is forwarded, because only pods can resolve it; any other is returned as it
    is.

    Raises:
        UserError: It is a Service without a pod, or without the right to forward to it.
    """
    parts = urlsplit(endpoint)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if not is_service(host) or not isinstance(api, Cluster):
        return endpoint
    pod, target = backend(api, host, port)
    namespace = namespace_of(api, host)
    client = api.client

    def connect() -> Any:
        import kubernetes.client
        import kubernetes.stream

        # a client of its own: the library changes it while it connects, and other threads use ours
        core = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(client.configuration))
        forward = kubernetes.stream.portforward(
            core.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(target)
        )
        return forward.socket(target)

    _try(connect, host, namespace)
    local = listen(connect)
    return urlunsplit((parts.scheme, f"127.0.0.1:{local}", parts.path, parts.query, ""))


def _try(connect: Callable[[], Any], host: str, namespace: str) -> None:
    """Connect once, because a connection that is refused later on has no reason any more."""
    try:
        connect().close()
    except Exception as error:  # noqa: BLE001 - the client library raises whatever its parts raise
        text = " ".join(_reason(error).split())
        found = re.search(r'"message":\s*"((?:[^"\\]|\\.)*)"', text)
        said = found[1].replace('\\"', '"') if found else text
        if "403" in text:
            raise UserError(
                f"you have no right to create pods/portforward in namespace {namespace}, by which the storage {host} "
                f"is reached from outside of the cluster: {said}"
            ) from None
        raise UserError(f"the storage {host} can't be reached through the API server: {said}") from None


def _reason(error: BaseException) -> str:
    """Return what the API server said; the client library may stumble over its own error and raise another one."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "reason", None):
            return str(cause.reason)  # type: ignore[attr-defined]
        cause = cause.__context__
    return str(error)


def is_service(host: str) -> bool:
    """Return whether a host is named as a Service is, and this machine can't resolve it."""
    found = _SERVICE.match(host)
    if found is None and "." in host:
        return False
    if found is not None and found[3]:
        return True
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return True
    return False


def namespace_of(api: Api, host: str) -> str:
    """Return the namespace of a Service's host name."""
    found = _SERVICE.match(host)
    return found[2] if found else api.namespace


def backend(api: Api, host: str, port: int) -> tuple[str, int]:
    """Return a pod behind a Service, and its port.

    Raises:
        UserError: There is none.
    """
    name, namespace = host.partition(".")[0], namespace_of(api, host)
    try:
        service = api.get(core_path(namespace, "services", name))
    except NotFound:
        raise UserError(f"the storage {host} can't be reached from here, and is no Service of the cluster") from None
    selector = ",".join(f"{key}={value}" for key, value in (service["spec"].get("selector") or {}).items())
    pods = api.get(core_path(namespace, "pods"), labelSelector=selector)["items"] if selector else []
    running = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]
    if not running:
        raise UserError(f"the storage {host} can't be reached from here: the Service {name} has no running pod")
    entry: Object = next((each for each in service["spec"].get("ports") or () if each["port"] == port), {})
    return running[0]["metadata"]["name"], _port(running[0], entry.get("targetPort", port))


def _port(pod: Object, target: int | str) -> int:
    if isinstance(target, int):
        return target
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            if port.get("name") == target:
                return int(port["containerPort"])
    raise UserError(f"pod {pod['metadata']['name']} has no port {target}")


def listen(connect: Callable[[], Any]) -> int:
    """Forward every connection to a local port, from threads that end with this process; return the port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            near, _ = server.accept()
            try:
                far = connect()
            except Exception:  # noqa: BLE001 - whatever the client library raises: the reader sees a closed connection
                near.close()
                continue
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=_copy, args=[source, target], daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    port: int = server.getsockname()[1]
    return port


def _copy(source: Any, target: Any) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    for each in (source, target):
        with contextlib.suppress(OSError, AttributeError):
            each.shutdown(socket.SHUT_RDWR)  # the other thread waits for it, and would hold it open
        with contextlib.suppress(OSError, AttributeError):
            each.close()
