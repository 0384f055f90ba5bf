"""MixUp and CutMix against their formulas and torchvision's, and that nothing depends on how a batch is divided."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.task import Loss as LossPart
from trainmaster_trainer.data.images.mix import Mix, partners
from trainmaster_trainer.tasks.losses.cross_entropy import build as cross_entropy

CLASSES = 5
BATCH = 12


def mix_of(*parts: tuple[str, float]) -> Mix:
    augment: list[dict[str, Any]] = [{"name": name, "args": {"alpha": alpha}} for name, alpha in parts]
    found = Mix.of(Data.model_validate({"source": "images:x", "images": {"augment": augment}}), CLASSES)
    assert found is not None
    return found


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.rand(BATCH, 3, 16, 20), torch.arange(BATCH) * 3 % CLASSES


def mixed(mix: Mix, rows: list[int] | None = None, *, seed: int = 1, step: int = 0) -> tuple[Tensor, Tensor]:
    x, y = batch()
    positions = np.arange(BATCH) if rows is None else np.array(rows)
    partner = torch.from_numpy(partners(np.arange(BATCH))[positions])
    return mix.apply(x[positions], y[positions], x[partner], y[partner], seed, step)[:2]


def test_mix_is_asked_for() -> None:
    flip = {"name": "randomHorizontalFlip"}
    assert Mix.of(Data.model_validate({"source": "images:x", "images": {"augment": [flip]}}), 3) is None
    assert mix_of(("mixup", 0.2), ("cutmix", 1.0)).alphas == {"mixup": 0.2, "cutmix": 1.0}


def test_partners_are_the_next_ones() -> None:
    assert partners(np.array([7, 3, 9])).tolist() == [3, 9, 7]


def test_mixup_is_its_formula() -> None:
    x, y = batch()
    for step in range(20):
        images, targets = mixed(mix_of(("mixup", 0.4)), step=step)
        # the ratio, solved from the targets of a row whose partner has another class
        ratio = float(targets[0, y[0]])
        assert 0 <= ratio <= 1
        expected = np.stack([ratio * x[i].numpy() + (1 - ratio) * x[(i + 1) % BATCH].numpy() for i in range(BATCH)])
        np.testing.assert_allclose(images.numpy(), expected, atol=1e-6)
        soft = np.zeros((BATCH, CLASSES))
        for i in range(BATCH):
            soft[i, y[i]] += ratio
            soft[i, y[(i + 1) % BATCH]] += 1 - ratio
        np.testing.assert_allclose(targets.numpy(), soft, atol=1e-6)
        assert targets.dtype == torch.float32


def test_cutmix_is_a_box_whose_share_is_in_the_targets() -> None:
    x, y = batch()
    boxes = set()
    for step in range(100):
        images, targets = mixed(mix_of(("cutmix", 1.0)), step=step)
        foreign = (images != x).any(dim=1)  # random pixels are never equal
        assert (foreign == foreign[0]).all(), "one box for the whole batch"
        rows, columns = (np.flatnonzero(foreign[0].any(dim=axis).numpy()) for axis in (1, 0))
        area = len(rows) * len(columns)
        assert int(foreign[0].sum()) == area, "a rectangle"
        assert torch.equal(torch.where(foreign[:, None], x.roll(-1, 0), x), images)
        assert float(targets[0, y[0]]) == pytest.approx(1 - area / (16 * 20), abs=1e-6)
        assert float(targets[0, y[1]]) == pytest.approx(area / (16 * 20), abs=1e-6)
        if area and rows[0] > 0 and rows[-1] < 15 and columns[0] > 0 and columns[-1] < 19:  # the box is whole
            high, wide = len(rows) / 2, len(columns) / 2
            assert high.is_integer()
            assert wide.is_integer()
            assert max(high / 16, wide / 20) < min((high + 1) / 16, (wide + 1) / 20), "the image's ratio, cut off"
        boxes.add((area, *rows[:1], *columns[:1]))
    assert len(boxes) > 70


def test_ratio_has_the_beta_distribution() -> None:
    _, y = batch()
    for alpha in (0.3, 2.0):
        ratios = np.array([float(mixed(mix_of(("mixup", alpha)), [0], step=step)[1][0, y[0]]) for step in range(2000)])
        assert ratios.mean() == pytest.approx(0.5, abs=0.03)
        assert ratios.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)  # of Beta(alpha, alpha)


@pytest.mark.parametrize(("name", "theirs"), [("mixup", v2.MixUp), ("cutmix", v2.CutMix)])
def test_torchvision_has_the_same_distribution(name: str, theirs: Any) -> None:
    """It mixes with the row before, and draws otherwise; the classes' shares tell the ratio."""
    x, y = batch()
    torch.manual_seed(0)
    their = theirs(num_classes=CLASSES, alpha=1.0)
    others = np.array([float(their(x, y)[1][0, y[0]]) for _ in range(2000)])
    ours = np.array([float(mixed(mix_of((name, 1.0)), [0], step=step)[1][0, y[0]]) for step in range(2000)])
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert np.quantile(ours, share) == pytest.approx(np.quantile(others, share), abs=0.05)


