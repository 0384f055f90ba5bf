"""`python -m trainmaster_trainer.logs FILE`: the collector of a pod's output."""

from __future__ import annotations

import sys

from .collector import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
