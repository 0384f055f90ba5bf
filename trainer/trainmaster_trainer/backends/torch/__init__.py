"""Our own PyTorch loop. Imports no torch until it trains."""

from __future__ import annotations

from trainmaster_trainer.backends.base import Capabilities
from trainmaster_trainer.context import Context, Result


class TorchBackend:
    """The loop of `loop.py`."""

    capabilities = Capabilities(is_resumable=True, is_distributed=True, has_early_stopping=True, exports_onnx=False)
    # torch.distributed and DDP come with it
    warm_modules = (f"{__name__}.loop",)

    def fit(self, context: Context) -> Result:
        """Train on this rank."""
        from .loop import fit

        return fit(context)


BACKEND = TorchBackend()
