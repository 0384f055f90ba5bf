"""What a benchmark hands back, and the JSON file that keeps it under ``.bench/``."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.proc import machine

ROOT = Path(__file__).parents[2]
STORE = ROOT / ".bench"


class UnavailableError(Exception):
    """The benchmark can't run here; the message says what it needs."""


@dataclass(frozen=True)
class Table:
    """One table of the page; cells are text as they are printed."""

    columns: list[str]
    rows: list[list[str]]
    title: str = ""


@dataclass(frozen=True)
class Bar:
    """Something that was promised, and whether it holds."""

    what: str
    limit: str
    measured: str
    passed: bool

    @property
    def verdict(self) -> str:
        """PASS or MISS."""
        return "PASS" if self.passed else "MISS"


@dataclass(frozen=True)
class Result:
    """Figures of one benchmark: tables for people, samples for whoever wants to compute again."""

    name: str
    title: str
    about: str
    """What is measured and how, in a paragraph."""
    tables: list[Table] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    samples: dict[str, Any] = field(default_factory=dict)
    """Raw figures by arm."""


@dataclass(frozen=True)
class Stamp:
    """Which code was measured, when, where and how thoroughly."""

    commit: str
    date: str
    machine: str
    repeats: int
    quick: bool


def stamp(repeats: int, quick: bool) -> Stamp:
    """The stamp of a run that ends now."""
    commit = _git("rev-parse", "--short=10", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return Stamp(f"{commit}, with local changes" if changed else commit, date, machine(), repeats, quick)


def store(result: Result, made: Stamp, folder: Path = STORE) -> Path:
    """Keep a result; a quick one never replaces a thorough one."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{result.name}{'.quick' if made.quick else ''}.json"
    path.write_text(json.dumps({"stamp": asdict(made), "result": asdict(result)}, indent=1) + "\n")
    return path


def _git(*args: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True, check=False)
    return done.stdout.strip() or ("unknown" if args[0] == "rev-parse" else "")
