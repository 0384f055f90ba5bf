"""Packages that a command needs in addition to the base installation, checked before anything is imported."""

from __future__ import annotations

from importlib.util import find_spec

from .errors import UserError

# modules that stand for an extra of pyproject.toml; a test compares them with what is imported
_TRAINER = ("torch", "ray", "obstore", "rich", "numpy", "pyarrow", "pandas", "sklearn", "safetensors", "PIL")
_CLUSTER = ("kubernetes", "rich", "obstore", "pathspec")
_PACKAGE = "trainmaster"


def require_trainer(command: str) -> None:
    """Raise UserError if something that training, or reading its data, needs is not installed."""
    _require(f"trainmaster {command}", "trainer", ("trainmaster_trainer", *_TRAINER))


def require_cluster(command: str) -> None:
    """Raise UserError if something that a command on a cluster needs is not installed."""
    _require(f"trainmaster {command}", "cli", _CLUSTER)


def require_operator() -> None:
    """Raise UserError if the operator's package is not installed."""
    _require("trainmaster render", "operator", ("trainmaster_operator",))


def _require(command: str, extra: str, modules: tuple[str, ...]) -> None:
    missing = [name for name in modules if not _is_installed(name)]
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UserError(
            f"`{command}` needs packages that are not installed ({some}): pip install '{_PACKAGE}[{extra}]', "
            f"or `pip install '.[{extra}]'` in a checkout"
        )


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False
