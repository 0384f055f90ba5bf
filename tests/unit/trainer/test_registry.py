"""Registries: ours by where they are, others' as entry points, nothing imported before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from trainmaster_api.spec.model import MODELS as MODEL_NAMES
from trainmaster_api.spec.optimizer import OPTIMIZERS as OPTIMIZER_NAMES
from trainmaster_api.spec.part import Family
from trainmaster_api.spec.schedule import SCHEDULES as SCHEDULE_NAMES
from trainmaster_api.spec.task import LOSSES as LOSS_NAMES
from trainmaster_api.spec.task import TASK_METRICS as METRIC_NAMES
from trainmaster_api.spec.task import Task
from trainmaster_api.spec.training import Training
from trainmaster_api.types import Model
from trainmaster_trainer.backends import BACKENDS
from trainmaster_trainer.backends.torch.optim import OPTIMIZERS
from trainmaster_trainer.backends.torch.schedule import SCHEDULES
from trainmaster_trainer.data import SOURCES
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.models import MODELS
from trainmaster_trainer.references import USER_PACKAGES
from trainmaster_trainer.registry import Registry
from trainmaster_trainer.tasks import KINDS, LOSSES, METRICS_BY_NAME

OURS = [(MODELS, MODEL_NAMES), (OPTIMIZERS, OPTIMIZER_NAMES), (SCHEDULES, SCHEDULE_NAMES), (LOSSES, LOSS_NAMES),
        (METRICS_BY_NAME, METRIC_NAMES)]  # fmt: skip
EVERY = [MODELS, OPTIMIZERS, SCHEDULES, LOSSES, METRICS_BY_NAME, KINDS, SOURCES, BACKENDS]


@pytest.mark.parametrize(("registry", "family"), OURS, ids=lambda each: getattr(each, "kind", ""))
def test_contract_and_registry_have_the_same_names_and_groups(registry: Registry, family: Family) -> None:
    assert registry.names == family.names
    assert registry.group == family.group


# fields of the contract whose values are the names of a registry
FIELDS = [(BACKENDS, Training, "framework"), (KINDS, Task, "name")]


@pytest.mark.parametrize(("registry", "model", "field"), FIELDS, ids=lambda each: getattr(each, "kind", ""))
def test_contract_field_accepts_the_names_of_the_registry(registry: Registry, model: type[Model], field: str) -> None:
    assert registry.names == sorted(get_args(model.model_fields[field].annotation))


@pytest.mark.parametrize("registry", EVERY, ids=lambda each: each.kind)
def test_every_name_of_ours_has_a_factory(registry: Registry) -> None:
    assert registry.names
    for name in registry.names:
        assert registry.get(name, "here") is not None
        assert registry.is_shipped(name)


def test_registry_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ConfigurationError) as caught:
        MODELS.get("mlpp", "model.name")
    assert str(caught.value) == (
        f"model.name: unknown model 'mlpp'; known are {', '.join(MODEL_NAMES.names)}; did you mean `mlp`? "
        "A name with a / is an entry point trainmaster.models of an installed package"
    )


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with an entry point, as pip leaves it."""
    (tmp_path / "reg_pkg.py").write_text("def wide(outputs, width=3):\n    return ('wide', outputs, width)\n")
    info = tmp_path / "reg_pkg-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: reg-pkg\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[trainmaster.models]\nreg/wide = reg_pkg:wide\nreg/gone = reg_pkg:gone\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_an_entry_point_is_found_by_its_name(installed: Path) -> None:
    assert MODELS.get("reg/wide", "model.name")(10) == ("wide", 10, 3)  # type: ignore[call-arg, arg-type, comparison-overlap]
    assert not MODELS.is_shipped("reg/wide")
    assert "reg/wide" in MODELS.installed
    with pytest.raises(ConfigurationError, match=r"unknown model 'reg/wid'; .* did you mean `reg/wide`\?"):
        MODELS.get("reg/wid", "model.name")
    with pytest.raises(ConfigurationError, match="the entry point reg/gone = reg_pkg:gone can't be loaded"):
        MODELS.get("reg/gone", "model.name")
    assert "reg_pkg" in USER_PACKAGES, "what fails inside it is not ours"


def test_looking_at_names_imports_no_framework() -> None:
    code = (
        "import sys; from trainmaster_trainer.backends import BACKENDS;"
        "print(*BACKENDS.names, bool(BACKENDS.get('torch', '').warm_modules), 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["lightning", "script", "torch", "transformers", "True", "False"]
