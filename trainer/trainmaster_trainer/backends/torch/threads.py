"""How many threads a rank computes with: no more than it has cores, or the ranks spin against each other."""

from __future__ import annotations

import torch

from trainmaster_trainer.kernel import cores


def use_threads(cpus: float | None, ranks: int) -> int:
    """Set the threads that torch splits one operation over. Call it before the process group and the first tensor.

    Torch starts one thread per core of the machine, whatever a container's limit is and however many ranks share the
    machine. Such threads wait for each other by spinning: the slice of the core that the last one needs is burnt by
    those that are done.

    Args:
        cpus: Cores of this worker (`cluster.workers.cpus`); None on a laptop, where the ranks share the machine.
        ranks: Ranks on this machine, on a laptop.

    Returns:
        The number of threads, at least 1.
    """
    share = cores() / ranks if cpus is None else min(cpus, cores())
    threads = max(1, int(share))
    torch.set_num_threads(threads)
    return threads
