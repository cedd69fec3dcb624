"""The operators that torch.export lists, each as nodes of the library's graph (docs/GRAPH.md)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ._graph import Graph, Known, Node, Refused, Stored, Value, same

Words = dict[str, Any]

#: What asks for sizes or checks them.
IGNORED = {"sym_size", "_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range_for_size"}

#: What moves values, and computes nothing.
MOVES = {
    "view", "_unsafe_view", "reshape", "flatten", "unflatten", "transpose", "permute", "movedim", "swapaxes", "t", "numpy_T",
    "mT", "select", "slice", "narrow", "split", "split_with_sizes", "chunk", "unbind", "unsqueeze", "squeeze", "expand",
    "repeat", "flip", "roll", "channel_shuffle", "pixel_shuffle", "pixel_unshuffle",
}  # fmt: skip

#: What makes a tensor of the sides of another.
LIKE = {"zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_tensor"}

#: Sums with values below this leave a key out of a softmax.
LEFT_OUT = -1e4

#: What computes nothing in eval mode.
NOTHING = (
    "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "contiguous", "detach", "alias", "clone", "to",
    "_to_copy",
)  # fmt: skip

#: Activations without settings.
ACTIVATIONS = {
    "relu": "relu",
    "relu6": "relu6",
    "silu": "silu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "hardswish": "hard_swish",
    "hardsigmoid": "hard_sigmoid",
}

#: Products of x and an activation of it.
PRODUCTS = {"sigmoid": "silu", "hard_sigmoid": "hard_swish"}


def single(value: Any, what: str) -> int:
    """A number, of what may be the same one for both directions."""
    if isinstance(value, (tuple, list)):
        if len(set(value)) != 1:
            raise Refused(f"has {what} {tuple(value)}, which differ by direction")
        value = value[0]
    return value


def pair(value: Any) -> list[int]:
    """Numbers for rows and columns, of what may be one for both."""
    return list(value) * (2 // len(value)) if isinstance(value, (tuple, list)) else [value, value]


def must(words: Words, **expected: Any) -> None:
    """Refuses settings that are not at the one value that is known here."""
    for name, value in expected.items():
        found = words.get(name, value)
        if found != value:
            raise Refused(f"has {name}={found!r}, where only {value!r} is known here")


def stored(value: Any, what: str) -> str:
    """The name of a stored tensor that is read as it is."""
    if not isinstance(value, Value) or not isinstance(value.of, Stored):
        raise Refused(f"has a {what} that is not a tensor of the state_dict")
    if value.numbers is not None and not same(value.order, Value(value.of).order):
        raise Refused(f"has a {what} that is `{value.of.name}` with its values moved")
    return value.of.name


def optional(value: Any, what: str) -> str | None:
    """The same, where it may be missing."""
    return None if value is None else stored(value, what)


def channels(graph: Graph, value: Value, axis: int, whole: bool = False) -> None:
    """Checks that an axis of a tensor is the channels of its node; and with ``whole``, that the first one is the samples."""
    order, c = value.order, value.of.shape[2]
    sides = [1] * order.dim()
    sides[axis] = c
    if order.shape[axis] != c or not bool((order % c == graph.numbers(c).view(sides)).all()):
        raise Refused(f"works along side {axis % order.dim()} of a tensor, which is not that of the channels")
    sides[axis], sides[0] = 1, order.shape[0]
    if whole and not bool((order // value.of.size == graph.numbers(order.shape[0]).view(sides)).all()):
        raise Refused("works on a tensor whose first side is not that of the samples")


def element(graph: Graph, x: Any, op: str, **settings: Any) -> Value:
    """A node that changes each value by itself."""
    if isinstance(x, Scores):
        raise Refused("works on the scores of attention, which only a factor, a mask and a softmax may change here")
    if not isinstance(x, Value) or isinstance(x.of, Stored):
        raise Refused("works on a stored tensor before a layer reads it")
    return Value(graph.add(op, [x.of], x.of.shape, **settings), x.order)


def activation(function: str) -> Callable[[Graph, Words, Any], Value]:
    """The rule of an activation without settings."""
    return lambda graph, words, node: element(graph, words["self"], "activation", function=function)


def gelu(graph: Graph, words: Words, node: Any) -> Value:
    """GELU, by its two formulas."""
    return element(graph, words["self"], "activation", function="gelu_tanh" if words["approximate"] == "tanh" else "gelu")


def softplus(graph: Graph, words: Words, node: Any) -> Value:
    """Softplus."""
    must(words, beta=1, threshold=20)
    return element(graph, words["self"], "activation", function="softplus")


def clamp(graph: Graph, words: Words, node: Any) -> Value:
    """ReLU and ReLU6, written as bounds."""
    low, high = (words.get(a, words.get(b)) for a, b in (("min", "min_val"), ("max", "max_val")))
    if low != 0 or high not in (6, None):
        raise Refused(f"bounds values by {low} and {high}, where 0 and 6, or 0 alone, are known here")
    return element(graph, words["self"], "activation", function="relu6" if high == 6 else "relu")


def conv(graph: Graph, words: Words, node: Any) -> Value:
    """A convolution of an image."""
    x, weight = graph.as_image(words["input"]), words["weight"]
    names = {"weight": stored(weight, "weight"), "bias": optional(words["bias"], "bias")}
    numbers = {key: single(words[key], key) for key in ("stride", "dilation")}
    out = node.meta["val"].shape
    padding = words["padding"]
    if isinstance(padding, str):
        around = [numbers["dilation"] * (side - 1) if padding == "same" else 0 for side in weight.of.shape[2:]]
        if any(pixels % 2 for pixels in around):
            raise Refused(f"has padding 'same' with a kernel of {weight.of.shape[2:]}, which pads more on one side")
        padding = [pixels // 2 for pixels in around]
    padding = list(padding) * (2 // len(padding))
    made = graph.add("conv", [x], (out[2], out[3], out[1]), **names, **numbers, padding=padding, groups=words["groups"])
    return Value(made, graph.image(made))


def linear(graph: Graph, words: Words, node: Any) -> Value:
    """A linear layer at every position, or of a flattened image."""
    return affine(graph, words["input"], words["weight"], words["bias"], transposed=False)


def affine(graph: Graph, x: Any, weight: Any, bias: Any, transposed: bool) -> Value:
    """Rows times a matrix ``[o, c]``, or ``[c, o]`` where it is transposed."""
    x = graph.read(x)
    of, order = x.of, x.order
    c = order.shape[-1]
    if c != of.shape[2]:
        if tuple(order.shape) != (graph.samples, of.size) or not same(order, graph.image(of).reshape(graph.samples, -1)):
            raise Refused("reads values whose last side is neither the channels nor a flattened image")
        of = graph.add("flatten", [of], (1, 1, c))
        order = graph.numbers(graph.samples, c)
    rows = rows_of(graph, order, c)
    names = {"weight": stored(weight, "weight"), "bias": optional(bias, "bias")}
    if transposed:
        names["transposed"] = True
    o = weight.of.shape[1 if transposed else 0]
    made = graph.add("linear", [of], (*of.shape[:2], o), **names)
    return Value(made, rows * o + graph.numbers(o))


def rows_of(graph: Graph, order: Any, c: int) -> Any:
    """The numbers of the rows of a tensor whose last side is the ``c`` channels of a node, with a last side of 1."""
    first = order[..., :1]
    if order.shape[-1] != c or bool((first % c).any()) or not same(order, first + graph.numbers(c)):
        raise Refused("works along the last side of a tensor, which is not that of the channels")
    return first // c


@dataclass(frozen=True)
class Scores:
    """Queries times keys, and a number; or the softmax of that. A mask is what is added to it, or the pairs that are kept."""

    queries: Value
    keys: Value
    factor: float = 1.0
    soft: bool = False
    mask: Any = None


def matmul(graph: Graph, words: Words, node: Any) -> Value | Scores:
    """Rows times a stored matrix; or queries times keys, and the softmax of that times values."""
    x, weight = words["self"], words.get("other", words.get("mat2"))
    if isinstance(x, Scores) and x.soft:
        return attend(graph, [x.queries, x.keys, weight], x.factor, x.mask)
    if all(isinstance(part, Value) and isinstance(part.of, Node) and part.order.dim() > 2 for part in (x, weight)):
        return Scores(x, Value(weight.of, weight.order.transpose(-1, -2)))
    if not isinstance(weight, Value) or not isinstance(weight.of, Stored) or weight.order.dim() != 2:
        raise Refused("multiplies by a matrix that is no tensor of the state_dict")
    moved = weight.numbers is not None and not same(weight.order, Value(weight.of).order)
    return affine(graph, x, Value(weight.of, weight.order.t()) if moved else weight, None, transposed=not moved)


def addmm(graph: Graph, words: Words, node: Any) -> Value:
    """A linear layer, written as a sum."""
    must(words, beta=1, alpha=1)
    product = matmul(graph, {"self": words["mat1"], "mat2": words["mat2"]}, node)
    return sum_of(graph, {"self": product, "other": words["self"], "alpha": 1}, node)


def batch_norm(graph: Graph, words: Words, node: Any) -> Value:
    """Batch norm by running statistics."""
    must(words, training=False)
    x = graph.read(words["input"])
    channels(graph, x, 1)
    parts = {"weight": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}
    if missing := [key for key in parts.values() if words[key] is None]:
        raise Refused(f"is batch norm without {' and '.join(missing)}")
    names = {key: stored(words[word], word) for key, word in parts.items()}
    return element(graph, x, "batch_norm", **names, eps=words["eps"])


def scaled(words: Words) -> dict[str, str]:
    """The weight and bias of a norm."""
    if words["weight"] is None or words["bias"] is None:
        raise Refused("is a norm without weight and bias")
    return {key: stored(words[key], key) for key in ("weight", "bias")}


def layer_norm(graph: Graph, words: Words, node: Any) -> Value:
    """Layer norm over the channels."""
    x = graph.read(words["input"])
    if len(words["normalized_shape"]) != 1:
        raise Refused(f"normalises over {len(words['normalized_shape'])} sides, where the channels alone are known here")
    rows_of(graph, x.order, x.of.shape[2])
    return element(graph, x, "layer_norm", **scaled(words), eps=words["eps"])


def group_norm(graph: Graph, words: Words, node: Any) -> Value:
    """Group norm."""
    x = graph.read(words["input"])
    channels(graph, x, 1, whole=True)
    return element(graph, x, "group_norm", groups=words["num_groups"], **scaled(words), eps=words["eps"])


def pool(op: str) -> Callable[[Graph, Words, Any], Value]:
    """The rule of a pooling of windows."""

    def rule(graph: Graph, words: Words, node: Any) -> Value:
        must(words, divisor_override=None)
        must({"dilation": single(words.get("dilation", 1), "dilation")}, dilation=1)
        x = graph.as_image(words["self"])
        size, padding = pair(words["kernel_size"]), pair(words["padding"])
        stride = single(words["stride"], "stride") if words["stride"] else single(size, "stride")
        out = node.meta["val"].shape
        counted = op == "max_pool" or not any(padding) or words["count_include_pad"]
        settings = {"ceil": True} if words["ceil_mode"] else {}
        settings |= {} if counted else {"count_padding": False}
        settings |= {"padding": padding} if any(padding) else {}
        made = graph.add(op, [x], (out[2], out[3], out[1]), size=size, stride=stride, **settings)
        return Value(made, graph.image(made))

    return rule


def adaptive(graph: Graph, words: Words, node: Any) -> Value:
    """Means over the cells of a grid."""
    x = graph.as_image(words["self"])
    h, w = node.meta["val"].shape[2:]
    if (h, w) == (1, 1):
        made = graph.add("global_pool", [x], (1, 1, x.shape[2]))
    else:
        made = graph.add("adaptive_pool", [x], (h, w, x.shape[2]), height=h, width=w)
    return Value(made, graph.image(made))


def mean(graph: Graph, words: Words, node: Any) -> Value:
    """The mean over all positions."""
    x = graph.read(words["self"])
    h, w, c = x.of.shape
    axes = [axis % x.order.dim() for axis in words.get("dim") or range(x.order.dim())]
    kept = [axis for axis in range(x.order.dim()) if axis not in axes]
    lines = ((x.order // x.of.size) * c + x.order % c).permute(*kept, *axes).reshape(-1, h * w)  # sample and channel
    if math.prod(x.order.shape[axis] for axis in axes) != h * w or not same(lines, lines[:, :1].expand_as(lines)):
        raise Refused("is a mean over something else than all positions")
    return Value(graph.add("global_pool", [x.of], (1, 1, c)), lines[:, 0].reshape(node.meta["val"].shape))


def per_channel(value: Value, other: Value) -> bool:
    """Whether a stored tensor has one value for each channel of a node, in its order."""
    c = value.of.shape[2]
    if math.prod(other.of.shape) != c:
        return False
    try:
        order = other.order.expand(value.order.shape)
    except RuntimeError:
        return False
    return same(order, value.order % c)


def gates(a: Value, b: Value) -> bool:
    """Whether b has one value for each channel and sample of a."""
    (_, _, c), size = a.of.shape, a.of.size
    if b.of.shape != (1, 1, c):
        return False
    try:
        order = b.order.expand(a.order.shape)
    except RuntimeError:
        return False
    return same(order, (a.order // size) * c + a.order % c)


def added(scores: Any, mask: Any) -> Scores:
    """Scores with a mask added."""
    if scores.soft or scores.mask is not None:
        raise Refused("adds to scores that are masked, or behind their softmax")
    return replace(scores, mask=mask)


def masked_fill(graph: Graph, words: Words, node: Any) -> Scores:
    """Scores with another value where a mask is set."""
    scores, mask, value = words["self"], words["mask"], words["value"]
    value = float(value.tensor) if isinstance(value, Known) else value
    if not isinstance(scores, Scores) or not isinstance(mask, Known) or not isinstance(value, (int, float)):
        raise Refused("is no layer that is known here, but of scores of attention and a mask")
    if value > LEFT_OUT:
        raise Refused(f"fills masked scores with {value:g}, where a value of at most {LEFT_OUT:g} leaves them out")
    return added(scores, ~mask.tensor.bool())


def where(graph: Graph, words: Words, node: Any) -> Scores:
    """The same, written as a choice."""
    mask, a, b = words["condition"], words["self"], words["other"]
    if isinstance(mask, Known) and isinstance(b, Scores):
        a, b, mask = b, a, Known(~mask.tensor)
    if not isinstance(mask, Known) or not isinstance(a, Scores):
        raise Refused("is no layer that is known here, but of scores of attention and a mask")
    if isinstance(b, Known) and b.tensor.numel() == 1:
        b = float(b.tensor)
    return masked_fill(graph, {"self": a, "mask": Known(~mask.tensor), "value": b}, node)


def baddbmm(graph: Graph, words: Words, node: Any) -> Scores:
    """Queries times keys, and a mask added."""
    must(words, beta=1, alpha=1)
    scores = matmul(graph, {"self": words["batch1"], "mat2": words["batch2"]}, node)
    if not isinstance(scores, Scores) or not isinstance(words["self"], Known):
        raise Refused("adds what is no mask to a product")
    return added(scores, words["self"].tensor)


def embedding(graph: Graph, words: Words, node: Any) -> Value:
    """Rows of a table: by token ids; or by known numbers, as those of positions."""
    table, ids = words["weight"], words["indices"]
    stored(table, "table")
    _, c = table.of.shape
    if isinstance(ids, Known):
        return Value(table.of, ids.tensor.long().unsqueeze(-1) * c + graph.numbers(c))
    whole = isinstance(ids, Value) and ids.of.name == "ids"
    if not whole or not same(ids.order.flatten().sort().values, graph.numbers(ids.of.size * graph.samples)):
        raise Refused("reads rows by numbers that are not the token ids")
    made = graph.add("embedding", [ids.of], (*ids.of.shape[:2], c), table=table.of.name)
    return Value(made, ids.order.unsqueeze(-1) * c + graph.numbers(c))


def product(graph: Graph, words: Words, node: Any) -> Value | Scores:
    """A product with a number, a stored tensor, a gate, or an activation of the same values."""
    a, b = words["self"], words["other"]
    if isinstance(a, Known) or isinstance(b, Known):
        raise Refused("multiplies by what is computed of the mask or is a constant; a mask is what attention alone reads here")
    if isinstance(a, (int, float)) or isinstance(a, Value) and isinstance(a.of, Stored):
        a, b = b, a
    if isinstance(b, (int, float)):
        if isinstance(a, Scores) and not a.soft:
            return replace(a, factor=a.factor * b)
        return element(graph, a, "scale", factor=float(b))
    if not (isinstance(a, Value) and isinstance(b, Value) and isinstance(a.of, Node)):
        raise Refused("multiplies by what is neither a layer's output nor a tensor of the state_dict")
    if isinstance(b.of, Stored):
        if not per_channel(a, b):
            raise Refused(f"multiplies by `{b.of.name}` {list(b.of.shape)}, where one value for each channel is known here")
        return element(graph, a, "affine", scale=b.of.name)
    for x, y in ((a, b), (b, a)):
        if same(x.order, y.order) and (function := activated(graph, x.of, y.of)):
            return element(graph, x, "activation", function=function)
    a, b = graph.read(a), graph.read(b)
    for x, y in ((a, b), (b, a)):
        if gates(x, y):
            return Value(graph.add("gate", [x.of, y.of], x.of.shape), x.order)
    raise Refused("multiplies two layers' outputs, of which neither has one value for each channel")


def activated(graph: Graph, x: Node, y: Node) -> str | None:
    """The activation that is x times y, where y is a function of x."""
    made = graph.nodes.get(y.name, {})
    if made.get("op") != "activation":
        return None
    (source,) = made["inputs"]
    if source == x.name:
        return PRODUCTS.get(made["function"])
    before = graph.nodes.get(source, {})
    of_x = before.get("op") == "scale" and before["inputs"] == [x.name]
    return "quick_gelu" if of_x and settings(before) == {"factor": 1.702} and made["function"] == "sigmoid" else None


def quotient(graph: Graph, words: Words, node: Any) -> Value | Scores:
    """A quotient by a number; or by stored deviations, behind the difference from stored means."""
    must(words, rounding_mode=None)
    a, b = words["self"], words["other"]
    if isinstance(b, (int, float)) and b != 0:
        return product(graph, {"self": a, "other": 1 / b}, node)
    made = graph.nodes.get(a.of.name, {}) if isinstance(a, Value) and isinstance(a.of, Node) else {}
    if made.get("op") == "minus" and isinstance(b, Value) and isinstance(b.of, Stored) and per_channel_or_one(a, b):
        x = Node(made["inputs"][0], a.of.shape)
        return Value(graph.add("normalise", [x], x.shape, mean=made["mean"], std=b.of.name), a.order)
    raise Refused("divides by what is no number")


def per_channel_or_one(value: Value, other: Value) -> bool:
    """Whether a stored tensor has one value for each channel, or one for all."""
    return math.prod(other.of.shape) == 1 or per_channel(value, other)


def sum_of(graph: Graph, words: Words, node: Any) -> Value | Scores:
    """A sum with a number, a stored tensor, or the same values of another layer."""
    a, b, times = words["self"], words["other"], words["alpha"]
    for scores, mask in ((a, b), (b, a)):
        if isinstance(scores, Scores) and isinstance(mask, Known) and times == 1:
            return added(scores, mask.tensor)
    if not isinstance(a, Value) or isinstance(a.of, Stored):
        if times != 1:
            raise Refused(f"has alpha={times}, where only 1 is known here")
        a, b = b, a
    if isinstance(b, (int, float)):
        return element(graph, a, "scale", offset=float(b * times))
    if not (isinstance(a, Value) and isinstance(b, Value) and isinstance(a.of, Node)):
        raise Refused("adds what is neither a layer's output nor a tensor of the state_dict")
    if isinstance(b.of, Stored):
        return shifted(graph, a, b, times)
    if times != 1:
        b = element(graph, b, "scale", factor=float(times))
    a, b = graph.read(a), graph.read(b)
    if not same(a.order, b.order) or a.of.shape[2] != b.of.shape[2]:
        raise Refused("adds two layers' outputs of different shapes")
    if a.of.name == b.of.name:
        return element(graph, a, "scale", factor=2.0)
    first, second = graph.alike([a.of, b.of])
    return Value(graph.add("add", [first, second], first.shape), a.order)


def shifted(graph: Graph, a: Value, b: Value, times: float) -> Value:
    """A stored tensor added: the bias of a linear layer, a table of positions, or one value for each channel."""
    name = b.of.name
    if times == -1 and per_channel_or_one(a, b):
        return element(graph, a, "minus", mean=name)
    if times != 1:
        raise Refused(f"adds {times} times `{name}`")
    made = graph.nodes.get(a.of.name, {})
    if per_channel(a, b):
        if made.get("op") == "linear" and "bias" not in made:
            x = Node(made["inputs"][0], a.of.shape)
            return Value(graph.add("linear", [x], a.of.shape, **settings(made), bias=name), a.order)
        return element(graph, a, "affine", shift=name)
    size, c = a.of.size, a.of.shape[2]
    try:
        order = b.order.expand(a.order.shape)
    except RuntimeError:
        order = a.order - 1
    if b.of.shape[-1] == c and same(order, a.order % size):
        tokens = graph.tokens(a.of)
        return Value(graph.add("positions", [tokens], tokens.shape, table=name), a.order)
    if b.of.shape[-1] == c and same(order, a.order % c):
        tokens = graph.tokens(a.of)
        return Value(graph.add("row_to_all", [tokens], tokens.shape, table=name), a.order)
    raise Refused(f"adds `{name}` {list(b.of.shape)}, which is neither one value for each channel nor a table [1, tokens, c]")


def settings(node: dict[str, Any]) -> dict[str, Any]:
    """What a node has beside its place in the graph."""
    return {key: value for key, value in node.items() if key not in ("name", "inputs", "op")}


def difference(graph: Graph, words: Words, node: Any) -> Value:
    """A difference, as a sum."""
    if isinstance(words["self"], Value) and isinstance(words["self"].of, Node):
        return sum_of(graph, words | {"alpha": -words["alpha"]}, node)
    taken = element(graph, words["other"], "scale", factor=float(-words["alpha"]))
    return sum_of(graph, {"self": taken, "other": words["self"], "alpha": 1}, node)


def reversed_difference(graph: Graph, words: Words, node: Any) -> Value:
    """What is subtracted from, given second."""
    return difference(graph, {"self": words["other"], "other": words["self"], "alpha": words["alpha"]}, node)


def negated(graph: Graph, words: Words, node: Any) -> Value:
    """x times -1."""
    return element(graph, words["self"], "scale", factor=-1.0)


def concat(graph: Graph, words: Words, node: Any) -> Value:
    """Channels side by side; tokens before others; parts of one layer's values put together again."""
    import torch

    parts, axis = words["tensors"], words["dim"]
    if not all(isinstance(part, Value) for part in parts):
        raise Refused("joins what is neither a layer's output nor a tensor of the state_dict")
    if isinstance(parts[0].of, Node) and all(part.of == parts[0].of for part in parts):
        whole = torch.cat([part.order for part in parts], axis)
        if whole.unique().numel() == whole.numel():
            return Value(parts[0].of, whole)
    if isinstance(parts[0].of, Stored):
        return tokens_before(graph, parts, axis)
    read = [graph.read(part) for part in parts]
    for part in read:
        channels(graph, part, axis)
    rows = [part.order.narrow(axis, 0, 1) // part.of.shape[2] for part in read]
    if not all(same(rows[0], row) for row in rows):
        raise Refused("joins tensors of different positions")
    nodes = graph.alike([part.of for part in read])
    c = sum(node.shape[2] for node in nodes)
    made = graph.add("concat", nodes, (*nodes[0].shape[:2], c))
    sides = [1] * rows[0].dim()
    sides[axis] = c
    return Value(made, rows[0] * c + graph.numbers(c).view(sides))


def tokens_before(graph: Graph, parts: list[Value], axis: int) -> Value:
    """Learned tokens before those of a layer."""
    *learned, last = parts
    value = graph.read(last)
    node, c = value.of, value.of.shape[2]
    if axis % value.order.dim() != 1 or not same(value.order, graph.rows(node)):
        raise Refused("puts a stored tensor before what are no tokens [n, t, c]")
    for part in reversed(learned):
        if isinstance(part.of, Node) or len(part.of.shape) != 3 or part.of.shape[0] != 1:
            raise Refused("puts before the tokens what is no stored tensor [1, t, c]")
        _, count, _ = part.of.shape
        if not same(part.order, graph.numbers(*part.of.shape).expand(graph.samples, -1, -1)):
            raise Refused(f"puts a part of `{part.of.name}` before the tokens")
        node = graph.add("class_token", [graph.tokens(node)], (1, node.shape[0] * node.shape[1] + count, c), token=part.of.name)
    return Value(node, graph.rows(node))


def attention(graph: Graph, words: Words, node: Any) -> Value:
    """Softmax attention of queries, keys and values ``[n, heads, t, d]``."""
    must(words, dropout_p=0.0, is_causal=False, enable_gqa=False)
    mask = words.get("attn_mask")
    if mask is not None and not isinstance(mask, Known):
        raise Refused("has a mask that is a layer's output or a tensor of the state_dict")
    parts = [words[key] for key in ("query", "key", "value")]
    d = node.meta["val"].shape[-1]
    return attend(graph, parts, d**-0.5 if words.get("scale") is None else words["scale"], mask and mask.tensor)


def attend(graph: Graph, parts: list[Any], factor: float, mask: Any = None) -> Value:
    """Attention by the softmax of ``factor`` times queries times keys; the sides before the last two are samples and heads.

    ``mask`` is true where a query reads a key, or what is added to their score.
    """
    if not all(isinstance(part, Value) and isinstance(part.of, Node) for part in parts):
        raise Refused("attends to what is no layer's output")
    for i, part in enumerate(parts[:2]):  # queries or keys may be scaled before
        made = graph.nodes.get(part.of.name, {})
        if made.get("op") == "scale" and settings(made).keys() == {"factor"}:
            factor *= made["factor"]
            parts[i] = Value(Node(made["inputs"][0], part.of.shape), part.order)
    sides, n = parts[0].order.shape, graph.samples
    t, d = sides[-2:]
    if not math.isclose(factor, d**-0.5, rel_tol=1e-6):
        raise Refused(f"has scale={factor}, where one over the root of {d} is known here")
    if any(part.order.shape != sides for part in parts) or sides.numel() % (n * t * d):
        raise Refused("attends to keys or values of other shapes than the queries")
    heads = sides.numel() // (n * t * d)
    c = heads * d
    first = parts[0].of
    if all(part.of == first for part in parts) and first.size == 3 * t * c:
        wanted = [split(graph.numbers(n, t, 3, c)[:, :, i].reshape(n, t, c), heads) for i in range(3)]
        joined = graph.tokens(first)
    else:
        wanted = [split(graph.numbers(n, t, c), heads)] * 3
        joined = graph.add("concat", [graph.tokens(part.of) for part in parts], (1, t, 3 * c))
    if not all(same(part.order.reshape(n, heads, t, d), order) for part, order in zip(parts, wanted)):
        raise Refused("attends to queries, keys and values that are not the channels of the tokens, in this order")
    inputs = [joined, Node("mask", (1, t, 1))] if masks(graph, mask, (*sides[:-2], t, t)) else [joined]
    made = graph.add("attention", inputs, (1, t, c), heads=heads)
    return Value(made, split(graph.numbers(n, t, c), heads).reshape(sides))


def masks(graph: Graph, mask: Any, sides: tuple[int, ...]) -> bool:
    """Whether a mask leaves out the keys that the mask of a text leaves out; one that leaves out none is none."""
    import torch

    if mask is None:
        return False
    kept = mask if mask.dtype == torch.bool else mask == 0
    if not bool((kept | (mask <= LEFT_OUT)).all() if mask.dtype != torch.bool else True):
        raise Refused(f"adds to scores what is neither 0 nor below {LEFT_OUT:g}")
    try:
        kept = kept.expand(sides).reshape(graph.samples, -1, *sides[-2:])
    except RuntimeError:
        raise Refused(f"has a mask of shape {list(mask.shape)} for scores of shape {list(sides)}") from None
    if bool(kept.all()):
        return False
    if graph.mask is None or not same(kept, graph.mask.bool()[:, None, None, :].expand(kept.shape)):
        raise Refused("has a mask that is not that of the keys (attention_mask, 1 for a token that is attended)")
    return True


def split(numbers: Any, heads: int) -> Any:
    """``[n, t, c]`` as ``[n, heads, t, d]``."""
    n, t, c = numbers.shape
    return numbers.view(n, t, heads, c // heads).permute(0, 2, 1, 3)


def softmax(graph: Graph, words: Words, node: Any) -> Scores:
    """The softmax of the products of queries and keys."""
    scores = words["self"]
    if not isinstance(scores, Scores) or scores.soft or words["dim"] not in (-1, node.meta["val"].dim() - 1):
        raise Refused("is no layer that is known here, but within attention")
    return replace(scores, soft=True)


def nothing(graph: Graph, words: Words, node: Any) -> Value | Scores:
    """What computes nothing in eval mode."""
    must(words, train=False)
    value = words.get("self", words.get("input"))
    if isinstance(value, Scores):
        return value
    if isinstance(value, Value) and value.of.name == "ids" and not node.meta["val"].dtype.is_floating_point:
        return value
    if isinstance(value, Value) and node.meta["val"].dtype.is_floating_point:
        copied = node.target._schema.name == "aten::clone" and isinstance(value.of, Node)
        return Value(Node(value.of.name, value.of.shape), value.numbers) if copied else value
    raise Refused("makes something else of a tensor than floating-point numbers")


RULES: dict[str, Callable[[Graph, Words, Any], Any]] = {
    **{name: activation(function) for name, function in ACTIVATIONS.items()},
    **dict.fromkeys(NOTHING, nothing),
    "gelu": gelu,
    "softplus": softplus,
    "clamp": clamp,
    "clamp_min": clamp,
    "hardtanh": clamp,
    "conv2d": conv,
    "linear": linear,
    "matmul": matmul,
    "mm": matmul,
    "bmm": matmul,
    "softmax": softmax,
    "addmm": addmm,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "max_pool2d": pool("max_pool"),
    "avg_pool2d": pool("average_pool"),
    "adaptive_avg_pool2d": adaptive,
    "mean": mean,
    "mul": product,
    "div": quotient,
    "add": sum_of,
    "sub": difference,
    "rsub": reversed_difference,
    "neg": negated,
    "cat": concat,
    "concat": concat,
    "scaled_dot_product_attention": attention,
    "embedding": embedding,
    "masked_fill": masked_fill,
    "where": where,
    "baddbmm": baddbmm,
}
