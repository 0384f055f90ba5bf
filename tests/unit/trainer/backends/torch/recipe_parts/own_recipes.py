"""Recipes of a user's."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset, TensorDataset
from trainmaster import Optimizers, Recipe


def points(rows: int, start: int = 0) -> TensorDataset:
    dice = torch.Generator().manual_seed(start)
    x = torch.randn(rows, 6, generator=dice)
    return TensorDataset(x, (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 0.5))


def net(dropout: float = 0.0, norm: bool = False) -> nn.Sequential:
    middle = nn.BatchNorm1d(16) if norm else nn.Identity()
    return nn.Sequential(nn.Linear(6, 16), middle, nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3))


def mean_loss(model: nn.Module, batch: list[Tensor]) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1])


def accuracy(model: nn.Module, batch: list[Tensor]) -> dict[str, Any]:
    return {"accuracy": ((model(batch[0]).argmax(1) == batch[1]).sum(), len(batch[1]))}


def classifier(dropout: float = 0.0, norm: bool = False, validated: bool = True, **fields: Any) -> Recipe:
    held = {"validation": points(50, 1), "test": points(50, 2)} if validated else {}
    return Recipe(
        net(dropout, norm), mean_loss, points(120), metrics=accuracy, higher_is_better={"accuracy": True},
        **held, **fields,
    )  # fmt: skip


def averaged() -> Recipe:
    recipe = classifier(0.1, norm=True)
    ema = AveragedModel(recipe.model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.SGD(recipe.model.parameters(), lr=0.05, momentum=0.9)
    optimizer.register_step_post_hook(lambda *_: ema.update_parameters(recipe.model))

    def loss(model: nn.Module, batch: list[Tensor]) -> Tensor:  # the average teaches, so what it is matters
        output = model(batch[0])
        return cross_entropy(output, batch[1]) + 0.1 * (output - ema.module(batch[0]).detach()).pow(2).mean()

    recipe.loss, recipe.optimizer, recipe.state = loss, optimizer, {"ema": ema}
    return recipe


class Sequences(Dataset[Any]):
    """Sequences of 1 to 9 numbers, the next of which is to be predicted."""

    def __init__(self, rows: int, start: int) -> None:
        dice = torch.Generator().manual_seed(start)
        self.lengths = torch.randint(2, 10, (rows,), generator=dice).tolist()
        self.values = [torch.randn(length, generator=dice).cumsum(0) for length in self.lengths]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> Tensor:
        return self.values[row]


def padded(samples: list[Tensor]) -> dict[str, Tensor]:
    x = nn.utils.rnn.pad_sequence(samples, batch_first=True)
    lengths = torch.tensor([len(sample) for sample in samples])
    return {"x": x, "valid": torch.arange(x.shape[1] - 1)[None] < (lengths - 1)[:, None]}


class Next(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRU(1, 8, batch_first=True), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x[..., None])[0]).squeeze(2)


def counted(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    errors = (model(batch["x"][:, :-1]) - batch["x"][:, 1:]) ** 2 * batch["valid"]
    return errors.sum(), batch["valid"].sum()


def sequences(plain: bool = False) -> Recipe:
    if plain:
        torch.manual_seed(7)
    recipe = Recipe(Next(), counted, Sequences(96, 0), Sequences(31, 1), Sequences(30, 2), collate=padded)
    if plain:  # what a few lines of PyTorch do, too
        recipe.optimizer, recipe.schedule = (lambda parameters: torch.optim.SGD(parameters, lr=0.1)), (lambda step: 1.0)
    return recipe


def weighted() -> Recipe:
    recipe = classifier(0.1)
    recipe.sampling_weights = [1.0 + 4.0 * (int(y) == 2) for _, y in points(120)]
    return recipe


class Gan(nn.Module):
    """Generator and discriminator in one model: its forward returns the losses of both."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 6))
        self.discriminator = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, real: Tensor) -> Tensor:
        fake = self.generator(torch.randn(len(real), 2, device=real.device))
        ones = torch.ones(len(real), 1, device=real.device)
        said = self.discriminator(torch.cat([real, fake.detach()]))
        judged = binary_cross_entropy_with_logits(said, torch.cat([ones, ones * 0]))
        # through a copy of the discriminator that gets no gradients
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fooled = torch.func.functional_call(self.discriminator, frozen, fake)
        return judged + binary_cross_entropy_with_logits(fooled, ones)


