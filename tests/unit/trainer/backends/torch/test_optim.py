"""What the optimizer gets: groups with and without decay, the arguments of its name, or those of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from trainmaster_api.spec.optimizer import Optimizer
from trainmaster_trainer.backends.torch.optim import build_optimizer, parameter_groups, set_lr
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.references import use_folder


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.frozen = nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Linear(2, 2)
        self.table = nn.Embedding(3, 2)
        self.frozen.requires_grad_(False)


def part(**fields: Any) -> Optimizer:
    return Optimizer.model_validate(fields)


def names(model: nn.Module, group: dict[str, Any]) -> list[str]:
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    return sorted(by_id[id(parameter)] for parameter in group["params"])


def test_groups_decay_matrices_only() -> None:
    model = Net()
    matrices, vectors = parameter_groups(model, 0.3)
    assert names(model, matrices) == ["conv.weight", "table.weight"]
    assert names(model, vectors) == ["conv.bias", "norm.bias", "norm.weight"]
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.3, 0.0)


def test_groups_are_never_empty() -> None:
    (group,) = parameter_groups(nn.Linear(2, 2, bias=False), 0.3)
    assert group["weight_decay"] == 0.3
    (group,) = parameter_groups(nn.LayerNorm(2), 0.3)
    assert group["weight_decay"] == 0.0


def test_groups_without_weight_decay_leave_it_to_the_class() -> None:
    model = Net()
    (group,) = parameter_groups(model, None)
    assert list(group) == ["params"]
    assert names(model, group) == ["conv.bias", "conv.weight", "norm.bias", "norm.weight", "table.weight"]


@pytest.mark.parametrize("weight_decay", [None, 0.1])
def test_model_that_is_frozen_is_refused(weight_decay: float | None) -> None:
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ConfigurationError, match="has no trainable parameters"):
        build_optimizer(part(name="adamw", weightDecay=weight_decay), model)


@pytest.mark.parametrize(
    ("asked", "kind", "expected"),
    [
        (
            {"name": "adamw", "lr": 0.5, "weightDecay": 0.25, "args": {"betas": [0.7, 0.8], "eps": 0.01}},
            torch.optim.AdamW,
            {"lr": 0.5, "betas": (0.7, 0.8), "eps": 0.01, "fused": True},
        ),
        (
            {"name": "sgd", "lr": 0.5, "weightDecay": 0.25, "args": {"momentum": 0.6, "nesterov": True}},
            torch.optim.SGD,
            {"lr": 0.5, "momentum": 0.6, "nesterov": True, "fused": True},
        ),
    ],
)
def test_built_in_gets_its_arguments(asked: dict[str, Any], kind: type, expected: dict[str, Any]) -> None:
    found = build_optimizer(part(**asked), Net())
    assert type(found) is kind
    for group, weight_decay in zip(found.param_groups, (0.25, 0.0), strict=True):
        assert {key: group[key] for key in expected} == expected
        assert group["weight_decay"] == weight_decay


def test_class_keeps_its_own_default_of_weight_decay() -> None:
    (group,) = build_optimizer(part(**{"class": "torch.optim:AdamW", "lr": 0.5}), Net()).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.01)  # 0.01 is AdamW's in PyTorch's documentation
    asked = {"class": "torch.optim:AdamW", "lr": 0.5, "weightDecay": 0.3, "args": {"amsgrad": True}}
    first, second = build_optimizer(part(**asked), Net()).param_groups
    assert (first["weight_decay"], second["weight_decay"], first["amsgrad"]) == (0.3, 0.0, True)


def test_function_is_called_with_the_fields_that_are_set(tmp_path: Path) -> None:
    """Not only the groups have them: a signature may require them."""
    (tmp_path / "optim_calls.py").write_text(
        "import torch\ncalls = []\n\n"
        "def sgd(params, **given):\n    calls.append(given)\n    return torch.optim.SGD(params, lr=1)\n"
    )
    use_folder(tmp_path)
    for more in ({"weightDecay": 0.3, "args": {"beta": 2}}, {}):
        build_optimizer(part(**{"class": "optim_calls:sgd", "lr": 0.5, **more}), Net())
    import optim_calls  # type: ignore[import-not-found]

    assert optim_calls.calls == [{"lr": 0.5, "weight_decay": 0.3, "beta": 2}, {"lr": 0.5}]


def test_function_that_returns_no_optimizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "optim_parts.py").write_text("def nothing(params, lr):\n    return {}\n")
    use_folder(tmp_path)
    with pytest.raises(ConfigurationError, match=r"optimizer optim_parts:nothing returned a dict; expected a torch\."):
        build_optimizer(part(**{"class": "optim_parts:nothing", "lr": 0.1}), Net())


def test_set_lr_reaches_every_group() -> None:
    found = build_optimizer(part(name="sgd"), Net())
    set_lr(found, 0.125)
    assert [group["lr"] for group in found.param_groups] == [0.125, 0.125]
