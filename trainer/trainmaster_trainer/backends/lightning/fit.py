"""A job with `training.lightning`: module, datamodule and Trainer from the spec; `fit`, and `test` where it can."""

from __future__ import annotations

import importlib
from typing import Any

from trainmaster_api.spec.own import Lightning, Script

from trainmaster_trainer.backends.script.fit import run_beside
from trainmaster_trainer.backends.script.session import Session
from trainmaster_trainer.context import Context, Result
from trainmaster_trainer.errors import ConfigurationError

from .arguments import PATH, build, check, trainer_arguments


def fit(context: Context) -> Result:
    """Train on this rank.

    Raises:
        ConfigurationError: The section doesn't fit the code or the Trainer.
    """
    lightning = context.job.spec.training.lightning
    assert lightning is not None
    return run_beside(context, Script.model_construct(), lambda session: _main(session, lightning))


def _main(session: Session, spec: Lightning) -> None:
    import lightning.pytorch as pl

    package: Any = check(spec)
    refusal = importlib.import_module(f"{package.__name__}.utilities.exceptions").MisconfigurationException
    # without it, what isn't torch's own would begin differently in every run
    pl.seed_everything(session.context.job.spec.training.loop.seed, workers=True, verbose=False)
    module = build(spec.module, f"{PATH}.module")
    data = build(spec.datamodule, f"{PATH}.datamodule") if spec.datamodule is not None else None
    given = trainer_arguments(spec.trainer, package)
    # a log isn't a terminal, and the job says how far it is
    defaults = {"default_root_dir": str(session.context.work_dir), "enable_progress_bar": False}
    try:
        trainer = package.Trainer(**{**defaults, **given})
    except (TypeError, ValueError, refusal) as error:
        raise ConfigurationError(f"{PATH}.trainer: {error}") from None
    try:
        trainer.fit(module, datamodule=data)
    except refusal as error:  # a module without a training_step, without data
        raise ConfigurationError(f"{PATH}: {error}") from None
    if session.context.is_trial:
        return  # the winner is tested
    holder = data if data is not None else module
    base = package.LightningDataModule if data is not None else package.LightningModule
    has_loader = type(holder).test_dataloader is not base.test_dataloader
    if has_loader and type(module).test_step is not package.LightningModule.test_step:
        for found in trainer.test(module, datamodule=data):
            session.test_metrics |= {_test_name(name): float(value) for name, value in found.items()}


def _test_name(name: str) -> str:
    return f"test/{name.removeprefix('test_').removeprefix('test/')}"
