"""Options, by the names of the library and of the command line. A test holds the names to the library's own."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

from ._errors import ConfigError


class Reading(TypedDict, total=False):
    """What the tensors of a model do not tell, and how files are read."""

    arch: str
    heads: int
    stem: Literal["stride1", "stride1+pool", "stride2", "stride2+pool"]
    ignore: str | Sequence[str]
    weights: str | Sequence[str]
    resize: int | str
    crop: int | str
    interpolation: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
    skip_corrupt: bool
    inputs_memory: int
    mean: Sequence[float]
    std: Sequence[float]
    cifar_labels: Literal["fine", "coarse"]
    tokenizer: Any  # a path, or of texts in memory a tokenizer of transformers
    max_tokens: int
    text_column: str
    label_column: str | Sequence[str]


class Options(Reading, total=False):
    """How samples are removed; what is not given has the default of ``scrubjay scrub``, whose help describes each."""

    retain: Any
    n: int
    batch: int
    method: Literal["lcodec", "hold"]
    proxy: Any
    proxy_epochs: int
    hold_epochs: int
    budget: float
    block: float
    selection: str
    perturbations: int
    sigma: float
    replace: int
    precision: Literal["f32", "tf32", "bf16", "f16"]
    max_units: int
    curvature: Literal["hessian", "ggn", "fisher", "kfac", "fd"]
    precondition: bool
    damping: float
    l2: float
    update: Literal["newton", "cr", "gradient"]
    length: Literal["calibrated", "one"]
    target_loss: float
    wrong_labels: bool
    stages: int
    iterations: int
    tolerance: float
    products: int
    gate: float
    if_empty: Literal["refuse", "cheap"]
    epsilon: float
    delta: float
    noise: Literal["none", "outside", "inside", "all"]
    delta_file: Literal["new", "both"]
    rounding: Literal["nearest", "stochastic"]
    despite: Sequence[Literal["no-val", "near-chance", "memory"]]
    seed: int


class Recipe(Reading, total=False):
    """How a model is trained; what is not given has the default of ``scrubjay train``, whose help describes each."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    optimizer: Literal["sgd", "adam"]
    weight_decay: float
    decay: Literal["all", "weights"]
    warm_up: int
    shift: int
    flip: bool
    schedule: Literal["constant", "cosine", "step"]
    seed: int
    label_smoothing: float
    classes: int


READING = frozenset(Reading.__annotations__)


def split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of a request, and how files are read."""
    given = {name: value for name, value in options.items() if value is not None}
    reading = {name: given.pop(name) for name in list(given) if name in READING}
    return given, reading


def as_json(value: Any) -> str:
    """Options as the library takes them."""
    return json.dumps(value, default=plain)


def plain(value: Any) -> Any:
    """What JSON lacks: numbers and arrays of numpy and PyTorch as numbers and lists, paths as texts."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ConfigError(f"an option of type {type(value).__name__}")
