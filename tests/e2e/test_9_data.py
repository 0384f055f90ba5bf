"""Images on S3, decoded, augmented and mixed by processes of their own in each rank's pod; one rank is killed."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image

from tests.e2e.conftest import BUCKET, assert_resumed_from_newest, make_job, read, run_prefix, wait_checkpoint
from tests.e2e.kube import Namespace, status

EVERY, EPOCHS = 50, 200


def upload_images(s3: Any, prefix: str) -> None:
    """A bright half, on the left or on the right, under noise: two classes that flips would confuse and crops don't."""
    dice = np.random.default_rng(0)
    for index in range(400):
        pixels = dice.integers(0, 120, (20, 20), dtype=np.uint8)
        side = index % 2
        pixels[:, side * 10 : side * 10 + 10] += 100
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        key = f"{prefix}/{('left', 'right')[side]}/{index}.png"
        s3.put_object(Bucket=BUCKET, Key=key, Body=file.getvalue())
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/left/.ipynb_checkpoints/0-checkpoint.png", Body=b"no image")


def test_images_by_worker_processes_survive_a_kill(shared_namespace: Namespace, s3: Any) -> None:
    ns, name = shared_namespace, "pictures"
    prefix = f"data/{ns.name}"
    upload_images(s3, prefix)
    data = {
        "source": f"images:s3://{BUCKET}/{prefix}",
        "imageSize": 16,
        "channels": 1,
        "images": {
            "resize": {"size": 20},
            "augment": [{"name": "randomCrop"}, {"name": "mixup", "args": {"alpha": 0.2}}],
        },
        "loading": {"workers": 1},
        "batchSize": 32,
    }
    started = ns.apply(
        make_job(
            name,
            training__task={"name": "classification"},
            training__data=data,
            training__model={"name": "cnn", "args": {"widths": [8]}},
            training__loop={"duration": f"{EPOCHS}ep", "validateEvery": "20ep", "seed": 1},
            checkpoint__every=f"{EVERY}step",
        )
    )
    wait_checkpoint(s3, started, step=2 * EVERY)
    ns.kill_training_process(name, 1, 1)
    job = ns.complete(name)
    found = status(job)
    assert (found["attempt"], found["restarts"]["recoveries"]) == (1, 1)
    assert_resumed_from_newest(s3, job, resumes=1)
    assert found["testMetrics"]["test/accuracy"] >= 0.95
    events = [json.loads(line) for line in read(s3, run_prefix(job) + "events.jsonl").splitlines()]
    assert any("hidden" in str(event.get("message")) for event in events), "the file that is no image is said"
    fingerprint = json.loads(read(s3, run_prefix(job) + "data/fingerprint.json"))
    assert found["dataFingerprint"]
    assert fingerprint["digest"].startswith(found["dataFingerprint"])
