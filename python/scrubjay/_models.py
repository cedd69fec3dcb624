"""Models: files, and PyTorch modules as what the library reads.

A module is never taken for something else: after the network is made of its tensors, its logits on a few samples are compared
with the module's own.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import _native
from ._data import Samples, is_path
from ._device import opened
from ._errors import ConfigError, DataError, ModelError, UnsupportedModel
from ._options import as_json
from ._trace import Unfit, arguments, graph_of

#: Types of tensors as files name them, by PyTorch's name.
DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}

#: How far logits may lie from the module's own, as a share of their norm: f32 sums of other orders differ by about 1e-6 of it.
TOLERANCE = 1e-4


def is_module(model: Any) -> bool:
    """Whether this is a module of PyTorch; does not import it."""
    return any(kind.__module__ == "torch.nn.modules.module" for kind in type(model).__mro__)


def distinct(module: Any) -> dict[str, Any]:
    """The tensors of a module by name, of shared ones the first alone."""
    seen: set[tuple[Any, ...]] = set()
    found = {}
    for name, tensor in module.state_dict().items():
        at = place_of(tensor)
        if tensor.numel() and at in seen:
            continue
        seen.add(at)
        found[name] = tensor
    return found


def stored(name: str, tensor: Any) -> tuple[str, str, list[int], bytes]:
    """A tensor as a file stores it."""
    import torch

    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in DTYPES:
        raise UnsupportedModel(f"`{name}` is a tensor of {kind}", name, kind)
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return name, DTYPES[kind], list(tensor.shape), flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def config_of(module: Any) -> dict[str, Any]:
    """What a module of Hugging Face or timm says about itself, in the form of its config.json."""
    config = getattr(module, "config", None)
    if hasattr(config, "to_json_string"):  # Hugging Face
        return json.loads(config.to_json_string()) | {"architectures": [type(module).__name__]}
    timm = getattr(module, "pretrained_cfg", None)
    if isinstance(timm, Mapping) and timm.get("architecture"):
        told = {key: timm[key] for key in ("input_size", "mean", "std") if timm.get(key) is not None}
        return {"architecture": timm["architecture"], "num_classes": module.num_classes, "pretrained_cfg": told}
    return {}


def inner(module: Any) -> Any:
    """The module within wrappers of PyTorch's that add nothing."""
    while type(module).__name__ in ("DataParallel", "DistributedDataParallel", "OptimizedModule"):
        module = module._orig_mod if hasattr(module, "_orig_mod") else module.module
    return module


#: What a user says of a family.
OF_FAMILIES = {"arch", "heads", "stem"}
#: What a config says of a family or of layers.
OF_NETWORKS = {"architecture", "architectures", "model_type", "layers", "nodes"}


def of_module(module: Any, reading: dict[str, Any], data: Samples, config: dict[str, Any] | None) -> _native.Model:
    """The model of a module, for these samples.

    A module that says which network it is is read so; any other by its trace. Where that does not fit, the other way is tried,
    unless the user said what the network is.
    """
    module = inner(module)
    given = dict(config or {})
    if data.labels.ndim == 2:
        given.setdefault("problem_type", "multi_label_classification")
    said = config_of(module)
    named = OF_FAMILIES & reading.keys() or OF_NETWORKS & given.keys()
    ways = [True] if named else [True, False] if said else [False, True]  # by family or not
    reason, errors = None, []
    for by_family in ways:
        told, left = ({**said, **given}, []) if by_family else (None, [])
        if not by_family:
            told, left, reason = traced(module, data)
            if told is None:
                continue
            told |= given
        try:
            model = of_tensors(module, told, left, reading, data)
            check(module, model, data)
            return model
        except (UnsupportedModel, ModelError, ConfigError) as error:
            errors.append(error)
    kind = type(module).__name__
    texts = [str(error) for error in errors]
    if reason:
        texts = [str(reason), *(f"as a family of models: {text}" for text in texts)]
    where = (reason.path, reason.kind) if reason else ("", kind)
    raise UnsupportedModel(f"{kind}: {'; '.join(texts)}", *where) from errors[0].__cause__


