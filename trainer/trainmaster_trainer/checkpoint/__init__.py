"""The checkpoint protocol: files, then the manifest, then the pointers; a checkpoint exists when its manifest does."""

from .manager import CheckpointManager, Policy, Snapshot
from .state import State

__all__ = ["CheckpointManager", "Policy", "Snapshot", "State"]
