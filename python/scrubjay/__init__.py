"""scrubjay removes chosen training samples from a trained network without retraining it.

* :func:`unlearn` removes samples from a model, :func:`estimate` tells what that takes, :func:`verify` compares the result with
  models retrained without them.
* :func:`apply_delta` and :func:`revert_delta` make one model of the other and a delta file, :func:`export` writes a graph.
* :func:`train` trains a model, as one that never saw some samples; :func:`evaluate` measures its accuracy; :func:`inspect` tells
  what a model and a set of samples are.
* :func:`gradient`, :func:`hvp`, :func:`solve` and :func:`traces` measure a model.
* :func:`codec`, :func:`foci` and :func:`foci_graph` measure dependence in tables and select columns, without a model;
  :func:`read_table` reads tables of files;
  :class:`scrubjay.sklearn.FociSelector` does so in pipelines of scikit-learn.
* :func:`devices` lists what can run here, :func:`bench` times kernels.

PyTorch is needed only for its own modules and tensors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import _native
from ._codec import Codec, DependenceGraph, Foci, Table, codec, foci, foci_graph, read_table
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
from ._inspect import Inspection, bench, bench_cases, devices, inspect
from ._measure import Scores, Solution, Traces, Verification, evaluate, gradient, hvp, solve, traces, verify
from ._options import Options, Reading, Recipe
from ._train import Trained, train
from ._unlearn import Outcome, estimate, unlearn

__version__: str = _native.__version__

__all__ = [
    "Codec",
    "ConfigError",
    "DataError",
    "DependenceGraph",
    "DeviceError",
    "FileError",
    "Foci",
    "Inspection",
    "Interrupted",
    "ModelError",
    "Options",
    "Outcome",
    "Reading",
    "Recipe",
    "Scores",
    "ScrubjayError",
    "ScrubjayWarning",
    "Solution",
    "SolveError",
    "Table",
    "Traces",
    "Trained",
    "UnsupportedModel",
    "Verification",
    "apply_delta",
    "bench",
    "bench_cases",
    "codec",
    "devices",
    "digits",
    "estimate",
    "evaluate",
    "export",
    "foci",
    "foci_graph",
    "gradient",
    "hvp",
    "inspect",
    "read_table",
    "revert_delta",
    "solve",
    "traces",
    "train",
    "unlearn",
    "verify",
]


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The handwritten digits that ship with scrubjay: f32 ``[1797, 64]`` from 0 to 1, and labels ``[1797]``."""
    x, y = _native.digits()
    images = np.frombuffer(x, dtype=np.float32).reshape(-1, 64)
    return images, np.frombuffer(y, dtype=np.uint32).astype(np.int64)
