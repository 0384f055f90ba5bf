"""Training loads no compiler, and computes the same without it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from trainmaster_api.messages import Outcome
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.backends.torch import no_dynamo
from trainmaster_trainer.backends.torch.loop import fit

from tests.unit.trainer.harness import Recording, make_context, make_job, spawn


def fit_twice(rank: int, world_size: int, job: TrainingJob, root: Path) -> None:
    """Stopped and resumed, evaluated and packaged, in a process of its own."""
    for attempt, stop_at in ((1, 5), (2, None)):
        where = make_context(job, root, attempt=attempt, rank=rank, world_size=world_size, recording=Recording(stop_at))
        assert fit(where).outcome is (Outcome.STOPPED if stop_at else Outcome.COMPLETE)
    loaded = sorted(name for name in sys.modules if name.startswith(("torch._dynamo", "torch._inductor")))
    assert loaded == [], "it costs a rank as long as torch itself"
    from torch import _dynamo

    assert _dynamo.config.optimize_ddp, "whoever asks later gets the real one"


# two ranks have DDP as well, for which it makes no difference which optimizer there is
@pytest.mark.parametrize(
    ("world_size", "optimizer"), [(2, {"name": "adamw"}), (1, {"name": "sgd", "args": {"momentum": 0.9}})]
)
def test_a_run_never_loads_the_compiler(tmp_path: Path, world_size: int, optimizer: dict[str, Any]) -> None:
    spawn(world_size, fit_twice, make_job(training__optimizer=optimizer), tmp_path)


@pytest.mark.parametrize(
    ("mine", "theirs", "options"),
    [
        (no_dynamo.AdamW, torch.optim.AdamW, {"weight_decay": 0.1}),
        (no_dynamo.SGD, torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ],
)
@pytest.mark.parametrize("fused", [True, False])
def test_steps_and_states_are_those_of_torch(
    mine: type[torch.optim.Optimizer], theirs: type[torch.optim.Optimizer], options: dict[str, Any], fused: bool
) -> None:
    def trained(kind: type[torch.optim.Optimizer]) -> tuple[list[torch.Tensor], dict[str, Any]]:
        torch.manual_seed(0)
        model = nn.Linear(7, 3)
        optimizer: Any = kind([{"params": [model.weight]}, {"params": [model.bias]}], lr=0.1, fused=fused, **options)  # type: ignore[call-arg]
        for step in range(6):
            if step == 3:
                optimizer.load_state_dict(optimizer.state_dict())
            optimizer.zero_grad()
            model(torch.randn(5, 7)).square().sum().backward()
            optimizer.step()
        return [p.detach() for p in model.parameters()], optimizer.state_dict()

    (weights, state), (expected, expected_state) = trained(mine), trained(theirs)
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))
    assert state["param_groups"] == expected_state["param_groups"]
    assert str(state["state"]) == str(expected_state["state"])


def test_a_step_is_not_recorded_by_autograd() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = no_dynamo.SGD([weight], lr=0.5)
    weight.sum().backward()
    optimizer.step()
    assert weight.is_leaf
    assert weight.tolist() == [0.5, 0.5, 0.5]
