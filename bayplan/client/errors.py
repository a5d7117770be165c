"""What can go wrong for a caller, named by what the caller should do about it."""

from __future__ import annotations

from bayplan.transport.errors import Problem


class BayplanError(Exception):
    """Base of everything that the client raises. Its text is fit for a user."""


class NotFoundError(BayplanError):
    """No such thing: check the name and the namespace."""


class ConflictError(BayplanError):
    """Somebody else was faster, or it exists already: read again, then decide."""


class InvalidDocumentError(BayplanError):
    """The request must be corrected: `problems` says where, if the manager could tell."""

    def __init__(self, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class ForbiddenStateError(BayplanError):
    """The cluster's state forbids it for now; the text says what to do first."""


class AccessDeniedError(BayplanError):
    """The caller is not known, or may not do this."""


class ContextError(BayplanError):
    """It is not known which cluster is meant, or as whom: log in, or correct the configuration. The text says which."""


class UnavailableError(BayplanError):
    """Nobody could answer in time: try again later."""


class UnknownOutcomeError(UnavailableError):
    """The request was sent, its answer was lost: look before you repeat it."""


class ManagerFailedError(BayplanError):
    """A manager failed at its own work, or does not know the call: see its log, compare versions."""


class NotReadyError(BayplanError):
    """A workload did not become ready: its text says why, pod by pod."""
