"""What a user can get wrong, each told in one line by the command."""

from __future__ import annotations


class UsageError(ValueError):
    """Something in the request cannot be used; the message says what to write instead."""


class SpecError(UsageError):
    """An optimizer that cannot be read, made, or attached to the network."""


class TaskError(UsageError):
    """A task that cannot be imported or trained."""


class SettingsError(UsageError):
    """A setting out of its range."""


class OutputError(UsageError):
    """A directory that cannot be written to."""


class RunFileError(UsageError):
    """A file of statistics that cannot be read."""


class UnknownReferenceError(UsageError):
    """A ``module:name`` that leads nowhere."""


class MissingExtraError(UsageError):
    """An optional package is not installed."""

    def __init__(self, what: str, package: str) -> None:
        super().__init__(f'{what} needs {package}, which is not installed. Run: pip install "neon-optimizers[compare]"')
