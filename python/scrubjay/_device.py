"""Where the work runs."""

from __future__ import annotations

from functools import lru_cache

from . import _native


@lru_cache(maxsize=8)
def opened(device: str, threads: int) -> _native.Device:
    """The device of a name (``auto``, ``cpu``, ``cuda``, or GPUs by number, as ``cuda:0,1``); opened once, with its threads."""
    return _native.Device(device, threads)
