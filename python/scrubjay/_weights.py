"""A model's weights after the work: out as tensors, into a module, into files."""

from __future__ import annotations

import os
from typing import Any

from . import _native
from ._errors import ConfigError
from ._models import DTYPES, inner


class Weights:
    """What has a model."""

    @property
    def _model(self) -> _native.Model:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The tensors of the model after, by their own names and in their own types: PyTorch's where it is installed, else
        arrays of numpy."""
        return {name: tensor(name, kind, sides, data) for name, kind, sides, data in self._model.tensors()}

    def apply(self, model: Any) -> Any:
        """Puts the weights into a module, in place, on the device where each is, and returns it.

        Raises:
            ConfigError: where the module has other tensors than the one that was given; it is then left as it was.
        """
        import torch

        new = self.state_dict()
        own = inner(model).state_dict()
        wrong = next((name for name in new if name not in own or own[name].shape != new[name].shape), None)
        if wrong is not None:
            raise ConfigError(f"the module has no tensor `{wrong}` of shape {list(new[wrong].shape)}: it is another one")
        with torch.no_grad():
            for name, value in new.items():
                own[name].copy_(value)
        return model

    def save(self, folder: str | os.PathLike[str]) -> list[str]:
        """Writes the model's files to a folder: those it was read from, with the changed values alone different."""
        return [str(path) for path in self._model.save(folder)]


def write(path: str | os.PathLike[str], text: str) -> None:
    """Writes a page or a chart."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def tensor(name: str, kind: str, sides: list[int], data: bytearray) -> Any:
    """A tensor of its bytes."""
    dtype = next((word for word, stored in DTYPES.items() if stored == kind), None)
    if dtype is None:
        raise ConfigError(f"`{name}` is of {kind}, which has no type here; save the outcome")
    try:
        import torch
    except ImportError:
        import numpy as np

        if dtype == "bfloat16":
            raise ConfigError(f"`{name}` is of bfloat16, which numpy does not have; install torch, or save the outcome") from None
        return np.frombuffer(data, dtype=dtype).reshape(sides)
    if not data:
        return torch.empty(sides, dtype=getattr(torch, dtype))
    return torch.frombuffer(data, dtype=getattr(torch, dtype)).reshape(sides)