def test_one_of_both_is_drawn_for_each_step() -> None:
    x, _ = batch()
    cut = [
        bool((mixed(mix_of(("mixup", 1.0), ("cutmix", 1.0)), [0], step=step)[0][0, 0] == x[0, 0]).any())
        for step in range(300)
    ]
    assert 110 < sum(cut) < 190  # 150 expected; a box that covers all is rare


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_batch_may_be_divided_in_any_way(name: str) -> None:
    whole = mixed(mix_of((name, 1.0)), step=3)
    for division in ([[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]], [[row] for row in range(BATCH)], [[11, 0, 5]]):
        for rows in division:
            part = mixed(mix_of((name, 1.0)), rows, step=3)
            assert torch.equal(part[0], whole[0][rows])
            assert torch.equal(part[1], whole[1][rows])


def test_seed_and_step_decide() -> None:
    mix = mix_of(("mixup", 1.0))
    first = mixed(mix)[1]
    assert torch.equal(first, mixed(mix)[1])
    assert not torch.equal(first, mixed(mix, seed=2)[1])
    assert not torch.equal(first, mixed(mix, step=1)[1])


def test_inputs_stay_and_bytes_are_blended_as_shares_of_white() -> None:
    x = torch.full((2, 1, 4, 4), 255, dtype=torch.uint8)
    black, y = torch.zeros_like(x), torch.tensor([0, 1])
    images, targets, _ = mix_of(("mixup", 1.0)).apply(x, y, black, y.flip(0), 1, 0)
    np.testing.assert_allclose(images.numpy(), np.full((2, 1, 4, 4), float(targets[0, 0])), atol=1e-6)
    cut, _, _ = mix_of(("cutmix", 1.0)).apply(x, y, black, y.flip(0), 1, 1)
    assert cut.dtype == torch.uint8
    assert int(x.min()) == 255


# -- weights of rows --------------------------------------------------------------------------------------------------
def weighted(mix: Mix, weights: Tensor, step: int = 0) -> tuple[Tensor, Tensor]:
    """Return the targets and the weights of a whole mixed batch."""
    x, y = batch()
    following = torch.cat([weights, weights[:1]])
    _, targets, found = mix.apply(x, y, x.roll(-1, 0), y.roll(-1), 1, step, following)
    assert found is not None
    return targets, found


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_loss_is_the_sum_over_both_images(name: str, smoothing: float) -> None:
    """Each term by itself: share times weight times the loss of one class, over the rows of the batch."""
    _, y = batch()
    dice = np.random.default_rng(4)
    loss = cross_entropy(LossPart.model_validate({"name": "cross_entropy", "args": {"labelSmoothing": smoothing}}))
    for step in range(30):
        weights = torch.from_numpy(dice.gamma(1.0, 1.0, BATCH) * (dice.random(BATCH) > 0.3)).float()
        logits = torch.from_numpy(dice.normal(size=(BATCH, CLASSES))).float()
        targets, weight = weighted(mix_of((name, 0.7)), weights, step)
        _, plain = mixed(mix_of((name, 0.7)), step=step)
        ratio = float(plain[0, y[0]])  # its partner has another class
        log_p = logits.double().log_softmax(1).numpy()
        expected = 0.0
        for row in range(BATCH):
            partner = (row + 1) % BATCH
            for share, of in ((ratio, row), (1 - ratio, partner)):
                of_class = -(1 - smoothing) * log_p[row, y[of]] - smoothing * log_p[row].mean()
                expected += share * float(weights[of]) * of_class / BATCH
        assert float(loss.training(logits, targets, weight=weight)) == pytest.approx(expected, rel=1e-5)
        assert float(weight.sum()) == pytest.approx(float(weights.sum()), rel=1e-5), "the batch weighs what it did"
        np.testing.assert_allclose(targets.sum(1).numpy(), 1, atol=1e-6)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_equal_weights_change_no_bit(name: str) -> None:
    for step in range(30):
        _, plain = mixed(mix_of((name, 0.4)), step=step)
        for value in (1.0, 0.3):
            targets, weight = weighted(mix_of((name, 0.4)), torch.full((BATCH,), value), step)
            assert torch.equal(targets, plain)
            assert torch.equal(weight, torch.full((BATCH,), value))


def test_weight_0_contributes_nothing() -> None:
    _, y = batch()
    targets, weight = weighted(mix_of(("mixup", 1.0)), torch.tensor([1.0, 0.0, 0.0, *[1.0] * (BATCH - 3)]))
    assert targets[0].tolist() == [float(each == y[0]) for each in range(CLASSES)], "only its own class"
    assert targets[2].tolist() == [float(each == y[3]) for each in range(CLASSES)], "only its partner's class"
    assert 0 < float(weight[0]) < 1
    assert float(weight[0] + weight[2]) == pytest.approx(1), "the two ratios"
    assert float(weight[1]) == 0
    assert torch.isfinite(targets).all()
