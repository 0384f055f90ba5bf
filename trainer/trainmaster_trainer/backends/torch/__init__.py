"""Our own PyTorch loop. Imports no torch until it trains."""

from __future__ import annotations

from trainmaster_trainer.context import Context, Result


class TorchBackend:
    """The loop of `loop.py`."""

    # torch.distributed and DDP come with it
    warm_modules = (f"{__name__}.loop",)

    def fit(self, context: Context) -> Result:
        """Train on this rank."""
        from .loop import fit

        return fit(context)


BACKEND = TorchBackend()
