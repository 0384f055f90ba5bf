"""Two jobs side by side: each has its own Ray, token, names and storage."""

from __future__ import annotations

import base64
from typing import Any

from tests.e2e.conftest import keys, make_job, make_long_job, run_prefix
from tests.e2e.kube import Namespace, holds

JOIN = (
    "import os, subprocess, sys\n"
    "env = dict(os.environ, RAY_AUTH_MODE='token', RAY_AUTH_TOKEN='{token}')\n"
    "env.pop('RAY_AUTH_TOKEN_PATH', None)\n"
    "command = [sys.executable, '-m', 'ray.scripts.scripts', 'health-check', '--address', '{address}:6379']\n"
    "done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)\n"
    "print('rc', done.returncode)\n"
)

DASHBOARD = (
    "import json, time, urllib.error, urllib.request\n"
    "question = urllib.request.Request('http://{address}:8265/nodes?view=summary',"
    " headers={{'Authorization': 'Bearer {token}'}})\n"
    "for _ in range(120):\n"  # it starts after all else
    "    try:\n"
    "        nodes = json.load(urllib.request.urlopen(question, timeout=20))['data']['summary']\n"
    "        print('nodes', len(nodes))\n"
    "        break\n"
    "    except urllib.error.HTTPError as error:\n"
    "        print('refused', error.code)\n"
    "        break\n"
    "    except urllib.error.URLError:\n"
    "        time.sleep(1)\n"
)


def test_two_jobs_do_not_see_each_other(namespace: Namespace, s3: Any) -> None:
    one = {"count": 1, "cpus": "250m", "memory": "3Gi"}
    for name in ("left", "right"):
        namespace.apply(make_long_job(name, 2000, cluster__workers=one))
    for name in ("left", "right"):
        namespace.wait(name, lambda j: holds(j, "Running"), "running")

    secrets = {
        n: namespace.cluster.core.read_namespaced_secret(f"{n}-run", namespace.name).data for n in ("left", "right")
    }
    ray_keys = {n: base64.b64decode(s["ray-key"]).decode() for n, s in secrets.items()}
    assert ray_keys["left"] != ray_keys["right"]

    from trainmaster_api.names import attempt_head_address, ray_token

    right = attempt_head_address("right", 1, namespace.name)
    for question, key, expected in (
        (JOIN, "right", "rc 0"),
        (JOIN, "left", "rc 1"),
        (DASHBOARD, "right", "nodes 2"),
        (DASHBOARD, "left", "refused 403"),
    ):
        code = question.format(token=ray_token(ray_keys[key], 1), address=right)
        out = namespace.execute("left-1-head", "python", "-c", code)
        assert expected in out, f"with the token of {key}: {out}"

    for name in ("left", "right"):  # neither has to come to its end to show where it saves
        namespace.patch(name, {"spec": {"run": {"suspend": True}}})
    jobs = {name: namespace.wait(name, lambda j: holds(j, "Suspended"), "suspended") for name in ("left", "right")}
    assert run_prefix(jobs["left"]) != run_prefix(jobs["right"])
    for name, job in jobs.items():
        assert {"spec.json", "LATEST"} <= set(keys(s3, run_prefix(job))), name


def test_same_name_again_is_a_new_run(namespace: Namespace, s3: Any) -> None:
    first = make_job(
        "again", training__loop__duration="2ep", cluster__workers={"count": 1, "cpus": "250m", "memory": "3Gi"}
    )
    namespace.apply(first)
    one = namespace.complete("again")
    namespace.cluster.kubectl("delete", "tj", "again", "-n", namespace.name, "--wait=true")
    namespace.apply(first)
    two = namespace.complete("again")
    assert run_prefix(one) != run_prefix(two)
    assert "spec.json" in keys(s3, run_prefix(one))
    assert "spec.json" in keys(s3, run_prefix(two))
