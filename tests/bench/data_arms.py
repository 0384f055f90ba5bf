"""The arms of the data benchmark. Each runs in a process of its own: `python -m tests.bench.data_arms ARM FOLDER SIZE`.

All arms see the same files, decode images alike and end with float32 batches of (BATCH, ...) that are scaled.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.data import load_data
from trainmaster_trainer.data.loader import Loader, Workers
from trainmaster_trainer.data.order import Sampler

from tests.bench.proc import peak_bytes
from tests.factories import make_job

BATCH, SIDE, WORKERS, EPOCHS, COLUMNS = 64, 64, 2, 3, 20
MEAN, STD = 0.45, 0.25  # known to the peers in advance; ours measures them before the first step
IMAGES, TABLE = "photos", "rows.parquet"
SHARE = 0.8  # of the rows is the train split in every arm


def make_images(folder: Path, count: int) -> None:
    """Write JPEG files of 256 x 256 pixels in two folders: smooth pictures, compressed as a camera does."""
    dice = np.random.default_rng(0)
    for index in range(count):
        target = folder / IMAGES / f"class{index % 2}"
        target.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(dice.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        small.resize((256, 256), Image.Resampling.BICUBIC).save(target / f"{index:05}.jpg", quality=90)


def make_table(folder: Path, rows: int) -> None:
    """Write a Parquet file of COLUMNS numbers and a class."""
    dice = np.random.default_rng(0)
    frame = pd.DataFrame(dice.normal(3, 2, (rows, COLUMNS)), columns=[f"x{index}" for index in range(COLUMNS)])
    frame["y"] = np.where(frame.x0 + dice.normal(0, 1, rows) > 3, "yes", "no")
    frame.to_parquet(folder / TABLE)


def _job(folder: Path, source: dict[str, Any]) -> TrainingJob:
    changes = {
        "spec.training.data": source | {"batchSize": BATCH, "loading": {"workers": WORKERS}},
        "spec.training.task": {"name": "classification"},
        "spec.training.model.args": {"hidden": [8]},
    }
    return TrainingJob.model_validate(make_job(changes, name="data"))


def _ours(folder: Path, source: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
    asked = _job(folder, source)
    data = load_data(asked, folder, {})
    data.move(torch.device("cpu"))
    sampler = Sampler(data.train, BATCH, 0)
    workers = Workers.of(asked.spec.training.data.loading, data.rows, torch.device("cpu"))
    loader = Loader(data, sampler, EPOCHS * sampler.steps_per_epoch, seed=0, workers=workers)
    yield torch.empty(0), torch.tensor(sampler.steps_per_epoch)  # ready, with the number of batches of an epoch
    for step in range(EPOCHS * sampler.steps_per_epoch):
        for batch in loader.step(step):
            assert isinstance(batch.x, Tensor)
            yield batch.x, batch.y
    loader.close()


def ours_images(folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Trainmaster's folder of images."""
    return _ours(folder, {"source": f"images:{IMAGES}", "imageSize": SIDE, "channels": 3})


