"""What a rank of a laptop prints is shown, and kept with the run."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from trainmaster_trainer.cluster.process import Process
from trainmaster_trainer.driver.rank_output import collected
from trainmaster_trainer.storage.store import open_store

CODE = """
import sys
print("[Gloo] Rank 0 is connected to 1 peer ranks.")
print("features[0] [/mnt/x] :x:", file=sys.stderr)
print("\\x1b[31mred\\x1b[0m")
"""


def test_what_ranks_print_is_shown_and_kept(tmp_path: Path) -> None:
    shown = io.StringIO()
    run = open_store(str(tmp_path), None, "", {})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    console = Console(file=shown, highlight=False, soft_wrap=True, markup=False, emoji=False)
    with (
        tempfile.TemporaryDirectory(prefix="tm-") as scratch,
        collected(Path(scratch), environment, run, 2, console) as made,
    ):
        rank = Process((sys.executable, "-c", CODE), made, is_spare=False)
        rank.hand_over_output("rank 1")
        assert rank.wait_or_kill(30) == 0
        rank.close()
    assert sorted(shown.getvalue().splitlines()) == ["[rank 1] features[0] [/mnt/x] :x:", "[rank 1] red"]
    kept = (run.get("logs/a2/ranks.log") or b"").decode()
    assert kept.count("[rank 1] ") == 3
    assert "[Gloo]" in kept
