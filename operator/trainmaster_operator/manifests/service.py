"""The headless Service that gives every head pod of a namespace a DNS name."""

from __future__ import annotations

from typing import Any

from trainmaster_api import names

Object = dict[str, Any]


def heads_service(namespace: str) -> Object:
    """Return the Service `trainmaster-heads` of a namespace.

    It has no owner, because no job may take the names of the others along when it is deleted. It costs nothing while
    there are no heads, and goes with the namespace.
    """
    ports = {"gcs": names.PORT_GCS, "dashboard": names.PORT_DASHBOARD, "metrics": names.PORT_METRICS}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": names.HEADS_SERVICE, "namespace": namespace, "labels": names.heads_labels()},
        "spec": {
            "clusterIP": "None",
            # workers must find the head before it is ready: it is ready only when they have joined
            "publishNotReadyAddresses": True,
            "selector": {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_ROLE: names.ROLE_HEAD},
            "ports": [{"name": key, "port": port, "targetPort": port} for key, port in ports.items()],
        },
    }


def is_heads_service(found: Object) -> bool:
    """Return whether an object is that Service, whatever the API server and others have added to it."""
    meta, spec, wanted = found["metadata"], found.get("spec") or {}, heads_service("")["spec"]
    ours = names.heads_labels().items() <= (meta.get("labels") or {}).items()
    return ours and all(spec.get(key) == wanted[key] for key in ("clusterIP", "publishNotReadyAddresses", "selector"))
