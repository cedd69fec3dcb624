"""Measures of a model: gradients, products with the curvature, traces; and the comparison with retrained models."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from . import _native
from ._data import EVERY, Samples, array, indices, is_mask, is_path
from ._device import opened
from ._errors import ConfigError
from ._models import as_model
from ._options import Reading, as_json, split
from ._progress import log
from ._texts import tokenised
from ._unlearn import samples
from ._weights import write

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


def _rows(rows: Mapping[str, Any] | None, model: _native.Model) -> dict[str, list[int]]:
    """Rows of layers, by index."""
    units = {name: count for layer, weight, _, count in model.layers for name in (layer, weight)}
    chosen = {}
    for name, given in (rows or {}).items():
        listed = indices(given, units[name], f"rows: `{name}`") if name in units else [0]  # the library names what there is not
        if isinstance(listed, str):
            raise ConfigError(f"rows: `{name}`: indices or a mask were expected, not {listed!r}")
        chosen[name] = listed
    return chosen


def gradient(
    model: Any,
    data: Any,
    names: Sequence[str] = (),
    *,
    rows: Mapping[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    device: str = "auto",
    threads: int = 0,
    **reading: Unpack[Reading],
) -> Vector:
    """The gradient of the mean loss, by parameter, of a model in eval mode.

    Args:
        model, data: as in :func:`scrubjay.unlearn`.
        names: the parameters; by default the weights and biases of all linear and convolutional layers.
        rows: rows of layers, as in :func:`hvp`; without ``names``, of these layers alone.
        config, device, threads, **reading: as in :func:`scrubjay.unlearn`.

    Example:
        >>> import scrubjay, torch
        >>> x, y = scrubjay.digits()
        >>> net = torch.nn.Linear(64, 10)
        >>> scrubjay.gradient(net, (x[:100], y[:100]))["weight"].shape
        (10, 64)
    """
    read, few, _, _ = _read(model, data, config, reading)
    return _named(_native.gradient(opened(device, threads), read, few.native, set(names), _rows(rows, read)))


def hvp(
    model: Any,
    data: Any,
    v: Any,
    *,
    kind: Literal["hessian", "ggn", "fisher"] = "hessian",
    rows: Mapping[str, Any] | None = None,
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
        rows: of some layers only these rows of weight and bias, the command's units: a mapping from a layer (``fc1``) or its weight
            (``fc1.weight``) to indices or a mask. Values keep the shape of the parameter; on other rows those of ``v`` play no
            part, and the product is 0. Costs and memory are those of the rows.
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
    products = [_named(one) for one in _native.hvp(opened(device, threads), read, few.native, wide, kind, _rows(rows, read))]
    products = [{name: one[name] for name in asked} for one, asked in zip(products, wide)]
    return products[0] if isinstance(v, Mapping) else products


@dataclass(frozen=True)
class Solution:
    """What a solve came to.

    Attributes:
        x: the solution, over all parameters of the layers concerned, in f64.
        report: ``damping``, ``products`` that were spent, the ``residual`` |b - (H + damping) x| / |b|, ``converged``, and the most
            ``negative_curvature`` that was met.
    """

    x: Vector
    report: dict[str, Any]


def solve(
    model: Any,
    data: Any,
    b: Any = None,
    names: Sequence[str] = (),
    *,
    kind: Literal["hessian", "ggn", "fisher"] = "hessian",
    damping: float = 0.0,
    tolerance: float = 1e-5,
    products: int = 0,
    rows: Mapping[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    device: str = "auto",
    threads: int = 0,
    **reading: Unpack[Reading],
) -> Solution:
    """Solves (H + damping I) x = b by MINRES, which also solves indefinite systems.

    Args:
        model, data: as in :func:`scrubjay.unlearn`.
        b: a vector as ``v`` of :func:`hvp`; the system is on the layers whose parameters it names. By default the gradient: x
            is the Newton step.
        names: without ``b``, parameters of the layers that the system is on; by default all linear and convolutional layers.
        kind: as in :func:`hvp`.
        damping: a number of at least 0, added to the diagonal.
        tolerance: the relative residual at which the solver stops.
        products: that it may spend at most; 0 means ten per parameter, and 100 more. A solve that spends them is no error: the
            report says how far it came.
        rows: of some layers only these rows, as in :func:`hvp`; without ``b`` and ``names``, of these layers alone.
        config, device, threads, **reading: as in :func:`scrubjay.unlearn`.

    Example:
        >>> import scrubjay, torch
        >>> x, y = scrubjay.digits()
        >>> net = torch.nn.Linear(64, 10)
        >>> step = scrubjay.solve(net, (x[:100], y[:100]), kind="ggn", damping=0.1)
        >>> step.report["converged"], sorted(step.x)
        (True, ['bias', 'weight'])
    """
    if b is not None and (names or not isinstance(b, Mapping) or not b):
        raise ConfigError("b is a mapping from names of parameters to values, and names is for the gradient in its place")
    read, few, _, _ = _read(model, data, config, reading)
    right = None if b is None else {name: np.ascontiguousarray(array(values), dtype=np.float64) for name, values in b.items()}
    given = (set(names), right, kind, damping, tolerance, products, _rows(rows, read))
    x, report = _native.solve(opened(device, threads), read, few.native, *given)
    return Solution(_named(x), json.loads(report))


@dataclass(frozen=True)
class Scores:
    """How well a model does on labelled data.

    Attributes:
        n: how many samples there are.
        correct: of these, how many have all their labels predicted right.
        accuracy: their share.
        loss: the mean loss.
        classes: of each class (of several labels: of each label) how many are right, and of how many.
    """

    n: int
    correct: int
    accuracy: float
    loss: float
    classes: list[tuple[int, int]]


def evaluate(
    model: Any,
    data: Any,
    *,
    config: dict[str, Any] | None = None,
    device: str = "auto",
    threads: int = 0,
    **reading: Unpack[Reading],
) -> Scores:
    """Measures accuracy and loss of a model on labelled data, as ``scrubjay eval``.

    Args:
        model, data, config, device, threads, **reading: as in :func:`scrubjay.unlearn`.

    Example:
        >>> import scrubjay, torch
        >>> x, y = scrubjay.digits()
        >>> scores = scrubjay.evaluate(torch.nn.Linear(64, 10), (x[:100], y[:100]))
        >>> scores.n, scores.correct == sum(right for right, _ in scores.classes)
        (100, True)
    """
    read, few, _, _ = _read(model, data, config, reading)
    found = json.loads(_native.scores(opened(device, threads), read, few.native))
    classes = [(one["correct"], one["n"]) for one in found.pop("classes")]
    return Scores(**found, classes=classes)


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

    Example:
        >>> import scrubjay, torch
        >>> x, y = scrubjay.digits()
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
        >>> trace = scrubjay.traces(net, (x[:100], y[:100]))
        >>> trace.activations.shape, trace.units[16]
        ((100, 26), ('2', 0))
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
        notes: remarks on the models and the data.
        forget: the forgotten samples, by index.
        samples: of each of them index, label, the losses before, after and of the retrained models, and its rank.
        definitions: what each measure is, in a sentence.
        report: the report of ``scrubjay verify``, as a dictionary; in memory, paths and hashes are None.
    """

    before: dict[str, float | None]
    after: dict[str, float | None]
    references: list[dict[str, float | None]]
    retrained: dict[str, dict[str, float] | None]
    findings: list[dict[str, str]]
    remembered: bool
    notes: list[str]
    forget: list[int]
    samples: list[dict[str, Any]]
    definitions: dict[str, str]
    report: dict[str, Any] = field(repr=False)
    _page: str = field(repr=False)

    @classmethod
    def _of(cls, text: str, page: str) -> Verification:
        report = json.loads(text)
        return cls(
            before=report["before"]["measures"],
            after=report["after"]["measures"],
            references=[one["measures"] for one in report["references"]],
            forget=[one["index"] for one in report["samples"]],
            report=report,
            _page=page,
            **{name: report[name] for name in ("retrained", "findings", "remembered", "notes", "samples", "definitions")},
        )

    def save_report(self, path: str | os.PathLike[str]) -> None:
        """Writes the report as a page of HTML, which has its styles and charts in it: that of ``scrubjay verify``."""
        write(path, self._page)

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

    Where all models and data are files, and samples are named by indices or words, what ``train.json`` and ``report.json`` tell
    of them is checked too, as by ``scrubjay verify``.

    Args:
        before: the model before: a path or a module.
        after: the model after: a path, a module or an :class:`scrubjay.Outcome`.
        references: models trained without the samples; from three on likelihood ratios are computed.
        data, forget: the training data and the samples that were to be removed, as in :func:`scrubjay.unlearn`.
        test: data that no model has seen.
        retain: the retained samples to measure on; by default all others.
        config, device, threads, **reading: as in :func:`scrubjay.unlearn`.

    Raises:
        Interrupted: on Ctrl-C, after the model that is measured.
        ScrubjayError: for anything that is refused or fails.

    Example:
        >>> import scrubjay, torch
        >>> x, y = scrubjay.digits()
        >>> before, after, *retrained = (torch.nn.Linear(64, 10) for _ in range(5))  # they are not trained
        >>> found = scrubjay.verify(before, after, retrained, (x[:100], y[:100]), range(20), (x[100:200], y[100:200]))
        >>> len(found.references), len(found.samples), 0 <= found.after["auc"] <= 1
        (3, 20, True)
    """
    if not isinstance(references, (list, tuple)) or not references:
        raise ConfigError("references is a list of at least one model that was retrained without the samples")
    if test is None:
        raise ConfigError("test is data that no model has seen")
    files = {"before": before, "after": getattr(after, "folder", None) or after, "data": data, "test": test}
    where = opened(device, threads)
    if all(map(is_path, [*files.values(), *references])) and not any(map(is_mask, (forget, retain))):
        others, how = split(dict(reading))
        if others or config is not None:
            raise ConfigError(f"unknown argument `{next(iter(others))}`" if others else "config is for modules")
        chosen = indices(forget, EVERY, "forget")
        kept = None if retain is None else indices(retain, EVERY, "retain")
        paths = as_json(files | {"references": list(references)})
        text, page, notes = _native.compare_files(where, paths, as_json(how), chosen, kept)
        for note in notes:
            log.info("%s", note)
        return Verification._of(text, page)
    model, train, unseen, how = _read(before, data, config, reading, test)
    others = [as_model(one, how, train, config, "a model") for one in (after, *references)]
    chosen = indices(forget, len(train), "forget")
    kept = None if retain is None else indices(retain, len(train), "retain")
    text, page, _ = _native.compare(where, model, others[0], others[1:], train.native, unseen.native, chosen, kept)
    return Verification._of(text, page)
