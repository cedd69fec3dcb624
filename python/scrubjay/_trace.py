"""A module of PyTorch as a graph of the library's layers (docs/GRAPH.md).

torch.export runs the module on a few samples and lists its operators; ``_operators`` has a rule for each. Operators that only
move values are carried out on numbers that stand for the values. Where a layer reads them, their order is compared with the
one that the layer takes, so a reshape may be written in any way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Unfit:
    """Why a module is no graph of known layers: the place in it, the kind of what is there, and what is wrong."""

    path: str
    kind: str
    what: str

    def __str__(self) -> str:
        where = f"`{self.path}` ({self.kind})" if self.path else self.kind
        return f"{where} {self.what}"


class Refused(Exception):
    """Something that has no layer here."""


@dataclass
class Node:
    """What a node of the graph gives for each sample: rows, columns, channels. An operator that works in place gives it another
    name."""

    name: str
    shape: Shape

    @property
    def size(self) -> int:
        """Values of a sample."""
        h, w, c = self.shape
        return h * w * c


@dataclass(frozen=True)
class Stored:
    """A tensor of the module's state."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A tensor of the trace: for each element its number among the values of a node, ``[n, h, w, c]``, or of a stored tensor; none
    of a stored tensor as it is."""

    of: Node | Stored
    numbers: Any = None

    @property
    def order(self) -> Any:
        """The numbers of its elements."""
        import torch

        if self.numbers is None:
            return torch.arange(math.prod(self.of.shape)).view(self.of.shape)
        return self.numbers


def same(a: Any, b: Any) -> bool:
    """Whether two tensors of numbers are equal; those that are one view of one memory are not read."""
    if a.shape != b.shape:
        return False
    return (a.data_ptr() == b.data_ptr() and a.stride() == b.stride()) or bool((a == b).all())


class Graph:
    """A graph that is being made, for ``samples`` samples."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.nodes: dict[str, dict[str, Any]] = {}
        self.path = ""  # of the operator that is read
        self._numbers: dict[int, Any] = {}

    def numbers(self, *sides: int) -> Any:
        """0, 1, 2 and so on, in these sides."""
        import torch

        count = math.prod(sides)
        if count not in self._numbers:
            self._numbers[count] = torch.arange(count)
        return self._numbers[count].view(sides)

    def rows(self, node: Node) -> Any:
        """The values of a node in their own order, ``[n, positions, c]``."""
        h, w, c = node.shape
        return self.numbers(self.samples, h * w, c)

    def image(self, node: Node) -> Any:
        """The values of a node as PyTorch has images, ``[n, c, h, w]``."""
        return self.numbers(self.samples, *node.shape).permute(0, 3, 1, 2)

    def add(self, op: str, inputs: list[Node], shape: Shape, **settings: Any) -> Node:
        """A new node."""
        name = stem = self.path or op
        number = 1
        while name in self.nodes or name in ("image", "ids", "mask"):
            number += 1
            name = f"{stem}_{number}"
        given = {key: value for key, value in settings.items() if value is not None}
        self.nodes[name] = {"name": name, "inputs": [node.name for node in inputs], "op": op, **given}
        return Node(name, shape)

    def read(self, value: Any) -> Value:
        """A tensor that a layer reads. One token, or all from one on, is a node of its own."""
        if not isinstance(value, Value) or isinstance(value.of, Stored):
            raise Refused("reads no values that depend on the input")
        node, order = value.of, value.order
        if order.numel() == self.samples * node.size:
            return value
        (h, w, c), rows = node.shape, self.rows(node)
        if order.numel() % (self.samples * c) == 0 and order.shape[-1] == c and order.shape[0] == self.samples:
            asked = order.reshape(self.samples, -1, c)
            first = int(asked[0, 0, 0]) // c
            if same(asked, rows[:, first : first + asked.shape[1]]):
                tokens = self.tokens(node)
                if asked.shape[1] == 1:
                    part = self.add("token", [tokens], (1, 1, c), index=first)
                elif first + asked.shape[1] == h * w:
                    part = self.add("tokens_from", [tokens], (1, asked.shape[1], c), first=first)
                else:
                    raise Refused("reads a part of the tokens, which has no layer here")
                return Value(part, self.numbers(*order.shape))
        raise Refused("reads a part of the values of another layer, which has no layer here")

    def tokens(self, node: Node) -> Node:
        """A node as a row of tokens."""
        h, w, c = node.shape
        return node if h == 1 else self.add("tokens", [node], (1, h * w, c))

    def as_image(self, value: Any) -> Node:
        """The node of a tensor ``[n, c, h, w]``."""
        value = self.read(value)
        node = value.of
        if value.order.dim() != 4:
            raise Refused(f"reads a tensor of {value.order.dim()} sides, where [n, c, h, w] is known here")
        _, c, h, w = value.order.shape
        seen = Node(node.name, (h, w, c))
        if c != node.shape[2] or not same(value.order, self.image(seen)):
            raise Refused("reads values whose order is not [n, c, h, w]")
        return node if node.shape == seen.shape else self.add("image", [node], seen.shape, height=h, width=w)

    def alike(self, nodes: list[Node]) -> list[Node]:
        """Nodes of the same positions, of which some may be images and others tokens."""
        sides = {node.shape[:2] for node in nodes}
        return nodes if len(sides) == 1 else [self.tokens(node) for node in nodes]

    def listed(self, last: Node) -> list[dict[str, Any]]:
        """The nodes that the last one needs, in order."""
        needed, open_ = set(), [last.name]
        while open_:
            name = open_.pop()
            if name not in needed and name in self.nodes:
                needed.add(name)
                open_ += self.nodes[name]["inputs"]
        if any(self.nodes[name]["op"] == "minus" for name in needed):
            raise Refused("depends on a difference from a stored tensor, which has no layer here without a division")
        return [node for name, node in self.nodes.items() if name in needed]


