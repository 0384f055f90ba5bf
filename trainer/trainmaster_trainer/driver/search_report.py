"""What a search leaves for people when it is over: pictures in `report/`, and its journal as one file."""

from __future__ import annotations

from trainmaster_api.layout import REPORT

from trainmaster_trainer.storage.store import Store
from trainmaster_trainer.tuning.findings import Findings
from trainmaster_trainer.tuning.journal import Journal
from trainmaster_trainer.tuning.pictures import pictures
from trainmaster_trainer.tuning.trials import WHOLE


def keep(run: Store, journal: Journal, found: Findings) -> None:
    """Store the pictures of a search and its journal as one file.

    Args:
        run: Store of the run.
        journal: Of the search.
        found: What is drawn. A picture that can't be drawn is left out, with a sentence in the log.
    """
    run.put(WHOLE, journal.whole())
    drawn, sentences = pictures(found)
    for name, content in drawn.items():
        run.put(f"{REPORT}/{name}", content)
    for sentence in sentences:
        print(sentence, flush=True)
