"""Benchmarks: ``python -m tests.bench [NAME...] [--repeats N] [--quick]``.

A benchmark is a module ``bench_<name>.py`` with ``run(repeats: int, *, quick: bool) -> Result``. Whatever it compares
it measures in the same run, in turns; a figure of another day is no yardstick on a machine that others use too.
"""
