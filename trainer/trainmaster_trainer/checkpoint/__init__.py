"""The checkpoint protocol: files, then the manifest, then the pointers; a checkpoint exists when its manifest does."""

from .manager import CheckpointManager, Policy
from .state import State

__all__ = ["CheckpointManager", "Policy", "State"]
