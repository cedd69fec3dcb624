"""Measures of a model: gradients, products with the curvature, traces; and the comparison with retrained models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from . import _native
from ._data import Samples, array, indices, is_path
from ._device import opened
from ._errors import ConfigError
from ._models import as_model
from ._options import Reading, split
from ._texts import tokenised
from ._unlearn import samples

#: A vector over parameters, by their names.
Vector = dict[str, NDArray[np.float64]]


def _read(
    model: Any, data: Any, config: dict[str, Any] | None, reading: Any, test: Any = None
) -> tuple[_native.Model, Samples, Samples | None, dict[str, Any]]:
    """A model, its data and test data, and how files are read."""
    others, how = split(dict(reading))
    if others:
        raise ConfigError(f"unknown argument `{next(iter(others))}`")
    sets, how = tokenised({"data": data, "test": test}, model, how)
    train = samples(sets["data"], model, how, "data")
    read = as_model(model, how, train, config)
    unseen = None if test is None else samples(sets["test"], read if is_path(model) else model, how, "test")
    return read, train, unseen, how


def _named(vector: list[tuple[str, list[int], bytearray]]) -> Vector:
    return {name: np.frombuffer(values, dtype=np.float64).reshape(sides) for name, sides, values in vector}


def gradient(
    model: Any,
    data: Any,
    names: Sequence[str] = (),
    *,
    config: dict[str, Any] | None = None,
    device: str = "auto",
    threads: int = 0,
    **reading: Unpack[Reading],
) -> Vector:
    """The gradient of the mean loss, by parameter, of a model in eval mode.

    Args:
        model, data: as in :func:`scrubjay.unlearn`.
        names: the parameters; by default the weights and biases of all linear and convolutional layers.
        config, device, threads, **reading: as in :func:`scrubjay.unlearn`.
    """
    read, few, _, _ = _read(model, data, config, reading)
    return _named(_native.gradient(opened(device, threads), read, few.native, set(names)))


def hvp(
    model: Any,
    data: Any,
    v: Any,
    *,
    kind: Literal["hessian", "ggn", "fisher"] = "hessian",
    config: dict[str, Any] | None = None,
    device: str = "auto",
    threads: int = 0,
    **reading: Unpack[Reading],
) -> Any:
    """Products Hv of the curvature of the mean loss with vectors, exact to rounding.

    Args:
        model, data: as in :func:`scrubjay.unlearn`.
        v: a vector as a mapping from names of parameters to values of their shapes, or a list of such. It may name weights and
            biases of some layers alone: then it is 0 on all others, and so are they left out of the result.
        kind: the exact ``hessian``, Gauss-Newton (``ggn``) or the empirical ``fisher``.
        config, device, threads, **reading: as in :func:`scrubjay.unlearn`.

    Returns:
        Hv in the form of ``v``, in f64.

    Example:
        >>> import numpy as np, scrubjay, torch
        >>> x, y = scrubjay.digits()
        >>> net = torch.nn.Linear(64, 10)
        >>> v = {name: np.ones(tuple(p.shape)) for name, p in net.named_parameters()}
        >>> product = scrubjay.hvp(net, (x[:100], y[:100]), v)
        >>> sorted(product)
        ['bias', 'weight']
    """
    vectors = [v] if isinstance(v, Mapping) else list(v)
    if not vectors or not all(isinstance(one, Mapping) and one for one in vectors):
        raise ConfigError("v is a mapping from names of parameters to values, or a list of such")
    read, few, _, _ = _read(model, data, config, reading)
    wide = [{name: np.ascontiguousarray(array(values), dtype=np.float64) for name, values in one.items()} for one in vectors]
    products = [_named(one) for one in _native.hvp(opened(device, threads), read, few.native, wide, kind)]
    products = [{name: one[name] for name in asked} for one, asked in zip(products, wide)]
    return products[0] if isinstance(v, Mapping) else products


@dataclass(frozen=True)
class Traces:
    """What every unit does, and what it costs.

    Attributes:
        activations: ``[m, d]``: a unit's own output, before norm and activation, averaged over pixels or tokens.
        losses: ``[m]``.
        logits: ``[m, classes]``; empty for noisy copies.
        units: of each of the d columns the layer's name and the row in it.
    """

    activations: NDArray[np.float32]
    losses: NDArray[np.float32]
    logits: NDArray[np.float32]
    units: list[tuple[str, int]]


def traces(
    model: Any,
    data: Any,
    *,
    copies: int = 0,
    sigma: float | None = None,
    replace: int | None = None,
    precision: Literal["f32", "tf32", "bf16", "f16"] | None = None,
    seed: int = 0,
    config: dict[str, Any] | None = None,
    device: str = "auto",
    threads: int = 0,
    **reading: Unpack[Reading],
) -> Traces:
    """Activations of every unit, losses and logits of samples, or of noisy copies of them.

    Args:
        model, data: as in :func:`scrubjay.unlearn`.
        copies: observe this many noisy copies: the mean over the samples of each copy's losses and activations.
        sigma: of images, the deviation of the noise; by default 0.1.
        replace: of texts, how many tokens of each copy are replaced; by default 1.
        precision: of the passes over copies; below f32 on CUDA only.
        seed: of the noise.
        config, device, threads, **reading: as in :func:`scrubjay.unlearn`.
    """
    read, few, _, _ = _read(model, data, config, reading)
    (a, b, c), m, d = _native.traces(opened(device, threads), read, few.native, copies, sigma, replace, seed, precision)
    values = [np.frombuffer(part, dtype=np.float32) for part in (a, b, c)]
    units = [(name, row) for name, _, _, rows in read.layers for row in range(rows)]
    return Traces(values[0].reshape(m, d), values[1], values[2].reshape(-1, read.classes), units)


@dataclass(frozen=True)
class Verification:
    """A model before and after, beside models that were retrained without the samples (docs/REPORT.md).

    Attributes:
        before, after: every measure of the model, by name.
        references: those of each retrained model, against the others.
        retrained: their mean and deviation, by measure.
        findings: what is wrong with the model after: ``flag``, ``measure`` and ``text``; empty where it cannot be told from a
            retrained one.
        remembered: whether the model before remembers the samples, by the same rules.
        samples: of every forgotten sample the losses before, after and of the retrained models, and its rank.
        definitions: what each measure is, in a sentence.
    """

    before: dict[str, float | None]
    after: dict[str, float | None]
    references: list[dict[str, float | None]]
    retrained: dict[str, dict[str, float] | None]
    findings: list[dict[str, str]]
    remembered: bool
    forget: list[int]
    samples: list[dict[str, Any]]
    definitions: dict[str, str]

    def __str__(self) -> str:
        def shown(value: Any) -> str:
            return "-" if value is None else f"{value:.4f}"

        lines = [f"{'':<22}{'before':>10}{'after':>10}{'retrained':>12}"]
        for name, value in self.after.items():
            if value is not None:
                mean = (self.retrained[name] or {}).get("mean")
                lines.append(f"{name:<22}{shown(self.before[name]):>10}{shown(value):>10}{shown(mean):>12}")
        lines += [f"{finding['flag']}: {finding['text']}" for finding in self.findings] or ["no flag"]
        return "\n".join(lines)


def verify(
    before: Any,
    after: Any,
    references: Sequence[Any],
    data: Any,
    forget: Any,
    test: Any,
    *,
    retain: Any = None,
    config: dict[str, Any] | None = None,
    device: str = "auto",
    threads: int = 0,
    **reading: Unpack[Reading],
) -> Verification:
    """Compares a model before and after unlearning with models that were retrained without the samples.

    Args:
        before: the model before: a path or a module.
        after: the model after: a path, a module or an :class:`scrubjay.Outcome`.
        references: models trained without the samples; from three on likelihood ratios are computed.
        data, forget: the training data and the samples that were to be removed, as in :func:`scrubjay.unlearn`.
        test: data that no model has seen.
        retain: the retained samples to measure on; by default all others.
        config, device, threads, **reading: as in :func:`scrubjay.unlearn`.
    """
    if not isinstance(references, (list, tuple)) or not references:
        raise ConfigError("references is a list of at least one model that was retrained without the samples")
    if test is None:
        raise ConfigError("test is data that no model has seen")
    model, train, unseen, how = _read(before, data, config, reading, test)
    others = [as_model(one, how, train, config, "a model") for one in (after, *references)]
    chosen = indices(forget, len(train), "forget")
    kept = None if retain is None else indices(retain, len(train), "retain")
    text = _native.compare(
        opened(device, threads), model, others[0], others[1:], train.native, unseen.native, chosen, kept
    )
    return Verification(**json.loads(text))
