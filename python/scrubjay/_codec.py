"""Conditional dependence and the selection of columns, without a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import _native
from ._device import opened
from ._errors import ConfigError, DataError, Interrupted
from ._options import as_json
from ._weights import write

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

    def plot(self) -> str:
        """T by step as the text of an SVG file: that of ``scrubjay foci --plot``."""
        found = {"order": list(range(len(self.names))), "stopped": self.stopped}
        found |= {"conditional": self.conditional, "cumulative": self.cumulative}
        return _native.plot(self.names, as_json(found))

    def save_plot(self, path: str | PathLike[str]) -> None:
        """Writes the chart to a file."""
        write(path, self.plot())


@dataclass(frozen=True)
class DependenceGraph:
    """The Markov blanket of every column.

    Attributes:
        names: the columns.
        blankets: what FOCI of each column on all others chose; None for a column that was not looked at, because the search was
            interrupted.
        edges: pairs of columns of which one is in the other's blanket, and whether both are.
        dot: the graph in the language of Graphviz: that of ``scrubjay foci --graph --dot``.
    """

    names: list[str]
    blankets: list[Foci | None]
    edges: list[tuple[int, int, bool]]
    dot: str


class Table:
    """Columns of numbers that were read of a file.

    Attributes:
        names: the columns of the file, in the order asked for.
        values: f64 ``[n, p]``.
        spans: of each name its columns of ``values``: several where a column of categories became one for each.
        omitted: how many rows were left out because a value is missing.
        note: how the text of the file was read; None of other files.
    """

    def __init__(
        self, names: list[str], values: NDArray[np.float64], spans: list[list[int]], omitted: int = 0, note: str | None = None
    ) -> None:
        self.names, self.values, self.spans, self.omitted, self.note = names, values, spans, omitted, note

    @property
    def columns(self) -> list[str]:
        """The names, as a data frame calls them."""
        return self.names

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, name: Column | Sequence[Column]) -> NDArray[np.float64]:
        """Columns by name or number: ``[n]`` of one, ``[n, k]`` of a list."""
        if isinstance(name, (str, int)):
            found = self.values[:, self.spans[number(name, self.names)]]
            return found[:, 0] if found.shape[1] == 1 else found
        return self.values[:, [j for one in name for j in self.spans[number(one, self.names)]]]

    def drop(self, columns: Sequence[Column]) -> Table:
        """The table without some columns."""
        gone = {number(name, self.names) for name in columns}
        left = [i for i in range(len(self.names)) if i not in gone]
        kept, spans = [j for i in left for j in self.spans[i]], []
        for i in left:
            start = sum(map(len, spans))
            spans.append(list(range(start, start + len(self.spans[i]))))
        return Table([self.names[i] for i in left], self.values[:, kept], spans, self.omitted, self.note)

    def __repr__(self) -> str:
        return f"<scrubjay.Table: {len(self)} rows, columns {', '.join(self.names[:20])}>"


def read_table(
    path: str | PathLike[str],
    columns: str | Sequence[Column] | None = None,
    *,
    categorical: str | Sequence[str] = (),
    missing: Literal["raise", "omit"] = "raise",
    na: str | Sequence[str] = (),
    header: Literal["auto", "yes", "no"] = "auto",
    delimiter: str | None = None,
    decimal: Literal[".", ","] | None = None,
) -> Table:
    """Reads columns of a table as ``scrubjay foci`` does: .csv, .tsv, .arff, .npy, .npz, .safetensors (docs/DATA.md).

    Args:
        path: the file.
        columns: names, numbers from 0, or words as ``age,3,7-9``; by default all, and then the target ``Y``, where the file has one.
        categorical: columns of categories: ``school`` becomes their numbers, ``school:onehot`` a column for each.
        missing: rows that lack a value in one of the columns are an error (``raise``) or left out (``omit``).
        na: further words for a missing value.
        header: whether the first line has names.
        delimiter: what separates cells, one character or ``tab``; by default found.
        decimal: the decimal mark; by default found.

    Example:
        >>> import pathlib, scrubjay, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "t.csv"
        >>> _ = path.write_text("a;b\\n1,5;2\\n2,5;3\\n4;?\\n")
        >>> table = scrubjay.read_table(path, missing="omit")
        >>> table.names, table["a"].tolist(), table.omitted
        (['a', 'b'], [1.5, 2.5], 1)
    """
    if columns is not None and not isinstance(columns, str):
        listed = [str(column) for column in columns]
        if len(listed) > 1 and any("," in name for name in listed):
            raise ConfigError("a name with a comma in it cannot be one of several; read all columns, and choose by Table[..]")
        columns = ",".join(listed)
    reading = dict(categorical=categorical, missing=missing, na=na, header=header, delimiter=delimiter, decimal=decimal)
    how = as_json({name: value for name, value in reading.items() if value is not None})
    data, n, names, spans, omitted, note = _native.read_table(path, columns, how)
    values = np.frombuffer(data, dtype=np.float64).reshape(-1, n).T
    return Table(names, values, [list(range(*span)) for span in spans], omitted, note)


def columns(table: Any, what: str) -> tuple[NDArray[np.float64], list[str]]:
    """A table as f64 ``[n, p]``, and the names of its columns; a vector is one column."""
    if isinstance(table, Table):
        return np.ascontiguousarray(table.values), table.names
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
        device: ``auto``, ``cpu``, ``cuda``, or GPUs by number: ``cuda:1``, or ``cuda:0,1`` for two that share the work.
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
        x: the table: ``[n, p]``, or a data frame or a :class:`Table`, whose names are then taken.
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
    spans = x.spans if isinstance(x, Table) else [[j] for j in range(len(names))]
    known = [number(column, names) for column in initial]
    candidates = [[number(column, names) for column in group] for group in groups]
    taken = {column for group in candidates for column in group} | set(known)
    # Without groups, columns are candidates of their own, also known ones: these are not chosen.
    candidates += [[j] for j in range(len(names)) if j not in taken]
    plain = not known and not groups and not any(len(span) > 1 for span in spans)
    known, listed = ([j for i in known for j in spans[i]], [[j for i in group for j in spans[i]] for group in candidates])
    asked = as_json(dict(initial=known, groups=[] if plain else listed, max_features=max_features, all=all))
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


def foci_graph(
    x: Any,
    *,
    max_features: int | None = None,
    all: bool = False,
    standardize: Standardize = "none",
    ties: Ties = "mean",
    draws: int = 1,
    noise: float = 0.0,
    seed: int = 0,
    resume: str | PathLike[str] | None = None,
    progress: Callable[[int, int], Any] | None = None,
    device: str = "auto",
    threads: int = 0,
) -> DependenceGraph:
    """Finds the Markov blanket of every column, by FOCI on all others.

    Args:
        x: the table, as in :func:`foci`; of a :class:`Table` without columns of several.
        resume: a file that finished columns are kept in; those that it has are not searched again.
        progress: a function that gets (columns done, columns).
        max_features, all, standardize, ties, draws, noise, seed, device, threads: as in :func:`foci`.

    Raises:
        Interrupted: on Ctrl-C; its ``result`` has the columns that were finished.

    Example:
        >>> import numpy as np, scrubjay
        >>> a, b = np.random.default_rng(0).normal(size=(2, 500))
        >>> graph = scrubjay.foci_graph(np.stack([a, a + 0.1 * b], axis=1))
        >>> graph.edges
        [(0, 1, True)]
    """
    if isinstance(x, Table) and any(len(span) > 1 for span in x.spans):
        raise ConfigError("a graph takes no column as one per category")
    table, names = columns(x, "x")
    options = as_json(dict(standardize=standardize, ties=ties, draws=draws, noise=noise, seed=seed))

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, len(names))

    where = opened(device, threads)
    text, dot, interrupted = _native.graph(where, table, names, max_features, all, options, resume, tell)
    found = json.loads(text)
    result = DependenceGraph(names, [blanket(one, names) for one in found["blankets"]], list(map(tuple, found["edges"])), dot)
    if interrupted:
        raise Interrupted("interrupted; `result` has the columns that were finished", result)
    return result


def blanket(found: dict[str, Any], names: list[str]) -> Foci | None:
    """What FOCI of one column chose; none where it was not finished."""
    if "order" not in found:
        return None
    chosen = [names[j] for j in found["order"]]
    return Foci(found["order"], chosen, found["conditional"], found["cumulative"], found["stopped"], {})
