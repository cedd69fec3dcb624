"""A graph of the library's layers that is being made (docs/GRAPH.md), and what tensors of a module are in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, int, int]


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
class Known:
    """A tensor that depends on no values of a layer: of the mask of a text, or on nothing. What it is was computed for one mask, in
    which the first token of each sample is attended, and each other one or not at random."""

    tensor: Any


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

    def __init__(self, samples: int, mask: Any = None) -> None:
        self.samples = samples
        self.mask = mask  # of texts, [n, t]: what a known tensor was computed of
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
