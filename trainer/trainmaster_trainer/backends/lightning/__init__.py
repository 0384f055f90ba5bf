"""A LightningModule of the user's own, trained by Lightning's Trainer; and what is done to Lightning in any program."""

from __future__ import annotations

from trainmaster_trainer.backends.script import ScriptBackend
from trainmaster_trainer.context import Context, Result


class LightningBackend(ScriptBackend):
    """Runs `training.lightning`: process group and device are Lightning's affair, as they are a program's."""

    warm_modules = (*ScriptBackend.warm_modules, "lightning.pytorch")

    def fit(self, context: Context) -> Result:
        """Fit the module, and test it where it can be tested."""
        from .fit import fit

        return fit(context)


BACKEND = LightningBackend()
