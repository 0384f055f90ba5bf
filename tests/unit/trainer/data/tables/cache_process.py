"""A process that reads a table through the cache, or a whole job's data; what tests kill, run twice, and measure."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.storage import Storage
from trainmaster_trainer.data.files import Files
from trainmaster_trainer.data.tables import arrow_files, cache, encode, raw
from trainmaster_trainer.data.tables.cache import CachedTable, cached_table

# What is freed goes back to the system at once: else the peak also has what malloc keeps for later, which depends on
# what else the machine does.
EXACT_MEMORY = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "65536"}


def small(batch: int, segment: int) -> None:
    """Let little data be many batches and files."""
    raw.TEXT_BLOCK, raw.BATCH, encode.BLOCK = batch, batch, batch
    for module in (raw, cache):
        setattr(module, "SEGMENT", segment)  # noqa: B010 - each has its own


def read(folder: Path, source: str, root: Path) -> CachedTable:
    spec = Data.model_validate({"source": source, "target": "y", "csv": {"delimiter": ","}})
    return cached_table(Files.open(source, Storage(), folder, {}, is_table=True), spec, root)


def count_writes(die_at: int = -1) -> list[int]:
    """Count the batches that this process writes; before one of them it is killed."""
    written, write = [0], arrow_files.ArrowWriter.write

    def counted(self: arrow_files.ArrowWriter, batch: pa.RecordBatch) -> None:
        if written[0] == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, batch)
        written[0] += 1

    arrow_files.ArrowWriter.write = counted  # type: ignore[method-assign]
    return written


def anonymous() -> int:
    """Return bytes of memory that aren't pages of a file, which the kernel can take back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measure(folder: Path, source: str, root: Path, **more: Any) -> None:
    """Read, split, check and encode a table, and make batches of it."""
    from trainmaster_trainer.data import load_data
    from trainmaster_trainer.data.order import Sampler

    from tests.unit.trainer.harness import small_job

    data: dict[str, Any] = {
        "source": source,
        "target": "y",
        "batchSize": 256,
        "cache": {"mode": "always", "directory": str(root)},
    }
    data |= more
    job = small_job({"spec.training.data": data, "spec.training.task": {"name": "classification"}})
    before, peak = anonymous(), [0]

    def watch() -> None:
        while True:
            peak[0] = max(peak[0], anonymous())
            time.sleep(0.002)

    threading.Thread(target=watch, daemon=True).start()
    found = load_data(job, folder, {})
    sampler = Sampler(found.train, 256, 0, None)
    for step in range(100):
        found.batch(sampler.indices(step, 0, 1))
    print(json.dumps({"peak": peak[0] - before, "rows": len(found.rows), "notes": found.notes}))


if __name__ == "__main__":
    # the number of the batch before which it dies; or further settings of the data
    what, folder, source, root, number = sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), sys.argv[5]
    if what == "measure":
        small(1 << 20, 128 << 20)
        measure(folder, source, root, **json.loads(number))
    else:
        small(4096, 20_000)
        counted = count_writes(int(number))
        if what == "meet":  # begin when another process can
            (folder / f"ready-{os.getpid()}").touch()
            while len(list(folder.glob("ready-*"))) < 2:
                time.sleep(0.001)
        rows = len(read(folder, source, root).table)
        print(json.dumps({"written": counted[0], "rows": rows}))
