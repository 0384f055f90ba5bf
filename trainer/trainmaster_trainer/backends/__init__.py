"""Backends: what runs a job's training, one folder per framework.

A backend's package offers `BACKEND`, and imports its framework when it is asked to train and not before: reading a name
or a list of modules must not pay for it. What a framework can't do is a rule of the contract (validation/checks.py),
because a job is rejected where no backend is installed.
"""

from __future__ import annotations

from trainmaster_trainer.registry import Registry

from .base import Backend

__all__ = ["BACKENDS", "Backend"]

BACKENDS: Registry[Backend] = Registry("framework", __name__, "trainmaster.backends", "BACKEND")
