"""Conditional dependence and the selection of columns, without a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import _native
from ._device import opened
from ._errors import ConfigError, DataError, Interrupted
from ._options import as_json

Standardize = Literal["none", "scale", "bounded"]
Ties = Literal["mean", "first", "random"]
Measure = Literal["codec", "xi"]

#: A column by number, or by name where the table has names.
Column = int | str


@dataclass(frozen=True)
class Codec:
    """A value of T or ξ.

    Attributes:
        value: T(Y, Z | X) or ξ(Z, Y); None where it is 0/0: Y is constant, or X alone determines Y.
        p_value: the share of permutations that reach it, where ``permutations`` were asked for.
        interval: its lower and upper end, where a ``level`` was asked for.
        subsample: the rows of a subsample of the interval.
        rows: the rows of the table.
    """

    value: float | None
    p_value: float | None
    interval: tuple[float, float] | None
    subsample: int | None
    rows: int

    def __float__(self) -> float:
        return float("nan") if self.value is None else self.value


@dataclass(frozen=True)
class Foci:
    """What FOCI chose.

    Attributes:
        order: the columns in order of choice; a tuple of columns where they were chosen as a group.
        names: their names, ``a+b`` for a group.
        conditional: T(Y, column | those before it), by step.
        cumulative: T(Y, the columns so far), by step.
        stopped: ``not-positive``, ``undefined``, ``max-features``, ``exhausted`` or ``interrupted``.
        first_step: T(Y, column) of every column or group that could be chosen, by its name.
    """

    order: list[int | tuple[int, ...]]
    names: list[str]
    conditional: list[float | None]
    cumulative: list[float | None]
    stopped: str
    first_step: dict[str, float]


def columns(table: Any, what: str) -> tuple[NDArray[np.float64], list[str]]:
    """A table as f64 ``[n, p]``, and the names of its columns; a vector is one column."""
    frame = hasattr(table, "columns") and hasattr(table, "dtypes")
    if frame:
        names = [str(name) for name in table.columns]
        cells = [np.asarray(table[name]) for name in table.columns]
        wrong = next((name for name, column in zip(names, cells) if column.dtype.kind not in "biuf"), None)
        if wrong is not None:
            kind = cells[names.index(wrong)].dtype
            raise DataError(f"{what}: column `{wrong}` holds {kind}, not numbers; make categories numbers first")
        values = np.column_stack([column.astype(np.float64) for column in cells]) if cells else np.empty((len(table), 0))
    else:
        given = np.asarray(table)
        if given.dtype.kind not in "biuf":
            raise DataError(f"{what} holds {given.dtype}, not numbers")
        values = given.astype(np.float64)
        if values.ndim == 1:
            values = values[:, None]
        if values.ndim != 2:
            raise DataError(f"{what} has shape {given.shape}, where [n] or [n, p] was expected")
        name = getattr(table, "name", None)
        names = [str(name)] if name is not None and values.shape[1] == 1 else [str(j) for j in range(values.shape[1])]
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        i, j = bad[0]
        raise DataError(f"{what}: row {i} of column `{names[j]}` is {values[i, j]}, not a finite number")
    return np.ascontiguousarray(values), names


def number(column: Column, names: Sequence[str]) -> int:
    """The number of a column."""
    if isinstance(column, str):
        found = [j for j, name in enumerate(names) if name == column]
        if len(found) == 1:
            return found[0]
        listed = ", ".join(names[:20])
        raise ConfigError(f"{len(found) or 'no'} columns are named `{column}`; there are {listed}")
    if not 0 <= column < len(names):
        raise ConfigError(f"there is no column {column}, only {len(names)}")
    return int(column)


def codec(
    y: Any,
    z: Any,
    x: Any = None,
    *,
    measure: Measure = "codec",
    permutations: int | None = None,
    level: float | None = None,
    subsamples: int = 400,
    standardize: Standardize = "none",
    ties: Ties = "mean",
    draws: int = 1,
    noise: float = 0.0,
    seed: int = 0,
    device: str = "auto",
    threads: int = 0,
) -> Codec:
    """Measures how much Z tells about Y, given X: T(Y, Z | X) of Azadkia and Chatterjee.

    0 means that Z tells nothing about Y (given X), 1 that Y is a function of Z (and X).

    Args:
        y: one column of n numbers: an array, a series, a list.
        z: the columns whose information about Y is measured: ``[n]``, ``[n, p]`` or a data frame.
        x: the columns that are known already.
        measure: ``codec``, or ``xi`` for Chatterjee's ξ of one column.
        permutations: compute a p-value from this many permutations of Y.
        level: compute an interval of this level from subsamples.
        standardize: scale each column first; ``scale`` by its deviation, ``bounded`` to 0 to 1.
        ties: what counts where several rows are equally near: their ``mean``, the ``first``, or one at ``random``.
        draws: how many random choices to average.
        noise: the deviation of normal noise that is added to every column first (L-CODEC).
        seed: the seed of permutations, noise and random ties.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: host threads; 0 means one per core.

    Example:
        >>> import numpy as np, scrubjay
        >>> rng = np.random.default_rng(0)
        >>> a, b = rng.normal(size=(2, 500))
        >>> y = a * np.sign(b)
        >>> alone, given = scrubjay.codec(y, b), scrubjay.codec(y, b, a)
        >>> float(alone) < 0.1 and float(given) > 0.7
        True
    """
    parts = [columns(y, "y"), columns(z, "z")] if x is None else [columns(y, "y"), columns(x, "x"), columns(z, "z")]
    if parts[0][0].shape[1] != 1:
        raise ConfigError(f"y has {parts[0][0].shape[1]} columns, where one was expected")
    rows = {len(values) for values, _ in parts}
    if len(rows) != 1:
        raise ConfigError(f"y, z and x have {sorted(rows)} rows, where one number was expected")
    table = np.hstack([values for values, _ in parts])
    given = 0 if x is None else parts[1][0].shape[1]
    options = as_json(dict(measure=measure, standardize=standardize, ties=ties, draws=draws, noise=noise, seed=seed))
    value, p_value, interval, subsample = _native.codec(
        opened(device, threads), table, given, options, permutations, level, subsamples
    )
    return Codec(value, p_value, interval, subsample, len(table))


def foci(
    x: Any,
    y: Any,
    *,
    initial: Sequence[Column] = (),
    groups: Sequence[Sequence[Column]] = (),
    max_features: int | None = None,
    all: bool = False,
    standardize: Standardize = "none",
    ties: Ties = "mean",
    draws: int = 1,
    noise: float = 0.0,
    seed: int = 0,
    device: str = "auto",
    threads: int = 0,
) -> Foci:
    """Chooses the columns of X on which Y depends, best first (FOCI).

    The first is the column with the largest T; each next one has the largest T given those before it, until the largest T
    is not positive or undefined.

    Args:
        x: the table: ``[n, p]`` or a data frame, whose names are then taken.
        y: the column to be explained: an array, or the name of a column of x, which is then left out of x.
        initial: columns that are known from the start.
        groups: lists of columns that are chosen together; every other column is a candidate of its own.
        max_features: stop at this many.
        all: ignore the stopping rule, and order all columns.
        standardize, ties, draws, noise, seed, device, threads: as in :func:`codec`.

    Raises:
        Interrupted: on Ctrl-C; its ``result`` has the columns chosen until then.

    Example:
        >>> import numpy as np, scrubjay
        >>> x = np.random.default_rng(0).normal(size=(1000, 6))
        >>> found = scrubjay.foci(x, x[:, 4] * np.sign(x[:, 1]))
        >>> found.order[:2]
        [4, 1]
    """
    if isinstance(y, str):
        if not hasattr(x, "drop"):
            raise ConfigError("y is the name of a column, and x has no names")
        number(y, [str(name) for name in x.columns])
        x, y = x.drop(columns=[y]), x[y]
    (table, names), (target, _) = columns(x, "x"), columns(y, "y")
    if target.shape[1] != 1 or len(target) != len(table):
        raise ConfigError(f"y has shape {target.shape}, where [{len(table)}] was expected")
    known = [number(column, names) for column in initial]
    candidates = [[number(column, names) for column in group] for group in groups]
    taken = {column for group in candidates for column in group} | set(known)
    # Without groups, columns are candidates of their own, also known ones: these are not chosen.
    candidates += [[j] for j in range(len(names)) if j not in taken]
    plain = not known and not groups
    asked = as_json(dict(initial=known, groups=[] if plain else candidates, max_features=max_features, all=all))
    options = as_json(dict(standardize=standardize, ties=ties, draws=draws, noise=noise, seed=seed))
    text, interrupted = _native.foci(opened(device, threads), target[:, 0].copy(), table, asked, options)
    found = json.loads(text)
    label = ["+".join(names[j] for j in group) for group in candidates]
    chosen = [candidates[at] for at in found["order"]]
    result = Foci(
        order=[group[0] if len(group) == 1 else tuple(group) for group in chosen],
        names=[label[at] for at in found["order"]],
        conditional=found["conditional"],
        cumulative=found["cumulative"],
        stopped=found["stopped"],
        first_step=dict(zip(label, found["first_step"])),
    )
    if interrupted:
        raise Interrupted("interrupted; `result` has the columns chosen until then", result)
    return result
