"""CPU and memory from /proc."""

from __future__ import annotations

import os
import time

import pytest

from tests.bench import proc


def test_ticks_process_name_with_brackets() -> None:
    assert proc.parse_stat("12 (a) b (c)) S 1 12 12 0 -1 4194560 9 0 0 0 250 31 7 8 20 0 4 0 100 1 1") == 281


def test_peak_memory() -> None:
    assert proc.parse_peak("Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t    123 kB\nVmRSS:\t 100 kB\n") == 123 * 1024


def test_a_process_that_has_ended_has_no_peak() -> None:
    with pytest.raises(ValueError, match="VmHWM"):
        proc.parse_peak("Name:\tx\nState:\tZ (zombie)\n")


def test_own_cpu_time_grows_with_work() -> None:
    before, began = proc.cpu_seconds(os.getpid()), time.process_time()
    while time.process_time() - began < 0.1:
        sum(range(1000))
    assert proc.cpu_seconds(os.getpid()) - before >= 0.08
    assert proc.peak_bytes(os.getpid()) > 5 * 2**20


def test_the_machine_line_names_no_machine() -> None:
    assert "cores" in proc.machine()
    assert os.uname().nodename not in proc.machine()