def gan() -> Recipe:
    model = Gan()
    both = Optimizers(
        torch.optim.Adam(model.generator.parameters(), lr=0.002, betas=(0.5, 0.99)),
        torch.optim.SGD(model.discriminator.parameters(), lr=0.01, momentum=0.5),
    )
    return Recipe(model, lambda model, batch: model(batch[0]), points(96), validation=points(20, 1), optimizer=both)


# -- what no checkpoint has -------------------------------------------------------------------------------------------
class Cached(nn.Module):
    """Keeps what it computed last, and computes with it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = net(), None

    def forward(self, x: Tensor) -> Tensor:
        found = self.body(x)
        blended = found if self.last is None else found + 0.1 * self.last
        self.last = found.detach().mean(0)
        return blended


class Counting(nn.Module):
    """Keeps a number, and computes with it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(net(), nn.Identity())
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return self.body(x) / self.seen


class Remembering(nn.Module):
    """Keeps its last outputs, which change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.outputs = net(), deque[Tensor](maxlen=3)

    def forward(self, x: Tensor) -> Tensor:
        self.outputs.append(self.body(x).detach())
        return self.body(x)


def cached(sets: bool = False) -> Recipe:
    recipe = classifier()
    recipe.model = nn.Sequential(nn.Identity(), Cached())
    if sets:
        recipe.model.resumes_exactly = False
    return recipe


def counting() -> Recipe:
    recipe = classifier()
    recipe.model = Counting()
    return recipe


def remembering() -> Recipe:
    recipe = classifier()
    recipe.model = Remembering()
    return recipe


def closure() -> Recipe:
    recipe = classifier()
    center = torch.zeros(3)

    def loss(model: nn.Module, batch: list[Tensor]) -> Tensor:
        nonlocal center
        output = model(batch[0])
        center = 0.5 * center + 0.5 * output.detach().mean(0)
        return cross_entropy(output - center, batch[1])

    recipe.loss = loss
    return recipe


# -- mistakes ---------------------------------------------------------------------------------------------------------
def broken(**fields: Any) -> Recipe:
    recipe = classifier()
    for name, value in fields.items():
        setattr(recipe, name, WRONG.get(value, value))
    return recipe


def no_recipe() -> dict[str, int]:
    return {}


OUTSIDE = net()
WRONG: dict[Any, Any] = {
    "empty": [],
    "generator": iter([1, 2]),
    "per sample": lambda model, batch: cross_entropy(model(batch[0]), batch[1], reduction="none"),
    "a number": lambda model, batch: float(mean_loss(model, batch)),
    "three": lambda model, batch: (mean_loss(model, batch), 1, 2),
    "text as count": lambda model, batch: (mean_loss(model, batch), "2"),
    "detached": lambda model, batch: mean_loss(model, batch).detach(),
    "outside": lambda model, batch: mean_loss(OUTSIDE, batch),
    "list": lambda model, batch: [1],
    "other names": lambda model, batch: {"acc": (1, 2)},
    "no pair": lambda model, batch: {"accuracy": 0.5},
    "ragged": [torch.zeros(1 + row % 2) for row in range(64)],
    "frozen": nn.Identity(),
    "strangers": torch.optim.SGD(OUTSIDE.parameters(), lr=0.1),
    "no optimizer": lambda parameters: 3,
    "stateless": {"ema": 3},
}
