"""A module of PyTorch as a graph of the library's layers (docs/GRAPH.md).

torch.export runs the module on a few samples and lists its operators; ``_operators`` has a rule for each. Operators that only
move values are carried out on numbers that stand for the values. Where a layer reads them, their order is compared with the
one that the layer takes, so a reshape may be written in any way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._graph import Graph, Node, Refused, Stored, Value, same
from ._operators import IGNORED, MOVES, RULES


@dataclass(frozen=True)
class Unfit:
    """Why a module is no graph of known layers: the place in it, the kind of what is there, and what is wrong."""

    path: str
    kind: str
    what: str

    def __str__(self) -> str:
        where = f"`{self.path}` ({self.kind})" if self.path else self.kind
        return f"{where} {self.what}"


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
