"""Samples: what a program has (arrays, tensors, data sets, files) as what the library takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _native
from ._errors import ConfigError, DataError

#: Names of inputs and of labels in a mapping, in the order in which they are looked for.
INPUTS = ("x", "pixel_values", "image", "images", "text", "sentence")
LABELS = ("y", "labels", "label")

#: More samples than any file has: its reader checks how many there are.
EVERY = 2**62

#: How many samples a module is tried on.
FEW = 4


def is_path(value: Any) -> bool:
    """Whether this names a file or a folder."""
    return isinstance(value, (str, os.PathLike))


def array(values: Any) -> NDArray[Any]:
    """An array of what may be a tensor on any device, of any type."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":
            values = values.float()
        return values.numpy()
    return np.asarray(values)


def whole(values: Any, what: str, most: int = 2**32 - 1) -> NDArray[np.uint32]:
    """Whole numbers from 0 on."""
    given = array(values)
    if given.dtype.kind not in "biuf":
        raise DataError(f"{what} holds {given.dtype}, where whole numbers were expected")
    bad = np.argwhere(~((given >= 0) & (given <= most) & (given == np.floor(given))))
    if len(bad):
        at = tuple(int(i) for i in bad[0])
        raise DataError(f"{what}: sample {at[0]} has {given[at]}, where a whole number from 0 to {most} was expected")
    return np.ascontiguousarray(given, dtype=np.uint32)


def images(x: Any) -> NDArray[np.float32]:
    """Inputs as a module takes them, ``[n, c, h, w]`` or ``[n, features]``."""
    given = array(x)
    if given.dtype.kind != "f":
        raise DataError(
            f"x holds {given.dtype}; give the floating-point values that the model was trained on, scaled and normalised"
        )
    return np.ascontiguousarray(given, dtype=np.float32)


def parts(data: Any) -> tuple[Any, Any]:
    """The inputs and labels of data in memory; inputs of texts are a mapping of token ids and mask."""
    if isinstance(data, Mapping):
        y = next((data[name] for name in LABELS if name in data), None)
        if y is None:
            raise DataError(f"the data have no labels: one of {', '.join(LABELS)} was expected, not {', '.join(data)}")
        if "input_ids" in data:
            return {name: data[name] for name in ("input_ids", "attention_mask") if name in data}, y
        x = next((data[name] for name in INPUTS if name in data), None)
        if x is None:
            raise DataError(f"the data have no inputs: one of {', '.join(INPUTS)} or input_ids was expected")
        return x, y
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return data[0], data[1]
    if hasattr(data, "batch_size") and hasattr(data, "dataset"):  # a loader: its set, in the set's own order
        return parts(data.dataset)
    if hasattr(data, "tensors") and len(data.tensors) == 2:  # a TensorDataset
        return data.tensors[0], data.tensors[1]
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return stacked(data[i] for i in range(len(data)))
    raise DataError(
        f"data of type {type(data).__name__}: a pair of inputs and labels, a mapping, a data set or loader of PyTorch with a "
        "length, or the path of a file was expected"
    )


def stacked(items: Iterable[Any]) -> tuple[Any, Any]:
    """The items of a data set as inputs and labels."""
    pairs = [parts(item) if isinstance(item, Mapping) else tuple(item) for item in items]
    if not pairs:
        raise DataError("the data set is empty")
    wrong = next((i for i, pair in enumerate(pairs) if len(pair) != 2), None)
    if wrong is not None:
        raise DataError(f"item {wrong} of the data set has {len(pairs[wrong])} parts, where an input and a label were expected")
    xs, ys = zip(*pairs)
    labels = stack(ys, "labels")
    if isinstance(xs[0], Mapping):
        return {name: stack((x[name] for x in xs), name) for name in xs[0]}, labels
    if isinstance(xs[0], str):
        return list(xs), labels
    kind = type(xs[0])
    if not (hasattr(xs[0], "shape") or isinstance(xs[0], (list, tuple))):
        raise DataError(f"item 0 of the data set is of type {kind.__name__}; give it a transform that makes a tensor of it")
    return stack(xs, "inputs"), labels


