"""Modules without branches, as the list of layers that a config.json has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Layer = str | dict[str, Any]


@dataclass(frozen=True)
class Unfit:
    """Why a module is no chain of layers: the place in it, the kind of what is there, and what is wrong."""

    path: str
    kind: str
    what: str

    def __str__(self) -> str:
        where = f"`{self.path}` ({self.kind})" if self.path else self.kind
        return f"{where} {self.what}"


#: Modules and functions that become a word, by the name of their class or function.
WORDS = {
    "ReLU": "relu",
    "relu": "relu",
    "ReLU6": "relu6",
    "relu6": "relu6",
    "SiLU": "silu",
    "silu": "silu",
    "Sigmoid": "sigmoid",
    "sigmoid": "sigmoid",
    "Tanh": "tanh",
    "tanh": "tanh",
    "Hardswish": "hard_swish",
    "hardswish": "hard_swish",
    "Hardsigmoid": "hard_sigmoid",
    "hardsigmoid": "hard_sigmoid",
    "Softplus": "softplus",
    "GELU": "gelu",
    "gelu": "gelu",
}

#: What computes nothing in eval mode.
NOTHING = {"Dropout", "Dropout1d", "Dropout2d", "Identity", "dropout", "dropout2d", "contiguous"}

#: Modules that some family of the library has, beside those above.
KNOWN = {
    "Linear",
    "Conv2d",
    "Conv2dNormActivation",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNormAct2d",
    "LayerNorm",
    "LayerNorm2d",
    "MaxPool2d",
    "AvgPool2d",
    "AdaptiveAvgPool2d",
    "Flatten",
    "Permute",
    "StochasticDepth",
    "DropPath",
    "Embedding",
    "MultiheadAttention",
    "NonDynamicallyQuantizableLinear",
}

#: What only asks for sizes.
SIZES = {"size", "getattr", "getitem"}


class Refused(Exception):
    """Something that has no layer here."""


def layers_of(module: Any) -> tuple[list[Layer] | None, Unfit | None]:
    """The layers of a module that is a chain of known ones; or why it is none."""
    import torch

    try:
        graph = torch.fx.symbolic_trace(module).graph
    except Exception as error:  # control flow that depends on values, and much else
        first = str(error).strip().splitlines() or [type(error).__name__]
        return None, Unfit("", type(module).__name__, f"cannot be traced: {first[0]}")
    parts = dict(module.named_modules())
    layers: list[Layer] = []
    before = None
    for node in graph.nodes:
        name = getattr(node.target, "__name__", str(node.target))
        if node.op == "placeholder":
            if before is not None:
                return None, Unfit("", type(module).__name__, "takes several inputs")
            before = node
            continue
        if node.op == "output":
            if node.args[0] is not before:
                return None, Unfit("", type(module).__name__, "returns something else than its last layer's output")
            continue
        if node.op in ("call_function", "call_method") and name in SIZES:
            continue
        part = parts.get(node.target) if node.op == "call_module" else None
        path = node.target if part is not None else place(node)
        kind = type(part).__name__ if part is not None else name
        inputs = node.all_input_nodes
        if node.op == "get_attr" or before not in inputs or [n for n in inputs if n is not before and not is_size(n)]:
            return None, Unfit(path, kind, "is not a layer after the one before it: the module branches")
        try:
            layers += layer(part, node.target) if part is not None else function(name, node)
        except Refused as refused:
            return None, Unfit(path, kind, str(refused))
        before = node
    return layers, None


def unknown(module: Any) -> Unfit | None:
    """The first part of a module that is in no family of the library."""
    for path, part in module.named_modules():
        kind = type(part).__name__
        ours = kind in KNOWN or kind in WORDS or kind in NOTHING
        leaf = type(part).__module__.startswith("torch.nn.") and "container" not in type(part).__module__
        if path and leaf and not ours and not any(part.children()):
            return Unfit(path, kind, "is no layer that is known here")
    return None


def place(node: Any) -> str:
    """The module in which a function is called."""
    stack = node.meta.get("nn_module_stack") or {}
    last = list(stack.values())[-1:] if stack else []
    return str(last[0][0]) if last and isinstance(last[0], tuple) else ""


def is_size(node: Any) -> bool:
    """Whether a node only asks for sizes."""
    return getattr(node.target, "__name__", str(node.target)) in SIZES


def single(value: Any, what: str) -> int:
    """A number, of what may be the same one for both directions."""
    if isinstance(value, (tuple, list)):
        if len(set(value)) != 1:
            raise Refused(f"has {what} {tuple(value)}, which differ by direction")
        value = value[0]
    if not isinstance(value, int):
        raise Refused(f"has {what} {value!r}")
    return value


def must(given: dict[str, tuple[Any, Any]]) -> None:
    """Refuses options that are not at the one value that is known here."""
    for name, (found, expected) in given.items():
        if found != expected:
            raise Refused(f"has {name}={found!r}, where only {expected!r} is known here")


def pool(kind: str, size: Any, stride: Any, padding: Any) -> list[Layer]:
    """A pooling layer."""
    size = single(size, "kernel_size")
    stride = size if stride is None or stride == [] else single(stride, "stride")
    return [{kind: size, "stride": stride, "padding": single(padding, "padding")}]


def layer(part: Any, name: str) -> list[Layer]:
    """The layer of a module."""
    kind = type(part).__name__
    if kind in NOTHING:
        return []
    if kind == "GELU" and part.approximate == "tanh":
        return ["gelu_tanh"]
    if kind == "Softplus":
        must({"beta": (part.beta, 1), "threshold": (part.threshold, 20)})
    if kind in WORDS:
        return [WORDS[kind]]
    if kind == "Linear":
        return [{"linear": name}]
    if kind == "Flatten":
        must({"start_dim": (part.start_dim, 1), "end_dim": (part.end_dim, -1)})
        return ["flatten"]
    if kind == "Conv2d":
        must({"padding_mode": (part.padding_mode, "zeros")})
        options = {"stride": part.stride, "padding": padding_of(part), "dilation": part.dilation}
        return [{"conv": name} | {key: single(value, key) for key, value in options.items()}]
    if kind in ("BatchNorm2d", "BatchNorm1d"):
        must({"affine": (part.affine, True), "track_running_stats": (part.track_running_stats, True)})
        return [{"batch_norm": name, "eps": part.eps}]
    if kind == "LayerNorm":
        must({"dimensions": (len(part.normalized_shape), 1), "elementwise_affine": (part.elementwise_affine, True)})
        return [{"layer_norm": name, "eps": part.eps}]
    if kind == "MaxPool2d":
        must({"dilation": (single(part.dilation, "dilation"), 1), "ceil_mode": (part.ceil_mode, False)})
        return pool("max_pool", part.kernel_size, part.stride, part.padding)
    if kind == "AvgPool2d":
        must({"ceil_mode": (part.ceil_mode, False), "divisor_override": (part.divisor_override, None)})
        return pool("average_pool", part.kernel_size, part.stride, part.padding)
    if kind == "AdaptiveAvgPool2d":
        return adaptive(part.output_size)
    raise Refused("is no layer that is known here")


def padding_of(conv: Any) -> Any:
    """The padding of a convolution, in pixels."""
    if not isinstance(conv.padding, str):
        return conv.padding
    if conv.padding == "valid":
        return 0
    around = [dilation * (side - 1) for side, dilation in zip(conv.kernel_size, conv.dilation)]
    if any(pixels % 2 for pixels in around):
        raise Refused(f"has padding 'same' with a kernel of {conv.kernel_size}, which pads more on one side")
    return tuple(pixels // 2 for pixels in around)


def adaptive(size: Any) -> list[Layer]:
    """Pooling to a size."""
    sides = [size, size] if isinstance(size, int) else list(size)
    if not all(isinstance(side, int) for side in sides):
        raise Refused(f"has output_size={size!r}")
    return [{"adaptive_pool": sides}]


def function(name: str, node: Any) -> list[Layer]:
    """The layer of a function or of a method of the tensor."""
    args, words = node.args[1:], dict(node.kwargs)
    if name in NOTHING:
        return []
    if name == "gelu" and words.get("approximate", "none") == "tanh":
        return ["gelu_tanh"]
    if name in WORDS:
        return [WORDS[name]]
    if name == "flatten":
        start = args[0] if args else words.get("start_dim", 0)
        end = args[1] if len(args) > 1 else words.get("end_dim", -1)
        must({"start_dim": (start, 1), "end_dim": (end, -1)})
        return ["flatten"]
    if name in ("view", "reshape"):
        sides = list(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list)) else list(args)
        if len(sides) == 2 and (sides[1] == -1) and not isinstance(sides[0], int):
            return ["flatten"]
        raise Refused(f"is {name}{tuple(sides)}, where only x.{name}(x.size(0), -1) is known here")
    if name == "max_pool2d":
        named = dict(zip(("kernel_size", "stride", "padding", "dilation", "ceil_mode"), args)) | words
        must({"dilation": (named.get("dilation", 1), 1), "ceil_mode": (named.get("ceil_mode", False), False)})
        return pool("max_pool", named["kernel_size"], named.get("stride"), named.get("padding", 0))
    if name == "avg_pool2d":
        named = dict(zip(("kernel_size", "stride", "padding", "ceil_mode"), args)) | words
        must({"ceil_mode": (named.get("ceil_mode", False), False)})
        return pool("average_pool", named["kernel_size"], named.get("stride"), named.get("padding", 0))
    if name == "adaptive_avg_pool2d":
        return adaptive(args[0] if args else words["output_size"])
    raise Refused("is no layer that is known here")
