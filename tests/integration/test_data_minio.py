"""Data on a real S3 server is read as the same files on disk, by worker processes too, and known by its objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.data.differences import shown, what_changed
from trainmaster_trainer.data.fingerprint import take
from trainmaster_trainer.data.loader import Loader, Workers
from trainmaster_trainer.data.order import Sampler
from trainmaster_trainer.storage.store import Store

from tests.factories import make_job
from tests.integration.minio import KEY, SECRET, minio_server

REGION = "us-west-2"
KEYS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with minio_server(tmp_path_factory.mktemp("minio"), REGION) as server:
        yield Store("s3://data/sets", server.address, REGION, access_key=KEY, secret_key=SECRET, patience=20)


def upload(store: Store, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(str(path.relative_to(folder)), path.read_bytes())


def job(store: Store, **data: Any) -> TrainingJob:
    changes = {
        "spec.training.data": {"batchSize": 8} | data,
        "spec.training.task": {"name": "classification"},
        "spec.storage": {"uri": "s3://data/runs", "endpoint": store.endpoint, "region": REGION},
    }
    return TrainingJob.model_validate(make_job(changes, name="t"))


def rows_of(data: Prepared) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = data.batch(np.concatenate([data.train, data.validation, data.test]))
    assert isinstance(x, torch.Tensor)
    return x, y


def write_tables(folder: Path) -> None:
    dice = np.random.default_rng(0)
    for day in range(3):
        numbers = dice.normal(size=40).round(3)
        (folder / "days").mkdir(exist_ok=True)
        lines = [f"{number},{'yes' if number > 0 else 'no'}" for number in numbers]
        (folder / "days" / f"2024-01-0{day + 1}.csv").write_text("\n".join(["a,label", *lines]) + "\n")
        part = folder / "hive" / f"day={day}"
        part.mkdir(parents=True)
        pq.write_table(pa.table({"a": numbers, "label": np.where(numbers > 0, "yes", "no")}), part / "part-0.parquet")
    (folder / "hive" / "_SUCCESS").write_text("")


@pytest.mark.parametrize(
    ("source", "extra"), [("days/*.csv", {}), ("days", {"format": "csv"}), ("hive", {"format": "parquet"})]
)
def test_tables_are_read_as_on_disk(store: Store, tmp_path: Path, source: str, extra: dict[str, str]) -> None:
    write_tables(tmp_path)
    upload(store, tmp_path)
    here = load_data(job(store, source=source, target="label", **extra), tmp_path, {})
    there = load_data(job(store, source=f"{store.uri}/{source}", target="label", **extra), tmp_path, KEYS)
    assert here.rows.features == there.rows.features
    for mine, theirs in zip(rows_of(here), rows_of(there), strict=True):
        assert torch.equal(mine, theirs)


def write_images(folder: Path) -> None:
    dice = np.random.default_rng(0)
    for index in range(40):
        target = folder / "pictures" / f"class{index % 2}"
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dice.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(target / f"{index}.png")


def test_images_are_decoded_by_processes_that_read_from_s3(store: Store, tmp_path: Path) -> None:
    """A forked S3 client would hang: it has no threads there."""
    write_images(tmp_path)
    upload(store, tmp_path)
    asked = {"imageSize": 8, "channels": 3}
    here = load_data(job(store, source="images:pictures", **asked), tmp_path, {})
    there = load_data(job(store, source=f"images:{store.uri}/pictures", **asked), tmp_path, KEYS)
    found = []
    for data, workers in ((here, 0), (there, 2)):
        data.move(torch.device("cpu"))
        loader = Loader(data, Sampler(data.train, 8, 0), 6, seed=0, workers=Workers(workers))
        batches = [batch for step in range(6) for batch in loader.step(step)]
        batches += list(loader.evaluation([data.validation, data.test]))
        found.append(torch.cat([batch.x for batch in batches if isinstance(batch.x, torch.Tensor)]))
        loader.close()
    assert torch.equal(*found)


def test_changed_object_of_the_same_size_is_named(store: Store, tmp_path: Path) -> None:
    write_tables(tmp_path)
    upload(store, tmp_path)
    asked = job(store, source=f"{store.uri}/days/*.csv", target="label")
    before = take(asked, tmp_path, KEYS)
    assert what_changed(before, take(asked, tmp_path, KEYS, before)) == []
    text = (tmp_path / "days" / "2024-01-02.csv").read_text()
    line = text.splitlines()[5]
    store.put("days/2024-01-02.csv", text.replace(line, line.replace("yes", "NO!").replace("no", "NO")).encode())
    (change,) = shown(what_changed(before, take(asked, tmp_path, KEYS, before)))
    assert "2024-01-02.csv" in change
    store.put("days/2024-01-04.csv", text.encode())
    changes = shown(what_changed(before, take(asked, tmp_path, KEYS, before)))
    assert any("2024-01-04.csv" in each for each in changes)
    store.delete("days/2024-01-04.csv")
