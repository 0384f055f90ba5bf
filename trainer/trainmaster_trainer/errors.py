"""What can go wrong while training, as one exception with a class from the published list."""

from __future__ import annotations

from trainmaster_api.reasons import FailureClass


class TrainingError(Exception):
    """A failure whose cause is known; its message is for the user, without a stack trace.

    Attributes:
        failure_class: Entry of the published list; decides whether the attempt is retried.
        message: One or two sentences: what is wrong, with the value, and what would be accepted.
        last_lines: Where it happened in the user's code, and what that printed last; nearly always empty.
    """

    failure_class = FailureClass.INTERNAL_ERROR
    last_lines: list[str] = []  # replaced, never changed

    def __init__(self, message: str, failure_class: FailureClass | None = None) -> None:
        super().__init__(message, failure_class)  # both in args, so that the exception survives pickling
        self.message = message
        if failure_class is not None:
            self.failure_class = failure_class

    def __str__(self) -> str:
        return self.message


class ConfigurationError(TrainingError):
    """The specification can't be carried out on this data or machine."""

    failure_class = FailureClass.INVALID_CONFIGURATION


class DataError(TrainingError):
    """The data can't be read or doesn't match the specification."""

    failure_class = FailureClass.DATA_ERROR


class DataChanged(TrainingError):  # noqa: N818 - named like its failure class
    """The data is not the data that the run began with; nothing is trained on it."""

    failure_class = FailureClass.DATA_CHANGED


class CodeError(TrainingError):
    """The user's code didn't arrive: it isn't what the job says, or it isn't there."""

    failure_class = FailureClass.CODE_ERROR


class CodeUnavailable(TrainingError):  # noqa: N818 - named like its failure class
    """A repository or an index of packages doesn't respond."""

    failure_class = FailureClass.CODE_UNAVAILABLE


class UserCodeError(TrainingError):
    """The user's code doesn't do what the loop needs of it; no traceback would say it better."""

    failure_class = FailureClass.USER_CODE_ERROR


class NonFiniteLoss(TrainingError):  # noqa: N818 - named like its failure class
    """Loss or gradients became NaN or infinite."""

    failure_class = FailureClass.NON_FINITE_LOSS


class StorageUnavailable(TrainingError):  # noqa: N818 - named like its failure class
    """Storage didn't answer for longer than our patience."""

    failure_class = FailureClass.STORAGE_UNAVAILABLE


class StorageDenied(TrainingError):  # noqa: N818 - named like its failure class
    """Storage denied access: no such bucket, wrong credentials, no permission."""

    failure_class = FailureClass.STORAGE_DENIED


class PortTaken(ConnectionError):  # noqa: N818 - an event rather than an error
    """Another process listens on rank 0's port; a retry takes another port."""


class Fenced(TrainingError):  # noqa: N818 - an event more than an error
    """A newer attempt of the run writes now; this one must stop and must not write."""

    failure_class = FailureClass.CANCELLED
