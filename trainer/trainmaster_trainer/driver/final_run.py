"""The winner of a search, trained as the job itself."""

from __future__ import annotations

import json
import shutil

from trainmaster_api.layout import MODEL
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.tuning.space import axes_of, final_document
from trainmaster_api.validation.validate import format_problems

from trainmaster_trainer.checkpoint.protocol import remove_all
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.storage.runs import run_address
from trainmaster_trainer.storage.store import Store
from trainmaster_trainer.tuning.study import Study
from trainmaster_trainer.tuning.trials import FOLDER, NUMBER, RUN, VALUES, TrialRecord

from .trial_job import job_of

FINAL = f"{FOLDER}/final.json"


class FinalRun:
    """What becomes of the winner of a search that is over."""

    def __init__(self, settings: DriverSettings, job: TrainingJob, store: Store, study: Study) -> None:
        self._settings, self._job, self._store, self._study = settings, job, store, study

    def winner(self) -> tuple[TrialRecord, TrainingJob]:
        """Return the best trial, and the job that trains it at full size.

        Raises:
            ConfigurationError: No trial has come to an end.
        """
        best = self._study.best()
        if best is None:
            failed = [each for each in self._study.trials() if each.reason]
            why = f"; the first of them: {failed[0].reason}" if failed else ""
            raise ConfigurationError(f"no trial of the search was completed{why}")
        document = final_document(self._job, axes_of(self._job.spec), best.values)
        if self._study.has_rounds:  # its weights aren't those that these values give from the start
            trained = run_address(self._job, self._settings.storage_uri, best.run)
            document["spec"]["run"] = {**document["spec"].get("run", {}), "resumeFrom": trained}
        job, problems = job_of(document)
        if job is None:
            raise ConfigurationError(f"trial {best.number} can't be trained at full size: {format_problems(problems)}")
        return best, job

    def make_room(self, winner: TrialRecord) -> None:
        """Make room for the winner's run.

        Checkpoints and model of a former winner, from before the search was extended, are removed; so is the directory
        that its program ran in, where that is a copy of ours.
        """
        known = json.loads(self._store.get(FINAL) or b"{}")
        final = {NUMBER: winner.number, VALUES: winner.values}
        if self._study.has_rounds:
            final[RUN] = winner.run
        if known and any(known.get(key) != final.get(key) for key in (NUMBER, RUN)):
            self._store.delete_directory(MODEL)
            remove_all(self._store)
            work_dir = self._settings.work_dir
            if work_dir and self._job.spec.training.code is not None:
                shutil.rmtree(work_dir, ignore_errors=True)
        self._store.put(FINAL, json.dumps(final, indent=1).encode())
