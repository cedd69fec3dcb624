"""Files into files: delta files, and models as graphs."""

from __future__ import annotations

import os
from typing import Unpack

from . import _native
from ._errors import ConfigError
from ._options import Reading, as_json, split

Path = str | os.PathLike[str]


def apply_delta(model: Path, delta: Path, out: Path) -> list[str]:
    """Writes to the folder ``out`` the model after that a delta file makes of the model before, byte for byte.

    ``unlearn(.., out=folder, delta_file="new")`` writes such a file, which holds the rows that changed and nothing else.

    Args:
        model: the files of the model before; another model is refused.
        delta: the delta file.
        out: a folder, which is made if need be; config files are copied beside the model.

    Returns:
        The files that were written.
    """
    return [os.fspath(path) for path in _native.take(model, delta, False, out)[0]]


def revert_delta(model: Path, delta: Path, out: Path) -> list[str]:
    """:func:`apply_delta` back again: the model before, of the model after and a delta file of ``delta_file="both"``."""
    return [os.fspath(path) for path in _native.take(model, delta, True, out)[0]]


def export(model: Path, out: Path, **reading: Unpack[Reading]) -> list[str]:
    """Writes a model's files as ``model.safetensors`` (f32) and a ``config.json`` that lists its network node by node.

    For modules, :meth:`Outcome.save` writes both.

    Args:
        model: a path.
        out: a folder, which is made if need be, and must have neither file.
        **reading: ``arch``, ``heads``, ``stem``, ``ignore`` and ``weights``, as in :func:`scrubjay.unlearn`.
    """
    others, how = split(dict(reading))
    if others:
        raise ConfigError(f"unknown argument `{next(iter(others))}`")
    return [os.fspath(path) for path in _native.export(model, out, as_json(how))]
