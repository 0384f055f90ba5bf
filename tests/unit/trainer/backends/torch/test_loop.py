"""A step does what plain PyTorch does, to the bit where nothing is reordered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name
from trainmaster_api.messages import Outcome
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.backends.torch import loop
from trainmaster_trainer.backends.torch.builder import Setup, build
from trainmaster_trainer.backends.torch.optim import skips_on_device
from trainmaster_trainer.context import ReportKind
from trainmaster_trainer.errors import NonFiniteLoss

from tests.factories import Changes
from tests.unit.trainer.harness import Recording, make_context, run_store, small_job, train

PLAIN = {"hidden": [32]}  # without dropout


def built(root: Path, *changes: Changes) -> Setup:
    return build(make_context(small_job({"spec.training.model.args": PLAIN}, *changes), root))


def parameters(setup: Setup) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in setup.model.parameters()])


def poison(setup: Setup, step: int) -> None:
    """The rows of a step become NaN."""
    rows = torch.from_numpy(setup.sampler.indices(step))
    setup.data._on_device["x"][rows] = torch.nan


@pytest.mark.parametrize("clip", [None, 0.05, 1e6])
def test_the_weights_are_those_of_a_plain_loop_to_the_bit(tmp_path: Path, clip: float | None) -> None:
    asked: dict[str, object] = {"duration": "2ep", "seed": 3}
    setup = built(tmp_path, {"spec.training.loop": asked if clip is None else {**asked, "clipNorm": clip}})
    spec = setup.spec.training
    theirs = built(tmp_path, {"spec.training.loop": asked})
    model = theirs.model
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}], lr=1e-3, fused=True
    )
    start = parameters(theirs).clone()
    assert torch.equal(parameters(setup), start)
    for step in range(30):
        x, y = setup.data.batch(setup.sampler.indices(step))
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        for group in optimizer.param_groups:
            group["lr"] = spec.optimizer.lr * setup.schedule.share(step)
        optimizer.step()
        loop.train_step(setup)
    assert torch.equal(parameters(setup), parameters(theirs))
    assert not torch.equal(parameters(setup), start)


@pytest.mark.parametrize("micro_batches", [2, 8, 64])
def test_accumulation_is_the_big_batch(tmp_path: Path, micro_batches: int) -> None:
    big = built(tmp_path, {"spec.training.loop": {"clipNorm": 1.0}})
    small = built(tmp_path, {"spec.training.loop": {"clipNorm": 1.0, "gradientAccumulation": micro_batches}})
    assert torch.equal(parameters(big), parameters(small))
    gradients: dict[str, torch.Tensor] = {}
    for name, setup in (("big", big), ("small", small)):
        real = setup.optimizer.step

        def step(*args: object, name: str = name, setup: Setup = setup, real=real) -> object:
            gradients[name] = torch.cat([p.grad.flatten() for p in setup.parameters if p.grad is not None])
            return real(*args)

        setup.optimizer.step = step  # type: ignore[method-assign]
        loop.train_step(setup)
    torch.testing.assert_close(gradients["small"], gradients["big"], atol=1e-6, rtol=0)
    torch.testing.assert_close(small.loss_sum * small.share, big.loss_sum, atol=1e-6, rtol=0)


class Lion(torch.optim.Optimizer):
    """A user's optimizer: plain Python, and it has never heard of `found_inf`."""

    def __init__(self, params, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                moment = self.state[p].setdefault("moment", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * torch.sign(0.9 * moment + 0.1 * p.grad))
                moment.mul_(0.99).add_(p.grad, alpha=0.01)


class OwnStep(torch.optim.SGD):
    """Says that it is fused, and updates in its own way."""

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad)


