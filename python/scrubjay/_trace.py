"""A module of PyTorch as a graph of the library's layers (docs/GRAPH.md).

torch.export runs the module on a few samples and lists its operators; ``_operators`` has a rule for each. Operators that only
move values are carried out on numbers that stand for the values. Where a layer reads them, their order is compared with the
one that the layer takes, so a reshape may be written in any way.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ._graph import Graph, Known, Node, Refused, Stored, Value, same
from ._operators import IGNORED, LIKE, MOVES, NOTHING, RULES, Scores


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


def arguments(module: Any, x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How a module is called with inputs: an image, or the ids and the mask of texts (a mapping).

    Texts go by the names ``input_ids`` and ``attention_mask`` where the module knows the first of them; else ids, and then the mask
    where a second argument has no default or is called a mask.
    """
    if not isinstance(x, Mapping):
        return (x,), {}
    taken = inspect.signature(module.forward).parameters
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ordered = [one for one in taken.values() if one.kind in positional]
    anything = any(one.kind is one.VAR_KEYWORD for one in taken.values())
    if "input_ids" in taken or (anything and not ordered):
        return (), {name: values for name, values in x.items() if anything or name in taken}
    if "attention_mask" in taken:
        return (x["input_ids"],), {"attention_mask": x["attention_mask"]}
    second = ordered[1] if len(ordered) > 1 else None
    masked = second is not None and (second.default is inspect.Parameter.empty or "mask" in second.name)
    return (x["input_ids"], x["attention_mask"]) if masked else (x["input_ids"],), {}


def graph_of(module: Any, x: Any, known: Callable[[str], str]) -> tuple[dict[str, Any] | None, Unfit | None]:
    """The graph of a module that is in eval mode and takes ``x``, as a config.json has it; or why there is none.

    ``x`` is images, or a mapping of the ids and the mask of texts. ``known`` gives the name of a stored tensor of the module: one
    name for tensors that are the same memory.
    """
    import torch

    kind = type(module).__name__
    args, words = arguments(module, x)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # PyTorch's own kernel for whole layers, which no operator shows
    try:
        program = torch.export.export(module, args, words, strict=False)
    except Exception as error:  # what depends on values, and much else
        first = str(error).strip().splitlines() or [type(error).__name__]
        return None, Unfit("", kind, f"cannot be traced: {first[0]}")
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    signature = program.graph_signature
    texts = isinstance(x, Mapping)
    graph = Graph(len(x["input_ids"]), some_mask(x["input_ids"].shape)) if texts else Graph(len(x))
    at = None
    named = signature.user_inputs
    inputs = dict(zip(named, [*args, *words.values()])) | {name: words[name] for name in named if name in words}
    env: dict[Any, Any] = {}
    try:
        for node in program.graph.nodes:
            if node.op == "placeholder":
                env[node] = given(graph, node, program, known, inputs.get(node.name), x)
            elif node.op == "output":
                at = node.args[0][0]
                listed = graph.listed(answer(graph, node.args[0], env))
            else:
                at = node
                env[node] = apply(graph, node, env)
    except Refused as refused:
        return None, Unfit(*(place(at) if at is not None else ("", kind)), str(refused))
    takes = {"tokens": x["input_ids"].shape[1]} if texts else {"input_size": [*x.shape[1:], 1, 1][:3]}
    return {"architecture": "graph", **takes, "nodes": listed}, None


def some_mask(sides: Any) -> Any:
    """A mask of which the first token of each sample is attended, and each other one or not at random."""
    import torch

    mask = torch.randint(0, 2, sides, generator=torch.Generator().manual_seed(0))
    mask[:, 0] = 1
    return mask


def given(graph: Graph, node: Any, program: Any, known: Callable[[str], str], value: Any, x: Any) -> Any:
    """What a placeholder of a trace stands for: a stored tensor, a constant, or the input that has this value."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    if node.name in names:
        name = names[node.name]
        if name in program.constants:
            return Known(program.constants[name].clone())
        if not node.meta["val"].dtype.is_floating_point:  # numbers of positions, and the like
            return Known(program.state_dict[name].clone())
        return Value(Stored(known(name), tuple(node.meta["val"].shape)))
    if value is None:
        return None  # refused where it is read
    if isinstance(x, Mapping):
        ids = Node("ids", (1, x["input_ids"].shape[1], 1))
        read = value is x["input_ids"]
        return Value(ids, graph.numbers(*x["input_ids"].shape)) if read else Known(graph.mask.clone())
    c, h, w = [*x.shape[1:], 1, 1][:3]
    image = Node("image", (h, w, c))
    return Value(image, graph.image(image).reshape(x.shape))


def answer(graph: Graph, results: Any, env: dict[Any, Any]) -> Node:
    """The node of what a module returns."""
    if len(results) != 1:
        raise Refused(f"is the first of {len(results)} tensors that the module returns, where logits alone were expected")
    value = graph.read(env.get(results[0]))
    _, _, c = value.of.shape
    if value.of.size != c or value.of.name == "ids" or not same(value.order, graph.numbers(graph.samples, c)) or value.of.name not in graph.nodes:
        raise Refused(f"gives {list(value.order.shape)}, and as the last layer it must give logits [n, classes]")
    return value.of


def apply(graph: Graph, node: Any, env: dict[Any, Any]) -> Any:
    """What an operator gives."""
    import torch

    name = operator(node)
    graph.path, kind = place(node)
    if name in IGNORED:
        return None
    args = tuple(looked(arg, env) for arg in node.args)
    words = {key: looked(arg, env) for key, arg in node.kwargs.items()}
    if name == "getitem":
        return args[0][args[1]]
    schema = getattr(node.target, "_schema", None)
    if schema:
        words = {arg.name: value for arg, value in zip(schema.arguments, args)} | words
        words = {arg.name: words.get(arg.name, arg.default_value) for arg in schema.arguments}
    if schema and not any(isinstance(one, (Value, Scores)) for one in flat(words)):
        return computed(node, env)
    if name in MOVES:
        return moved(node, name, words)
    if name in LIKE:
        like = node.args[0].meta["val"]
        return Known(node.target(torch.empty(like.shape, dtype=like.dtype), *node.args[1:], **node.kwargs))
    reads_ids = any(isinstance(one, Value) and isinstance(one.of, Node) and one.of.name == "ids" for one in flat(words))
    if reads_ids and name not in ("embedding", *NOTHING):
        raise Refused("computes with token ids, which embeddings alone read here; which tokens count is told by attention_mask")
    if name not in RULES:
        raise Refused("is no layer that is known here")
    result = RULES[name](graph, words, node)
    if schema and schema.name.endswith("_") and isinstance(result, Value) and result is not words["self"]:
        return in_place(words["self"], result)
    return result


def flat(words: dict[str, Any]) -> list[Any]:
    """The arguments, and what lists of them hold."""
    return [one for value in words.values() for one in (value if isinstance(value, list) else [value])]


def computed(node: Any, env: dict[Any, Any]) -> Any:
    """What an operator gives that reads no values of a layer."""

    def bare(arg: Any) -> Any:
        value = looked(arg, env)
        if isinstance(value, list):
            return [bare(one) for one in arg]
        return value.tensor if isinstance(value, Known) else value

    try:
        result = node.target(*map(bare, node.args), **{key: bare(arg) for key, arg in node.kwargs.items()})
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise Refused(f"cannot be computed before there are inputs: {error}") from error
    return [Known(one) for one in result] if isinstance(result, (tuple, list)) else Known(result)


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