def stack(values: Iterable[Any], what: str) -> NDArray[Any]:
    """One array of those of all items."""
    arrays = [array(value) for value in values]
    shapes = {one.shape for one in arrays}
    if len(shapes) > 1:
        raise DataError(f"the {what} of the data set have different shapes: {sorted(shapes)[:3]}")
    return np.stack(arrays)


def labels_of(native: _native.Samples | _native.Session) -> NDArray[np.uint32]:
    """The labels that the library has, ``[n]`` or ``[n, labels]``."""
    words, width = native.labels
    labels = np.frombuffer(words, dtype=np.uint32)
    return labels if width == 1 else labels.reshape(-1, width)


@dataclass
class Samples:
    """Labelled samples: what the library has, and the first inputs as a module takes them (none of files)."""

    native: _native.Samples
    labels: NDArray[np.uint32]
    first: Any = None

    @classmethod
    def of(cls, data: Any, what: str = "data") -> Samples:
        """Samples in memory."""
        try:
            x, y = parts(data)
            labels = whole(y, "y")
            if labels.ndim == 2 and labels.shape[1] == 1:
                labels = np.ascontiguousarray(labels[:, 0])
            if not isinstance(x, Mapping):
                values = images(x)
                return cls(_native.Samples.of_images(values, labels), labels, values[:FEW].copy())
            ids = whole(x["input_ids"], "input_ids")
            mask = whole(x["attention_mask"], "attention_mask", 1) if "attention_mask" in x else np.ones_like(ids)
            if mask.shape != ids.shape:
                raise DataError(f"attention_mask has shape {mask.shape}, input_ids {ids.shape}")
            first = {"input_ids": ids[:FEW].astype(np.int64), "attention_mask": mask[:FEW].astype(np.int64)}
            return cls(_native.Samples.of_texts(ids, mask, labels), labels, first)
        except (ConfigError, DataError) as error:
            raise type(error)(f"{what}: {error}") from None

    @classmethod
    def load(cls, path: Any, model: _native.Model, reading: str) -> tuple[Samples, list[str]]:
        """Samples of a file, normalised as its model's config says; and notes on how it was read."""
        native, notes = model.load(path, reading)
        return cls(native, labels_of(native)), notes

    def few(self) -> _native.Samples:
        """The first samples, for the library."""
        if isinstance(self.first, Mapping):
            ids, mask = (self.first[name].astype(np.uint32) for name in ("input_ids", "attention_mask"))
            return _native.Samples.of_texts(ids, mask, self.labels[: len(ids)].copy())
        return _native.Samples.of_images(self.first, self.labels[: len(self.first)].copy())

    def __len__(self) -> int:
        return len(self.native)


def indices(chosen: Any, n: int, what: str) -> str | list[int]:
    """A choice of samples: words as on the command line, indices, or a mask of ``n`` truth values."""
    if isinstance(chosen, str):
        return chosen
    given = array(sorted(chosen) if isinstance(chosen, (set, frozenset)) else chosen)
    if given.dtype == bool:
        if given.shape != (n,):
            raise ConfigError(f"{what}: a mask of shape {given.shape} for {n} samples")
        given = np.flatnonzero(given)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise ConfigError(
            f"{what}: {given.dtype} of shape {given.shape}, where a list of indices, a mask or words as `7,12,100-149` were expected"
        )
    if given.size and (given.min() < 0 or given.max() >= n):
        wrong = given.min() if given.min() < 0 else given.max()
        raise ConfigError(f"{what}: sample {wrong} of a set of {n} (the first is 0)")
    return [int(i) for i in np.unique(given)]


def of_labels(wanted: Any, labels: NDArray[np.uint32]) -> str | list[int]:
    """The samples of one label, in the words that make the library see a class; or of several labels, by index."""
    listed = np.atleast_1d(array(wanted))
    if listed.dtype.kind not in "iu" or not listed.size:
        raise ConfigError(f"forget_label: {wanted!r}, where a label or a list of labels was expected")
    if len(listed) == 1:
        return f"class:{int(listed[0])}"
    if labels.ndim == 2:
        raise ConfigError("forget_label: several labels at once are for samples with one class each")
    return [int(i) for i in np.flatnonzero(np.isin(labels, listed))]


def is_mask(chosen: Any) -> bool:
    """Whether a choice of samples is a mask, whose length is that of the data."""
    return chosen is not None and not isinstance(chosen, (str, set, frozenset)) and array(chosen).dtype == bool
