"""The compiled part. Nothing here is public; the names of options are the library's."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

__version__: str

Vector = list[tuple[str, list[int], bytearray]]
Words = tuple[bytearray, bytearray, int, list[str]]
Path = str | PathLike[str]

class Device:
    def __init__(self, kind: str, threads: int) -> None: ...

class Samples:
    @staticmethod
    def of_images(x: Any, y: Any) -> Samples: ...
    @staticmethod
    def of_texts(ids: Any, mask: Any, y: Any) -> Samples: ...
    def __len__(self) -> int: ...
    def inspect(self) -> tuple[str, str]: ...
    @property
    def labels(self) -> tuple[bytearray, int]: ...

class Model:
    @staticmethod
    def open(path: Path, reading: str, data: Samples | None = None) -> Model: ...
    def load(self, path: Path, reading: str) -> tuple[Samples, list[str]]: ...
    @staticmethod
    def of_tensors(
        tensors: Sequence[tuple[str, str, list[int], bytes]], config: str | None, reading: str, data: Samples | None = None
    ) -> Model: ...
    def encode(self, texts: list[str], reading: str) -> Words: ...
    def inspect(self, precision: str | None) -> tuple[str, list[str]]: ...
    @property
    def family(self) -> str: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def classes(self) -> int: ...
    @property
    def layers(self) -> list[tuple[str, str, str | None, int]]: ...
    def save(self, folder: Path) -> list[Any]: ...
    def tensors(self) -> list[tuple[str, str, list[int], bytearray]]: ...

class Session:
    @staticmethod
    def open(device: Device, paths: str, reading: str, thumbnails: bool) -> Session: ...
    @staticmethod
    def of(
        device: Device,
        model: Model,
        samples: Samples,
        thumbnails: bool = True,
        val: Samples | None = None,
        earlier: Model | None = None,
        proxy: Model | None = None,
    ) -> Session: ...
    @property
    def labels(self) -> tuple[bytearray, int]: ...

class Request:
    def __init__(self, session: Session, forget: str | list[int] | None, options: str) -> None: ...
    def estimate(self) -> str: ...
    def planned(self) -> tuple[str, str]: ...
    def scrub(self, tell: Callable[..., None]) -> Outcome: ...
    def run(self, folder: Path, tell: Callable[..., None]) -> Outcome: ...

class Outcome:
    report: str
    page: str
    model: Model | None
    interrupted: bool
    folder: Any

class Trained:
    @property
    def epochs(self) -> str: ...
    @property
    def model(self) -> Model: ...
    def save(self, folder: Path) -> bool: ...

def train(
    device: Device,
    arch: str | None,
    model: Model | None,
    samples: Samples,
    val: Samples | None,
    exclude: str | list[int] | None,
    options: str,
    tell: Callable[[str], None],
) -> Trained: ...
def train_files(
    device: Device,
    paths: str,
    reading: str,
    arch: str | None,
    exclude: str | list[int] | None,
    options: str,
    out: Path | None,
    keep: list[int],
    tell: Callable[[str], None],
) -> tuple[Trained | None, str | None, list[str]]: ...
def inspect_data(
    path: Path, reading: str, model: Model | None, image_out: Path | None, index: int
) -> tuple[str, str, list[str]]: ...
def devices() -> str: ...
def bench_cases() -> str: ...
def bench(device: Device, name: str, sizes: dict[str, int]) -> str: ...
def encode(texts: list[str], reading: str, positions: int | None) -> Words: ...
def digits() -> tuple[bytearray, bytearray]: ...
def gradient(device: Device, model: Model, samples: Samples, names: set[str], rows: dict[str, list[int]]) -> Vector: ...
def hvp(
    device: Device, model: Model, samples: Samples, vectors: list[dict[str, Any]], kind: str, rows: dict[str, list[int]]
) -> list[Vector]: ...
def solve(
    device: Device,
    model: Model,
    samples: Samples,
    names: set[str],
    b: dict[str, Any] | None,
    kind: str,
    damping: float,
    tolerance: float,
    products: int,
    rows: dict[str, list[int]],
) -> tuple[Vector, str]: ...
def scores(device: Device, model: Model, samples: Samples) -> str: ...
def logits(device: Device, model: Model, samples: Samples) -> bytearray: ...
def traces(
    device: Device,
    model: Model,
    samples: Samples,
    copies: int,
    sigma: float | None,
    replace: int | None,
    seed: int,
    precision: str | None,
) -> tuple[tuple[bytearray, bytearray, bytearray], int, int]: ...
def compare(
    device: Device,
    before: Model,
    after: Model,
    references: list[Model],
    samples: Samples,
    test: Samples,
    forget: str | list[int],
    retain: str | list[int] | None,
) -> tuple[str, str, list[str]]: ...
def compare_files(
    device: Device, paths: str, reading: str, forget: str | list[int], retain: str | list[int] | None
) -> tuple[str, str, list[str]]: ...
def take(model: Path, delta: Path, back: bool, out: Path) -> tuple[list[Any], list[int]]: ...
def export(model: Path, out: Path, reading: str) -> list[Any]: ...
def codec(
    device: Device,
    table: Any,
    given: int,
    options: str,
    permutations: int | None,
    level: float | None,
    subsamples: int,
) -> tuple[float | None, float | None, tuple[float, float] | None, int | None]: ...
def foci(device: Device, y: Any, table: Any, asked: str, options: str) -> tuple[str, bool]: ...
def plot(names: list[str], found: str) -> str: ...
def graph(
    device: Device,
    table: Any,
    names: list[str],
    max_features: int | None,
    all: bool,
    options: str,
    resume: Path | None,
    tell: Callable[[int], None],
) -> tuple[str, str, bool]: ...
def read_table(
    path: Path, columns: str | None, reading: str
) -> tuple[bytearray, int, list[str], list[tuple[int, int]], int, str | None]: ...
