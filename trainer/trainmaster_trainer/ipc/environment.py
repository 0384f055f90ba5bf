"""Environment variables by which an agent tells a process what to warm up for. The standard library only."""

from __future__ import annotations

ENV_SPARE = "TRAINMASTER_SPARE"
"""Set for a process which warms up beside a rank that trains."""

ENV_FRAMEWORK = "TRAINMASTER_FRAMEWORK"
"""Names the backend to import; also set in the processes of Ray that become agents, and in no others of Ray's."""
