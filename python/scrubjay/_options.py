"""Options, by the names of the library and of the command line. A test holds the names to the library's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict


class Reading(TypedDict, total=False):
    """What the tensors of a model do not tell, and how files are read."""

    arch: str
    heads: int
    stem: Literal["stride1", "stride1+pool", "stride2", "stride2+pool"]
    ignore: Sequence[str]
    weights: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    cifar_labels: Literal["fine", "coarse"]


class Options(Reading, total=False):
    """How samples are removed; what is not given has the default of ``scrubjay scrub``, whose help describes each."""

    retain: Any
    n: int
    batch: int
    method: Literal["lcodec", "hold"]
    proxy: Any
    proxy_epochs: int
    hold_epochs: int
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
    despite: Sequence[Literal["no-val", "near-chance"]]
    seed: int


READING = frozenset(Reading.__annotations__)


def split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of a request, and how files are read."""
    given = {name: value for name, value in options.items() if value is not None}
    reading = {name: plain(given.pop(name)) for name in list(given) if name in READING}
    return given, reading


def plain(value: Any) -> Any:
    """A value as JSON has it: sequences as lists; one pattern or key stands for a list of it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value
