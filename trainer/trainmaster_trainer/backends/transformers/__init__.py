"""Hugging Face's Trainer: in an unchanged program of the user's, and for a model that the job names."""

from __future__ import annotations

from trainmaster_trainer.backends.script import ScriptBackend
from trainmaster_trainer.context import Context, Result


class TransformersBackend(ScriptBackend):
    """Runs `training.transformers`: process group and device are Transformers' affair, as they are a program's."""

    warm_modules = (*ScriptBackend.warm_modules, "transformers.trainer")

    def fit(self, context: Context) -> Result:
        """Train the model, and test it."""
        from .fit import fit

        return fit(context)


BACKEND = TransformersBackend()