def of_tensors(module: Any, told: dict[str, Any], left: list[str], reading: dict[str, Any], data: Samples) -> _native.Model:
    """The model of a module's tensors but those that are left out, and of a config."""
    tensors = [stored(name, tensor) for name, tensor in distinct(module).items()]
    if left:
        ignored = reading.get("ignore", [])
        reading = reading | {"ignore": [*([ignored] if isinstance(ignored, str) else ignored), *left]}
    return _native.Model.of_tensors(tensors, as_json(told) if told else None, as_json(reading), data.native)


def traced(module: Any, data: Samples) -> tuple[dict[str, Any] | None, list[str], Unfit | None]:
    """The graph of a module, and the tensors that it does not read; or why it has none."""
    import torch

    own = distinct(module)
    names = {place_of(tensor): name for name, tensor in own.items()}
    everything = module.state_dict()
    with plain(module) as same:
        told, reason = graph_of(same, tensors(data.first, 2), lambda name: names.get(place_of(everything[name]), name))
    if told is None:
        return None, [], reason
    read = {value for node in told["nodes"] for value in node.values() if isinstance(value, str)}
    return told, [name for name in own if name not in read and not name.endswith("num_batches_tracked")], None


def tensors(first: Any, most: int | None = None) -> Any:
    """Inputs as a module takes them; of texts a mapping of ids and mask."""
    import torch

    if isinstance(first, Mapping):
        return {name: torch.from_numpy(values[:most]) for name, values in first.items()}
    return torch.from_numpy(first[:most])


def place_of(tensor: Any) -> tuple[Any, ...]:
    """Where a tensor lies: the same of tensors that share their memory."""
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def check(module: Any, model: _native.Model, data: Samples) -> None:
    """Refuses a model whose logits are not the module's."""
    ours, theirs = logits(model, data), answers(module, data)
    if ours.shape != theirs.shape:
        raise UnsupportedModel(
            f"as one of the family {model.family} it gives {list(ours.shape[1:])} numbers for an input, and the module gives "
            f"{list(theirs.shape[1:])}"
        )
    distance = float(np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-30))
    if not distance <= TOLERANCE:
        raise UnsupportedModel(
            f"as one of the family {model.family} it computes something else: on {len(ours)} samples its logits differ by "
            f"{distance:.2g} of their norm; `arch`, `heads`, `stem` and `config` say what tensors do not"
        )


def logits(model: _native.Model, data: Samples) -> np.ndarray:
    """A model's logits of the first samples."""
    values = _native.logits(opened("cpu", 0), model, data.few())
    return np.frombuffer(values, dtype=np.float32).reshape(-1, model.classes).astype(np.float64)


@contextmanager
def plain(module: Any) -> Iterator[Any]:
    """A module in eval mode, in f32 on the CPU; it is left as it was."""
    import torch

    tensors = [*module.parameters(), *module.buffers()]
    if any(t.device.type != "cpu" or (t.is_floating_point() and t.dtype != torch.float32) for t in tensors):
        module = copy.deepcopy(module).to("cpu", torch.float32)
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield module
    finally:
        for part, mode in modes:
            part.training = mode


def answers(module: Any, data: Samples) -> np.ndarray:
    """A module's own logits of the first samples, in eval mode, in f32 on the CPU."""
    import torch

    with plain(module) as same:
        try:
            with torch.no_grad():
                args, words = arguments(same, tensors(data.first))
                found = same(*args, **words)
        except Exception as error:
            raise UnsupportedModel(f"the module does not run on the samples: {type(error).__name__}: {error}") from error
    found = getattr(found, "logits", found)
    if not isinstance(found, torch.Tensor):
        raise UnsupportedModel(f"the module returns {type(found).__name__}, where logits [n, classes] were expected")
    return found.double().numpy()


def as_model(
    model: Any, reading: dict[str, Any], data: Samples, config: dict[str, Any] | None, what: str = "model"
) -> _native.Model:
    """The library's model of a path, a module, or a model that was read before."""
    if isinstance(model, _native.Model):
        return model
    if not is_module(model) and hasattr(model, "_model"):  # an outcome
        return model._model
    if is_path(model):
        if config is not None:
            raise ConfigError("config is for modules; a file has its config.json beside it")
        return _native.Model.open(model, as_json(reading), data.native)
    if is_module(model):
        if data.first is None:
            raise DataError(f"{what}: a module is compared on samples in memory; give the data as arrays or a data set")
        return of_module(model, reading, data, config)
    raise ConfigError(f"{what} is of type {type(model).__name__}: a path or a torch.nn.Module was expected")
