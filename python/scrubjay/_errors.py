"""The exceptions of scrubjay.

All but :class:`Interrupted` are a :class:`ScrubjayError`, and each is also the exception of Python's own that comes nearest.
"""

from __future__ import annotations

from typing import Any


class ScrubjayError(Exception):
    """Anything that scrubjay refuses or fails at."""


class ConfigError(ScrubjayError, ValueError):
    """Arguments that mean nothing, contradict each other, or do not fit the data."""


class DataError(ScrubjayError, ValueError):
    """Data that cannot be read as samples or columns."""


class ModelError(ScrubjayError, ValueError):
    """A model that cannot be read."""


class UnsupportedModel(ModelError):
    """A module with a part that scrubjay does not have, or that computes something else than what it was taken for.

    ``path`` is the place of the part in the module, as ``layer1.0.conv1``, and ``kind`` its class; empty where it is the whole.
    """

    def __init__(self, message: str, path: str = "", kind: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.kind = kind


class DeviceError(ScrubjayError, RuntimeError):
    """A GPU that cannot be used, failed, or has too little memory."""


class SolveError(ScrubjayError, ArithmeticError):
    """A linear system that was not solved."""


class FileError(ScrubjayError, OSError):
    """A file that the operating system refused."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended the work; what was done until then is in ``result``.

    ``result`` is an :class:`scrubjay.Outcome` or a :class:`scrubjay.Foci`; none where the work was carried out into a folder,
    from which the same call goes on.
    """

    def __init__(self, message: str = "interrupted", result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class ScrubjayWarning(UserWarning):
    """What the user should know of the data, the model or the request."""