def ours_table(folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Trainmaster's table."""
    return _ours(folder, {"source": TABLE, "target": "y"})


def _pixels(image: Image.Image) -> Tensor:
    resized = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def _epochs(loader: Iterable[Any], batches: int, scaled: Callable[[Any], Any]) -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.empty(0), torch.tensor(batches)
    for _ in range(EPOCHS):
        for batch in loader:
            yield scaled(batch)


def image_folder(folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """DataLoader over torchvision's ImageFolder."""
    from torchvision.datasets import ImageFolder

    files = ImageFolder(str(folder / IMAGES), transform=_pixels)
    train = torch.utils.data.Subset(files, range(int(SHARE * len(files))))
    loader = DataLoader(
        train, BATCH, shuffle=True, drop_last=True, num_workers=WORKERS, persistent_workers=True, prefetch_factor=2
    )
    return _epochs(loader, len(loader), lambda batch: ((batch[0].float() / 255 - MEAN) / STD, batch[1]))


def datasets_images(folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """DataLoader over the same folder as HF datasets reads it."""
    import datasets

    datasets.disable_progress_bars()
    found = datasets.load_dataset(
        "imagefolder", data_dir=str(folder / IMAGES), split="train", cache_dir=str(folder / "hf")
    )

    def transform(rows: dict[str, list[Any]]) -> dict[str, Any]:
        return {"x": [_pixels(image) for image in rows["image"]], "y": rows["label"]}

    train = found.select(range(int(SHARE * len(found)))).with_transform(transform)
    loader = DataLoader(
        train, BATCH, shuffle=True, drop_last=True, num_workers=WORKERS, persistent_workers=True, prefetch_factor=2
    )
    return _epochs(loader, len(loader), lambda batch: ((batch["x"].float() / 255 - MEAN) / STD, batch["y"]))


def datasets_table(folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of HF datasets, which keeps them in a memory-mapped Arrow file; whole batches are fetched at once."""
    import datasets

    datasets.disable_progress_bars()
    found = datasets.load_dataset(
        "parquet", data_files=str(folder / TABLE), split="train", cache_dir=str(folder / "hf")
    )
    names = [name for name in found.column_names if name != "y"]
    train = found.select(range(int(SHARE * len(found)))).with_format("numpy")
    order = BatchSampler(RandomSampler(train), BATCH, drop_last=True)
    loader = DataLoader(train, sampler=order, batch_size=None)

    def scaled(rows: dict[str, Any]) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy(np.stack([rows[name] for name in names], axis=1).astype(np.float32))
        return (x - 3) / 2, torch.from_numpy((rows["y"] == "yes").astype(np.int64))

    return _epochs(loader, len(order), scaled)


def pandas_table(folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """A data frame in memory, of which each batch takes its rows."""
    frame = pd.read_parquet(folder / TABLE)
    classes = (frame.pop("y") == "yes").to_numpy().astype(np.int64)
    frame = ((frame - frame.mean()) / frame.std()).astype(np.float32)
    train = int(SHARE * len(frame))
    yield torch.empty(0), torch.tensor(train // BATCH)
    dice = np.random.default_rng(0)
    for _ in range(EPOCHS):
        order = dice.permutation(train)
        for start in range(0, train - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            yield torch.from_numpy(frame.take(rows).to_numpy(copy=True)), torch.from_numpy(classes[rows])


def tensor_dataset(folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """DataLoader over a TensorDataset in memory that fetches whole batches."""
    frame = pd.read_parquet(folder / TABLE)
    classes = torch.from_numpy((frame.pop("y") == "yes").to_numpy(np.int64, copy=True))
    x = torch.from_numpy(((frame - frame.mean()) / frame.std()).to_numpy(np.float32, copy=True))
    train = int(SHARE * len(frame))
    order = BatchSampler(RandomSampler(range(train)), BATCH, drop_last=True)
    loader = DataLoader(TensorDataset(x, classes), sampler=order, batch_size=None)
    return _epochs(loader, len(order), tuple)


def ours_resume(rows: int) -> float:
    """Seconds to the first batch at 90 % of an epoch of many rows."""
    data = torch.zeros(rows, 1)
    numbers = np.random.default_rng(0).permutation(rows)
    began = time.perf_counter()
    sampler = Sampler(numbers, BATCH, 0)
    data[torch.from_numpy(sampler.indices(int(0.9 * sampler.steps_per_epoch)))]
    return time.perf_counter() - began


def skipping_resume(rows: int) -> float:
    """The same with a DataLoader that skips what has been read, as `islice` over it does."""
    loader = DataLoader(TensorDataset(torch.zeros(rows, 1)), BATCH, shuffle=True)
    began = time.perf_counter()
    next(itertools.islice(loader, int(0.9 * rows / BATCH), None))
    return time.perf_counter() - began


ARMS: dict[str, Callable[[Path], Iterator[tuple[Tensor, Tensor]]]] = {
    "ours-images": ours_images,
    "image-folder": image_folder,
    "datasets-images": datasets_images,
    "ours-table": ours_table,
    "tensor-dataset": tensor_dataset,
    "datasets-table": datasets_table,
    "pandas-table": pandas_table,
}
RESUMES = {"ours-resume": ours_resume, "skipping-resume": skipping_resume}


def measure(arm: str, folder: Path) -> dict[str, float]:
    """Return rows per second of the first epoch and of those after it, seconds until the data is ready, and memory."""
    began = time.perf_counter()
    batches = ARMS[arm](folder)
    steps = int(next(batches)[1])
    ready = time.perf_counter()
    marks, seen, total = [ready], 0, 0.0
    for x, y in batches:
        seen += 1
        total += float(x[0, 0].mean()) + float(y[0])  # a batch is there when it can be read
        if seen % steps == 0:
            marks.append(time.perf_counter())
    assert seen == EPOCHS * steps, f"{seen} batches of {EPOCHS} x {steps}"
    rates = [steps * BATCH / (end - start) for start, end in itertools.pairwise(marks)]
    return {
        "ready": ready - began,
        "first": rates[0],
        "later": float(np.median(rates[1:])),
        "mib": peak_bytes(os.getpid()) / 2**20,
    }


def main(arguments: list[str]) -> None:
    """Run one arm and print its figures."""
    arm, place = arguments
    torch.set_num_threads(1)
    found = {"seconds": RESUMES[arm](int(place))} if arm in RESUMES else measure(arm, Path(place))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
