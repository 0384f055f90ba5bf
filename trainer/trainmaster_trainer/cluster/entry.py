"""What Ray Train runs in every worker: build the context, train, and say clearly what went wrong."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainmaster_api.layout import run_path
from trainmaster_api.messages import Outcome
from trainmaster_api.names import ENV_POD_NAME
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.types import parse_quantity

from trainmaster_trainer.failures import Interrupted, rank_error
from trainmaster_trainer.ipc.channel import ControlClient
from trainmaster_trainer.ipc.codec import result_to_wire

COLLECTIVE_TIMEOUT_SECONDS = 600


def train_loop(config: dict[str, Any]) -> dict[str, Any]:
    """The training function of Ray Train.

    Args:
        config: `job` (wire), `attempt`, `storage_uri`, `base_dir`, `control` (host, port), `token_file`,
            `in_cluster`.

    Returns:
        The Result as plain data.

    Raises:
        RankError: Whatever went wrong, classed.
    """
    from ray import train

    where = train.get_context()
    rank, world_size = where.get_world_rank(), where.get_world_size()
    pod = os.environ.get(ENV_POD_NAME, "")
    try:
        return _train(config, rank, world_size, pod)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it has to be classed and told
        raise rank_error(error, rank, pod) from None


def _train(config: dict[str, Any], rank: int, world_size: int, pod: str) -> dict[str, Any]:
    gc.disable()  # the loop turns it on again; looking for garbage among modules that load is a tenth of the start
    import torch

    from trainmaster_trainer.backends.torch.loop import fit
    from trainmaster_trainer.backends.torch.threads import use_threads
    from trainmaster_trainer.context import Context
    from trainmaster_trainer.storage.store import open_store

    job = TrainingJob.model_validate(config["job"])
    cpus = job.spec.cluster.workers.cpus if config["in_cluster"] else None
    use_threads(parse_quantity(cpus) if cpus else None, world_size)
    token = Path(config["token_file"]).read_text()
    control = ControlClient(tuple(config["control"]), token, rank, {"pod": pod, "pid": os.getpid()})
    meta = job.metadata
    path = run_path(meta.namespace, meta.name, meta.uid)
    storage = job.spec.storage
    store = open_store(config["storage_uri"], storage.endpoint, storage.region, os.environ)
    try:
        backend = "nccl" if job.spec.cluster.workers.gpus and torch.cuda.is_available() else "gloo"
        with _process_group(rank, world_size, backend, control):
            result = fit(
                Context(
                    job=job,
                    rank=rank,
                    world_size=world_size,
                    device=torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu"),
                    attempt=config["attempt"],
                    run=store.under(path),
                    run_uri=f"{config['storage_uri'].rstrip('/')}/{path}",
                    base_dir=Path(config["base_dir"]),
                    control=control,
                    report=control.report,
                )
            )
    finally:
        control.close()
    if result.outcome is Outcome.STOPPED and control.leaving:
        raise Interrupted("a pod of the attempt leaves; its replacement goes on from the checkpoint")
    return result_to_wire(result)


@contextmanager
def _process_group(rank: int, world_size: int, backend: str, control: ControlClient) -> Iterator[None]:
    """torch.distributed for the time of the block.

    Not Ray's TorchConfig: that imports torch in the driver and in the controller too, 2 s of CPU and 150 MB each.
    """
    if world_size == 1:
        yield
        return
    from datetime import timedelta

    import torch.distributed as dist
    from ray.train.v2._internal.execution.context import get_train_context
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    group = get_train_context().get_synchronization_actor()  # type: ignore[no-untyped-call]  # its name, see group.py
    timeout = timedelta(seconds=COLLECTIVE_TIMEOUT_SECONDS)
    if rank == 0:
        host = _own_address()
        # port 0: bound by the store itself, so nobody can take it in between
        store = TCPStore(host, 0, world_size, is_master=True, wait_for_workers=False)
        control.meet(group, (host, store.port), COLLECTIVE_TIMEOUT_SECONDS)
    else:
        host, port = control.meet(group, None, COLLECTIVE_TIMEOUT_SECONDS)
        store = TCPStore(host, port, world_size, is_master=False, timeout=timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    yield
    # Only after success: a failing rank keeps its connections, so that the others wait instead of failing too and
    # Ray Train sees the cause alone.
    dist.destroy_process_group()


def _own_address() -> str:
    import ray

    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
