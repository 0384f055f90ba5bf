"""Pure builders of the objects that the operator creates. They import no client and read no clock."""

from .head import head
from .resolve import resolve, settings_problems
from .secret import secret
from .service import heads_service, is_heads_service
from .worker import worker

__all__ = ["head", "heads_service", "is_heads_service", "resolve", "secret", "settings_problems", "worker"]
