"""Pure builders of the objects that the operator creates. They import no client and read no clock."""

from .head import head
from .resolve import resolve
from .secret import secret
from .service import service
from .worker import worker

__all__ = ["head", "resolve", "secret", "service", "worker"]
