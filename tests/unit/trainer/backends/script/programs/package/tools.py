"""What the others share."""

from pathlib import Path

import torch

FILE = Path("state") / "newest.pt"


def batch(step):
    """Return the rows of a step."""
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
    return x, (x[:, :1] > 0).float()


def save(step, **parts):
    """Write parts, then give the file its name."""
    FILE.parent.mkdir(exist_ok=True)
    writing = FILE.with_suffix(".tmp")
    torch.save({**{name: part.state_dict() for name, part in parts.items()}, "step": step}, writing)
    writing.rename(FILE)


def load(**parts):
    """Return the step of the newest file, whose parts are loaded; 0 without one."""
    if not FILE.exists():
        return 0
    state = torch.load(FILE)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["step"]
