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


def known() -> list[str]:
    """Names of the modules ``bench_<name>.py`` of this folder."""
    found = pkgutil.iter_modules(bench.__path__)
    return sorted(module.name.removeprefix(PREFIX) for module in found if module.name.startswith(PREFIX))


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for. Exit code 1: one of them failed or could not run; a missed bar is a result."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"by default all: {', '.join(known())}")
    parser.add_argument("--repeats", type=int, default=3, help="times that each arm runs, in turns (default 3)")
    parser.add_argument("--quick", action="store_true", help="once and small: shows that it works, proves nothing")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.name) - set(known()))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known())}")
    if args.repeats < 1:
        parser.error(f"--repeats {args.repeats}: at least 1")
    # as Ctrl-C does: beds and temporary folders are taken away on the way out
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    repeats = 1 if args.quick else args.repeats
    done: list[tuple[Result, Stamp]] = []
    missing = []
    for name in args.name or known():
        try:
            result: Result = importlib.import_module(f"tests.bench.{PREFIX}{name}").run(repeats, quick=args.quick)
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
