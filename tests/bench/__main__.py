"""Run benchmarks, store their results, rewrite the page."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import signal
import sys
from collections.abc import Sequence

from testbed.errors import BedError
from tests import bench
from tests.bench import report
from tests.bench.result import ROOT, Result, Stamp, UnavailableError, stamp, store

PREFIX = "bench_"
ASKED_FOR = ("larger",)
"""Benchmarks that take so long, or so much disk, that they run only when they are named."""


def known() -> list[str]:
    """Names of the modules ``bench_<name>.py`` of this folder."""
    found = pkgutil.iter_modules(bench.__path__)
    return sorted(module.name.removeprefix(PREFIX) for module in found if module.name.startswith(PREFIX))


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for. Exit code 1: one of them failed or could not run; a missed bar is a result."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    default = [name for name in known() if name not in ASKED_FOR]
    parser.add_argument(
        "name", nargs="*",
        help=f"by default {', '.join(default)}; only by name, because of their time and disk: {', '.join(ASKED_FOR)}",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=3, help="times that each arm runs, in turns (default 3)")
    parser.add_argument("--quick", action="store_true", help="once and small: shows that it works, proves nothing")
    parser.add_argument("--gb", type=float, help="size of the table of larger (default 20, which takes 46 GB of disk)")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.name) - set(known()))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known())}")
    if args.gb is not None and (args.gb <= 0 or args.name != ["larger"]):
        parser.error(f"--gb {args.gb:g}: above 0, and for larger alone")
    if args.repeats < 1:
        parser.error(f"--repeats {args.repeats}: at least 1")
    # as Ctrl-C does: beds and temporary folders are taken away on the way out
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    repeats = 1 if args.quick else args.repeats
    done: list[tuple[Result, Stamp]] = []
    missing = []
    for name in args.name or default:
        try:
            more = {} if args.gb is None else {"gb": args.gb}
            module = importlib.import_module(f"tests.bench.{PREFIX}{name}")
            result: Result = module.run(repeats, quick=args.quick, **more)
        except (UnavailableError, BedError) as error:
            print(f"{name}: not measured: {error}", file=sys.stderr)
            missing.append(name)
            continue
        made = stamp(repeats, args.quick)
        path = store(result, made)
        done.append((result, made))
        # after each one: an hour of measuring must not be lost by what comes next
        report.write(done)
        print(report.terminal(result), f"\nsamples: {path.relative_to(ROOT)}", flush=True)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