OPTIMIZERS = {
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.1, fused=True),
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1, fused=True),
    "nesterov": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "adam, not fused": lambda params: torch.optim.Adam(params, lr=0.1, fused=False),
    "rmsprop": lambda params: torch.optim.RMSprop(params, lr=0.1, momentum=0.5),
    "lion": lambda params: Lion(params, lr=0.1),
    "a subclass with its own step": lambda params: OwnStep(params, lr=0.1, fused=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_bad_step_changes_no_weight_and_no_moment(tmp_path: Path, name: str) -> None:
    setup = built(tmp_path, {"spec.training.loop": {"clipNorm": 1.0}})
    setup.optimizer = OPTIMIZERS[name](setup.parameters)
    for _ in range(5):
        loop.train_step(setup)
    before, moments = parameters(setup).clone(), str(setup.optimizer.state_dict()["state"])
    assert not torch.equal(before, parameters(built(tmp_path)))
    poison(setup, 5)
    loop.train_step(setup)
    loop.train_step(setup)  # its rows are whole, but the run is lost already
    assert torch.equal(parameters(setup), before)
    assert str(setup.optimizer.state_dict()["state"]) == moments
    with pytest.raises(NonFiniteLoss, match=r"the gradients of step 6 are not finite; lower optimizer\.lr"):
        loop.raise_if_bad(setup)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_torchs_own_fused_kernels_are_trusted_to_skip(name: str) -> None:
    optimizer = OPTIMIZERS[name]([torch.nn.Parameter(torch.ones(3))])
    assert skips_on_device(optimizer) is (name in ("adamw", "sgd", "nesterov"))


def test_fused_kernels_of_torch_skip_by_found_inf() -> None:
    """Contract with torch: no documentation promises the attribute; an upgrade that drops it must fail here."""
    for name in ("adamw", "sgd", "nesterov"):
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = OPTIMIZERS[name]([weight])
        for flag, expected in ((1.0, True), (0.0, False)):
            weight.grad = torch.ones(3)
            optimizer.found_inf = torch.tensor(flag)
            optimizer.step()
            assert torch.equal(weight, torch.ones(3)) is expected, name


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_the_logged_gradient_norm_is_that_before_clipping(tmp_path: Path, clip: float | None) -> None:
    asked: dict[str, object] = {"duration": "2ep", "seed": 3}
    setup = built(tmp_path, {"spec.training.loop": asked if clip is None else {**asked, "clipNorm": clip}})
    x, y = setup.data.batch(setup.sampler.indices(0))
    F.cross_entropy(setup.model(x), y).backward()
    expected = torch.nn.utils.get_total_norm([p.grad for p in setup.parameters if p.grad is not None])
    setup.optimizer.zero_grad()
    loop.train_step(setup)
    assert loop.train_metrics(setup)["train/grad_norm"] == pytest.approx(float(expected))
    assert float(expected) > 0.1


def test_an_infinite_gradient_is_a_bad_one_too(tmp_path: Path) -> None:
    setup = built(tmp_path)
    with torch.no_grad():
        setup.parameters[0].mul_(1e38)
        setup.parameters[-2].mul_(1e38)
    before = parameters(setup).clone()
    loop.train_step(setup)
    assert torch.equal(parameters(setup), before)
    with pytest.raises(NonFiniteLoss, match="step 1 "):
        loop.raise_if_bad(setup)


def test_no_checkpoint_holds_what_came_after_a_bad_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop.train_step

    def step(setup: Setup) -> None:
        if setup.step == 30:
            poison(setup, 30)
        real(setup)

    monkeypatch.setattr(loop, "train_step", step)
    job = small_job({"spec.checkpoint.every": "10step"})
    with pytest.raises(NonFiniteLoss, match="step 31 "):
        train(job, tmp_path)
    steps = {path.split("/")[1] for path, _ in run_store(job, tmp_path).list("checkpoints")}
    assert max(steps) == "a1-step-0000030"


def test_bf16_computes_in_bf16_and_keeps_weights_in_fp32(tmp_path: Path) -> None:
    setup = built(tmp_path, {"spec.training.loop": {"precision": "bf16"}})
    kinds: list[torch.dtype] = []
    setup.model[1].register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))  # type: ignore[operator, index]
    loop.train_step(setup)
    assert kinds == [torch.bfloat16]
    assert {p.dtype for p in setup.parameters} == {torch.float32}
    assert parameters(setup).isfinite().all()


def test_a_step_reads_nothing_from_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU each of these would make the host wait for the device."""
    setup = built(tmp_path, {"spec.training.loop": {"clipNorm": 1.0, "gradientAccumulation": 2}})
    loop.train_step(setup)

    def never(self: torch.Tensor, *args: object) -> None:
        raise AssertionError("a step reads a tensor on the host")

    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, never)
    loop.train_step(setup)


def early(*more: Changes) -> TrainingJob:
    stopping = {"metric": "val/loss", "patience": 2, "minDelta": 10.0}
    return small_job({"spec.training.loop": {"duration": "40ep", "earlyStopping": stopping}}, *more)


def test_early_stopping_after_patience(tmp_path: Path) -> None:
    recording = Recording()
    result = train(early(), tmp_path, recording=recording)
    assert (result.outcome, result.step, result.total_steps) == (Outcome.COMPLETE, 66, 66)  # 1 sets the best, 2 wait
    assert sum(report.kind is ReportKind.VALIDATION for report in recording.reports) == 3
    assert recording.reports[-1].total_steps == 66


def test_early_stopping_holds_in_the_next_attempt(tmp_path: Path) -> None:
    train(early(), tmp_path)
    again = train(early(), tmp_path, attempt=2)
    assert (again.outcome, again.step) == (Outcome.COMPLETE, 66)


def test_plateau_lowers_the_rate_down_to_its_floor(tmp_path: Path) -> None:
    schedule = {
        "name": "plateau",
        "minLrRatio": 0.05,
        "args": {"patience": 1, "factor": 0.1, "metric": "val/accuracy"},
    }
    job = small_job(
        {
            "spec.training.schedule": schedule,
            "spec.training.optimizer": {"name": "sgd", "lr": 1e-12, "args": {"momentum": 0}},
        }
    )
    recording = Recording()
    train(job, tmp_path, recording=recording)
    rates = [r.metrics["train/lr"] for r in recording.reports if r.kind is ReportKind.VALIDATION]
    np.testing.assert_allclose(rates, [1e-12, 1e-12, 1e-13, 5e-14])
