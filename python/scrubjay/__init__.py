"""scrubjay removes chosen training samples from a trained network without retraining it.

* :func:`unlearn` removes samples from a model, :func:`estimate` tells what that takes, :func:`verify` compares the result with
  models retrained without them.
* :func:`apply_delta` and :func:`revert_delta` make one model of the other and a delta file, :func:`export` writes a graph.
* :func:`gradient`, :func:`hvp`, :func:`solve` and :func:`traces` measure a model.
* :func:`codec` and :func:`foci` measure dependence in tables and select columns, without a model;
  :class:`scrubjay.sklearn.FociSelector` does so in pipelines of scikit-learn.

PyTorch is needed only for its own modules and tensors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import _native
from ._codec import Codec, Foci, codec, foci
from ._errors import (
    ConfigError,
    DataError,
    DeviceError,
    FileError,
    Interrupted,
    ModelError,
    ScrubjayError,
    ScrubjayWarning,
    SolveError,
    UnsupportedModel,
)
from ._files import apply_delta, export, revert_delta
from ._measure import Solution, Traces, Verification, gradient, hvp, solve, traces, verify
from ._options import Options, Reading
from ._unlearn import Outcome, estimate, unlearn

__version__: str = _native.__version__

__all__ = [
    "Codec",
    "ConfigError",
    "DataError",
    "DeviceError",
    "FileError",
    "Foci",
    "Interrupted",
    "ModelError",
    "Options",
    "Outcome",
    "Reading",
    "ScrubjayError",
    "ScrubjayWarning",
    "Solution",
    "SolveError",
    "Traces",
    "UnsupportedModel",
    "Verification",
    "apply_delta",
    "codec",
    "digits",
    "estimate",
    "export",
    "foci",
    "gradient",
    "hvp",
    "revert_delta",
    "solve",
    "traces",
    "unlearn",
    "verify",
]


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The handwritten digits that ship with scrubjay: f32 ``[1797, 64]`` from 0 to 1, and labels ``[1797]``."""
    x, y = _native.digits()
    images = np.frombuffer(x, dtype=np.float32).reshape(-1, 64)
    return images, np.frombuffer(y, dtype=np.uint32).astype(np.int64)
