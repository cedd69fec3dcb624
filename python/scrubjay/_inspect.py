"""What a model and a set of samples are, which devices there are, and how fast kernels run."""

from __future__ import annotations

import json
import os
from typing import Any, Literal, Unpack

from . import _native
from ._data import Samples, is_path
from ._device import opened
from ._errors import ConfigError
from ._models import as_model
from ._options import Reading, as_json, split
from ._progress import log
from ._texts import tokenised


class Inspection:
    """What ``scrubjay inspect`` tells; printed, it is the command's text.

    Attributes:
        report: the report of ``scrubjay inspect --json`` as a dictionary.
        family: the family that the model was taken for.
        tensors: what was read off its tensors, ``config`` what off its config, ``chosen`` what was given, ``assumed`` what
            nothing tells.
        layers: of every layer with units its name, units and parameters.
        data: of the samples number, shape, steps and classes; None without data.
    """

    def __init__(self, report: dict[str, Any], text: str) -> None:
        self.report = report
        self.family: str | None = report.get("family")
        self.tensors: list[str] = report.get("read_off_tensors", [])
        self.config: list[str] = report.get("read_off_config", [])
        self.chosen: list[str] = report.get("chosen", [])
        self.assumed: list[str] = report.get("assumed", [])
        self.layers: list[dict[str, Any]] = report.get("layers", [])
        self.data: dict[str, Any] | None = report.get("data")
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"<scrubjay.Inspection: {self.family or 'samples'}>"


def inspect(
    model: Any = None,
    data: Any = None,
    *,
    program: bool = False,
    precision: Literal["f32", "tf32", "bf16", "f16"] | None = None,
    image_out: str | os.PathLike[str] | None = None,
    index: int = 0,
    config: dict[str, Any] | None = None,
    **reading: Unpack[Reading],
) -> Inspection:
    """Tells what a model is, what was read and what assumed of it, and what a scrub needs; and what a set of samples holds.

    Args:
        model, data: as in :func:`scrubjay.unlearn`; either may be left out. A module needs data in memory.
        program: whether the text has the program of Hessian products too (the report always has it).
        precision: that of the pass over noisy copies; the program is then of that pass.
        image_out: a file that gets an image of ``data``, a path, as PNG, as it reaches the network before mean and std.
        index: which image.
        config, **reading: as in :func:`scrubjay.unlearn`.

    Example:
        >>> import scrubjay, torch
        >>> x, y = scrubjay.digits()
        >>> found = scrubjay.inspect(torch.nn.Linear(64, 10), (x, y))
        >>> found.layers[0]["units"], found.data["samples"]
        (10, 1797)
    """
    others, how = split(dict(reading))
    if others:
        raise ConfigError(f"unknown argument `{next(iter(others))}`")
    if model is None and data is None:
        raise ConfigError("model, data or both are inspected; none is given")
    if image_out is not None and not is_path(data):
        raise ConfigError("image_out is for data in files")
    if (program or precision is not None or config is not None) and model is None:
        raise ConfigError("program, precision and config are for a model")
    sets, how = tokenised({"data": data}, model, how)
    seen = Samples.of(sets["data"]) if data is not None and not is_path(data) else None
    report: dict[str, Any] = {}
    parts = []
    read = None
    if model is not None:
        if is_path(model):
            if config is not None:
                raise ConfigError("config is for modules; a file has its config.json beside it")
            read = _native.Model.open(model, as_json(how))
        elif seen is None and not isinstance(model, _native.Model) and not hasattr(model, "_model"):
            raise ConfigError("a module is read by its trace: data in memory are needed, a few samples are enough")
        else:
            read = as_model(model, how, seen, config)
        text, printed = read.inspect(precision)
        report = json.loads(text)
        parts.append(printed[program])
    if seen is not None:
        text, printed = seen.native.inspect()
        report["data"] = json.loads(text)
        parts.append(printed)
    elif data is not None:
        text, printed, notes = _native.inspect_data(data, as_json(how), read, image_out, index)
        for note in notes:
            log.info("%s: %s", data, note)
        report["data"] = json.loads(text)
        parts.append(printed)
    return Inspection(report, "\n".join(parts).removesuffix("\n"))


def devices() -> dict[str, Any]:
    """The devices of the machine, and why a GPU cannot be used: the report of ``scrubjay devices --json``.

    Example:
        >>> import scrubjay
        >>> scrubjay.devices()["cpu"]["threads"] > 0
        True
    """
    return json.loads(_native.devices())


def bench_cases() -> list[dict[str, Any]]:
    """The kernels and networks that :func:`bench` times: ``kernel``, ``about``, ``dtype``, and ``axes`` with default sizes.

    Example:
        >>> import scrubjay
        >>> scrubjay.bench_cases()[0]["kernel"]
        'copy'
    """
    return json.loads(_native.bench_cases())


def bench(kernel: str, *, device: str = "auto", threads: int = 0, **axes: int) -> dict[str, Any]:
    """Checks and times one kernel, as ``scrubjay bench``: a row of its JSON, with the ``ceilings`` that ``floor`` comes from;
    these are measured once for each device.

    Args:
        kernel: its name in :func:`bench_cases`.
        device: ``auto``, ``cpu``, ``cuda``, or GPUs by number: ``cuda:1``, or ``cuda:0,1`` for two that share the work.
        threads: host threads; 0 means one per core.
        **axes: sizes of its axes; those that are not given have their defaults.

    Example:
        >>> import scrubjay
        >>> row = scrubjay.bench("copy", len=4096, device="cpu", threads=2)
        >>> row["passes"], row["shape"], row["median"] > 0
        (True, 'len=4096', True)
    """
    known = {case["kernel"]: case["axes"] for case in bench_cases()}
    if kernel not in known:
        raise ConfigError(f"there is no case `{kernel}`; there are {', '.join(known)}")
    wrong = next((axis for axis in axes if axis not in known[kernel]), None)
    if wrong is not None:
        raise ConfigError(f"{kernel} has no axis `{wrong}`; it has {', '.join(known[kernel])}")
    return json.loads(_native.bench(opened(device, threads), kernel, axes))
