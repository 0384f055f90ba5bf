"""Everything that runs inside the pods or on the laptop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .recipe import Optimizers, Recipe

__all__ = ["Optimizers", "Recipe"]


def __getattr__(name: str) -> Any:
    """Return `Recipe` or `Optimizers`, imported when first needed: they import torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import recipe

    return getattr(recipe, name)
