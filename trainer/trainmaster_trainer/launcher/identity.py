"""The input of a launcher: environment, resolved job, attempt, token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from trainmaster_api import names
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.cluster import commands


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """The container's input can't be carried out; the message is a sentence."""


@dataclass(frozen=True)
class Pod:
    """A pod, as its launcher knows it.

    The three directories can be moved by TRAINMASTER_RUN_DIR, TRAINMASTER_SCRATCH and TRAINMASTER_TERMINATION, so that
    a head and its workers can run on one machine without containers.
    """

    job: TrainingJob
    role: str
    attempt: int
    index: int
    ip: str
    name: str
    token: str
    run_dir: Path
    scratch: Path
    termination: Path
    environment: Mapping[str, str]
    code_dir: str = ""
    packages_dir: str = ""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Pod:
        """Read the environment and the mounted Secret.

        Raises:
            Refused: Something is missing, or the Secret belongs to another job.
        """
        run_dir = Path(environment.get("TRAINMASTER_RUN_DIR", names.RUN_DIR))
        needed = (names.ENV_ROLE, names.ENV_ATTEMPT, names.ENV_JOB_UID, names.ENV_POD_IP, names.ENV_POD_NAME)
        missing = [key for key in needed if not environment.get(key)]
        if missing:
            raise Refused(
                f"missing environment variables: {', '.join(missing)}; this container must be started by the operator"
            )
        try:
            job = TrainingJob.model_validate_json((run_dir / names.KEY_JOB).read_bytes())
            key = (run_dir / names.KEY_RAY).read_text().strip()
            owner = (run_dir / names.KEY_OWNER).read_text().strip()
        except OSError as error:
            raise Refused(f"{error.filename} can't be read ({error.strerror}): the Secret isn't mounted") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise Refused(f"annotation {names.ANNOTATION_JOB} is not a TrainingJob: {where}: {first['msg']}") from None
        if owner != environment[names.ENV_JOB_UID]:
            raise Refused(
                f"the Secret {names.run_secret(job.metadata.name)} belongs to another TrainingJob (uid "
                f"{owner}, expected {environment[names.ENV_JOB_UID]}); delete that Secret"
            )
        attempt = int(environment[names.ENV_ATTEMPT])
        return cls(
            job=job,
            role=environment[names.ENV_ROLE],
            attempt=attempt,
            index=int(environment.get(names.ENV_INDEX, "0")),
            ip=environment[names.ENV_POD_IP],
            name=environment[names.ENV_POD_NAME],
            token=names.ray_token(key, attempt),
            run_dir=run_dir,
            scratch=Path(environment.get("TRAINMASTER_SCRATCH", names.SCRATCH_DIR)),
            termination=termination_path(environment),
            environment=environment,
        )

    @property
    def token_file(self) -> Path:
        """File with the attempt's token."""
        return self.scratch / "ray-token"

    def child_environment(self) -> dict[str, str]:
        """Return the environment of every process that this launcher starts."""
        packages = {names.ENV_PACKAGES: self.packages_dir} if self.packages_dir else {}
        return commands.pod_environment(self.token_file, self.scratch, self.ip, self.environment) | packages


def termination_path(environment: Mapping[str, str]) -> Path:
    """Return the file from which the kubelet reads the termination message."""
    return Path(environment.get("TRAINMASTER_TERMINATION", names.TERMINATION_MESSAGE_PATH))