def place(node: Any) -> tuple[str, str]:
    """The module in which an operator is called, and its class where that is one of PyTorch's own; else the operator."""
    path, kind = (list((node.meta.get("nn_module_stack") or {}).values()) or [("", "")])[-1]
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    path = re.sub(r"@\d+", "", path)  # of a second call
    own = kind.startswith("torch.nn.modules.") and ".container." not in kind
    return path, kind.rsplit(".", 1)[-1] if own else operator(node)


def operator(node: Any) -> str:
    """The name of an operator, that of the one that does not work in place."""
    schema = getattr(node.target, "_schema", None)
    name = schema.name.split("::")[-1] if schema is not None else getattr(node.target, "__name__", str(node.target))
    return name.rstrip("_") if not name.startswith("_") else name


def graph_of(module: Any, x: Any, known: Callable[[str], str]) -> tuple[dict[str, Any] | None, Unfit | None]:
    """The graph of a module that is in eval mode and takes ``x``, as a config.json has it; or why there is none.

    ``known`` gives the name of a stored tensor of the module: one name for tensors that are the same memory.
    """
    import torch

    kind = type(module).__name__
    try:
        program = torch.export.export(module, (x,), strict=False)
    except Exception as error:  # what depends on values, and much else
        first = str(error).strip().splitlines() or [type(error).__name__]
        return None, Unfit("", kind, f"cannot be traced: {first[0]}")
    signature = program.graph_signature
    graph, at = Graph(len(x)), None
    env: dict[Any, Any] = {}
    try:
        for node in program.graph.nodes:
            if node.op == "placeholder":
                env[node] = given(graph, node, signature, known, x)
            elif node.op == "output":
                at = node.args[0][0]
                listed = graph.listed(answer(graph, node.args[0], env))
            else:
                at = node
                env[node] = apply(graph, node, env)
    except Refused as refused:
        return None, Unfit(*(place(at) if at is not None else ("", kind)), str(refused))
    sides = [*x.shape[1:], 1, 1][:3]
    return {"architecture": "graph", "input_size": sides, "nodes": listed}, None


def given(graph: Graph, node: Any, signature: Any, known: Callable[[str], str], x: Any) -> Any:
    """What a placeholder of a trace stands for: a stored tensor, or the input."""
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    lost, inputs = signature.non_persistent_buffers, signature.user_inputs
    if node.name in names and names[node.name] not in lost:
        sides = tuple(node.meta["val"].shape)
        return Value(Stored(known(names[node.name]), sides))
    if node.name not in inputs:
        return None  # refused where it is read
    c, h, w = [*x.shape[1:], 1, 1][:3]
    image = Node("image", (h, w, c))
    return Value(image, graph.image(image).reshape(x.shape))


def answer(graph: Graph, results: Any, env: dict[Any, Any]) -> Node:
    """The node of what a module returns."""
    if len(results) != 1:
        raise Refused(f"is the first of {len(results)} tensors that the module returns, where logits alone were expected")
    value = graph.read(env.get(results[0]))
    _, _, c = value.of.shape
    if value.of.size != c or not same(value.order, graph.numbers(graph.samples, c)) or value.of.name not in graph.nodes:
        raise Refused(f"gives {list(value.order.shape)}, and as the last layer it must give logits [n, classes]")
    return value.of


def apply(graph: Graph, node: Any, env: dict[Any, Any]) -> Any:
    """What an operator gives."""
    from ._operators import IGNORED, MOVES, RULES

    name = operator(node)
    graph.path, kind = place(node)
    if name in IGNORED:
        return None
    args = tuple(looked(arg, env) for arg in node.args)
    words = {key: looked(arg, env) for key, arg in node.kwargs.items()}
    if name == "getitem":
        return args[0][args[1]]
    if schema := getattr(node.target, "_schema", None):
        words = {arg.name: value for arg, value in zip(schema.arguments, args)} | words
        words = {arg.name: words.get(arg.name, arg.default_value) for arg in schema.arguments}
    if name in MOVES:
        return moved(node, name, words)
    if name not in RULES:
        raise Refused("is no layer that is known here")
    result = RULES[name](graph, words, node)
    if schema and schema.name.endswith("_") and isinstance(result, Value) and result is not words["self"]:
        return in_place(words["self"], result)
    return result


def looked(arg: Any, env: dict[Any, Any]) -> Any:
    """An argument, with values in the place of nodes of the trace."""
    if isinstance(arg, (tuple, list)):
        return [looked(one, env) for one in arg]
    return env.get(arg) if type(arg).__module__ == "torch.fx.node" else arg


def moved(node: Any, name: str, words: dict[str, Any]) -> Any:
    """An operator that moves values, carried out on their numbers."""
    import torch

    value = words.pop("self")
    if not isinstance(value, Value):
        raise Refused("reads what is neither a layer's output nor a tensor of the state_dict")
    target = node.target
    if name in ("view", "_unsafe_view"):  # the numbers may lie otherwise than the values
        if "size" not in words:
            raise Refused("reads values as of another type")
        target, words = torch.ops.aten.reshape.default, {"shape": words["size"]}
    result = target(value.order, **words)
    if isinstance(result, (tuple, list)):
        return [Value(value.of, part) for part in result]
    return Value(value.of, result)


def in_place(value: Value, result: Value) -> Value:
    """A result that takes the place of what it was made of, in all views of it."""
    if not isinstance(value.of, Node) or value.order.numel() != result.order.numel() or not same(value.order, result.order):
        raise Refused("changes a part of a tensor in place")
    value.of.name, value.of.shape = result.of.name, result.of.shape
    return value
