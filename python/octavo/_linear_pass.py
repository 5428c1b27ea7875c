"""A pass over torch.compile's graphs, for what torch does not know about quantized Linears.

Between a decoder layer's linears stand kernels that torch generates. A linear's kernel asks for its first weights
while the one in front still runs (programmatic dependent launch), but torch's let it start only when they end. So in
front of quantized Linears the pass puts Octavo's RMSNorm, with the addition of the residual, and its SiLU · up, which
let it start at once. And Linears of one input become one product, since every kernel begins and ends slowly.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch._inductor.pattern_matcher import Match, PatternMatcherPass, fwd_only, register_replacement
from torch.utils._pytree import tree_map

from . import ops  # noqa: F401  (registers the operators)

_aten, _ops = torch.ops.aten, torch.ops.octavo
_PRODUCTS = (_ops.linear.default, _ops.linear_w8a8.default, _ops.linear_w8a8_static.default)
# The operator that joins them, and how many of their arguments behind x are tensors: the weight and bias.
_JOINED = {
    _ops.linear.default: (_ops.linear_joined.default, 4),
    _ops.linear_w8a8.default: (_ops.linear_w8a8_joined.default, 3),
}


class QuantizedLinearPass(CustomGraphPass):
    """The pass of compile_options(), over inductor's graph of ATen operators (post_grad_custom_pre_pass).

    Args:
        devices: types of device, such as "cuda", on which something is replaced.
    """

    def __init__(self, devices: Iterable[str]):
        self._devices = tuple(devices)
        self._patterns = PatternMatcherPass(pass_name="octavo")
        for dtype in (torch.float16, torch.bfloat16):
            self._add_patterns(dtype)

    def __deepcopy__(self, memo: dict) -> QuantizedLinearPass:
        return self  # it never changes, and transformers copies options

    def uuid(self) -> Any:
        return get_hash_for_files((__file__,), repr(self._devices))

    def __call__(self, graph: fx.Graph) -> None:
        self._patterns.apply(graph)
        for node in self._calls(graph, _ops.rms_norm.default):
            _add_residual(node)
        for nodes in self._of_one_input(graph):
            _join(nodes)
        for node in self._calls(graph, _ops.silu_mul.default):
            _take_halves(node)
        graph.eliminate_dead_code()

    def _calls(self, graph: fx.Graph, *targets: Any) -> list[fx.Node]:
        """Calls of operators that return a tensor, in the graph's order."""
        calls = (node for node in graph.nodes if node.op == "call_function" and node.target in targets)
        return [node for node in calls if node.meta["val"].device.type in self._devices]

    def _add_patterns(self, dtype: torch.dtype) -> None:
        x, weight = torch.empty(2, 3, 8, dtype=dtype), torch.empty(8, dtype=dtype)
        register_replacement(
            _rms_norm, _octavo_rms_norm, [x, weight], fwd_only, self._patterns, self._is_normalized_row,
            scalar_workaround={"eps": 1e-6},
        )  # fmt: skip
        register_replacement(
            _silu_mul, _octavo_silu_mul, [x, x.clone()], fwd_only, self._patterns, self._is_product_of_rows
        )

    def _is_normalized_row(self, match: Match) -> bool:
        y = match.output_node()
        x, weight = match.kwargs["x"], match.kwargs["weight"]
        alike = _is_like(x, y) and _is_like(weight, y, y.meta["val"].shape[-1:])
        eps = match.kwargs.get("eps")  # a number, or a symbol's node
        return alike and not _is_tensor(eps) and self._stands_before_product(y)

    def _is_product_of_rows(self, match: Match) -> bool:
        y = match.output_node()
        return all(_is_like(match.kwargs.get(name), y) for name in ("gate", "up")) and self._stands_before_product(y)

    def _stands_before_product(self, y: fx.Node) -> bool:
        return y.meta["val"].device.type in self._devices and any(
            user.target in _PRODUCTS and user.args[0] is y for user in y.users
        )

    def _of_one_input(self, graph: fx.Graph) -> list[list[fx.Node]]:
        """Products of one input and format, with no other product between them: far apart, results would wait long."""
        runs, last = [], None
        for node in self._calls(graph, *_PRODUCTS):
            key = _form(node)
            if key is None or key != last:
                runs.append([])
            runs[-1].append(node)
            last = key
        return [run for run in runs if len(run) > 1]


# --- What is looked for, and what takes its place ---------------------------------------------------------------------


def _rms_norm(x, weight, eps):
    wide = x.to(torch.float32)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


def _octavo_rms_norm(x, weight, eps):
    return _ops.rms_norm.default(x, weight, eps)


def _silu_mul(gate, up):
    return F.silu(gate) * up


def _octavo_silu_mul(gate, up):
    return _ops.silu_mul.default(gate, up)


# --- Rewriting --------------------------------------------------------------------------------------------------------


def _values(nodes: Iterable[Any]) -> list[torch.Tensor]:
    return [node.meta["val"] for node in nodes if isinstance(node, fx.Node)]


def _is_tensor(node: Any) -> bool:
    return isinstance(node, fx.Node) and isinstance(node.meta["val"], torch.Tensor)


def _is_like(node: Any, y: fx.Node, shape: torch.Size | None = None) -> bool:
    """Whether it is a tensor of y's type, and of y's shape or another."""
    if not _is_tensor(node):
        return False
    value, expected = node.meta["val"], y.meta["val"]
    return value.dtype == expected.dtype and value.shape == (expected.shape if shape is None else shape)


def _is_given(node: Any) -> bool:
    """Whether it is there before the first operation."""
    return not isinstance(node, fx.Node) or node.op == "placeholder"


def _form(product: fx.Node) -> tuple | None:
    """What products that can be joined have in common: the operator, x, and the weight's format."""
    if product.target not in _JOINED or product.kwargs:
        return None
    _, tensors = _JOINED[product.target]
    x, *arguments = product.args
    weight = arguments[:tensors]
    if not all(map(_is_given, weight)):
        return None
    return product.target, x, *(part is None for part in weight), *arguments[tensors:]


def _is_returned(node: fx.Node) -> bool:
    """Whether the graph returns it or a view of it."""

    def shares_memory(user: fx.Node) -> bool:
        return user.target is operator.getitem or getattr(user.target, "is_view", False)

    return any(user.op == "output" or (shares_memory(user) and _is_returned(user)) for user in node.users)


def _call(graph: fx.Graph, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    node = graph.call_function(target, args, kwargs)
    fake = tree_map(lambda a: a.meta["val"] if isinstance(a, fx.Node) else a, args)
    with next(a for a in _values(node.all_input_nodes) if isinstance(a, torch.Tensor)).fake_mode:
        node.meta["val"] = target(*fake, **kwargs)
    return node


def _add_residual(norm: fx.Node) -> None:
    """rms_norm(x + residual), of which one is a Linear's output → add_rms_norm."""
    total, weight, eps = norm.args
    if total.target is not _aten.add.Tensor or total.kwargs or not (_is_given(weight) and _is_given(eps)):
        return
    parts = total.args
    if not all(_is_like(part, total) for part in parts) or not any(part.target in _PRODUCTS for part in parts):
        return
    graph = norm.graph
    with graph.inserting_before(total):
        both = _call(graph, _ops.add_rms_norm.default, *parts, weight, eps)
        y, new_total = (_getitem(graph, both, i) for i in range(2))
    norm.replace_all_uses_with(y)
    total.replace_all_uses_with(new_total)
    graph.erase_node(norm)
    graph.erase_node(total)


def _getitem(graph: fx.Graph, node: fx.Node, index: int) -> fx.Node:
    item = graph.call_function(operator.getitem, (node, index))
    item.meta["val"] = node.meta["val"][index]
    return item


def _join(nodes: list[fx.Node]) -> None:
    """Products of one x → their operator of _JOINED, and its parts."""
    graph, (x, *arguments) = nodes[0].graph, nodes[0].args
    joining, count = _JOINED[nodes[0].target]
    # Of each tensor all nodes', or none.
    lists = [[] if first is None else [n.args[1 + i] for n in nodes] for i, first in enumerate(arguments[:count])]
    with graph.inserting_before(nodes[0]):
        joined = _call(graph, joining, x, *lists, *arguments[count:])
        sizes = [weight.shape[0] for weight in _values(lists[0])]
        parts = _call(graph, _aten.split_with_sizes.default, joined, sizes, -1)
        outputs = [_getitem(graph, parts, i) for i in range(len(nodes))]
        # What is returned has the strides, and no more memory, than it had.
        contiguous = dict(memory_format=torch.contiguous_format)
        outputs = [
            _call(graph, _aten.clone.default, output, **contiguous) if _is_returned(node) else output
            for node, output in zip(nodes, outputs, strict=True)
        ]
    for node, output in zip(nodes, outputs, strict=True):
        node.replace_all_uses_with(output)
        graph.erase_node(node)


def _take_halves(node: fx.Node) -> None:
    """silu_mul(gate, up) of two halves of one tensor → silu_mul(both): its kernel reads them where they are."""
    gate, up = node.args
    if not all(part is not None and part.target is operator.getitem for part in (gate, up)):
        return
    (parts, first), (others, second) = gate.args, up.args
    if parts is not others or (first, second) != (0, 1) or parts.target is not _aten.split_with_sizes.default:
        return
    both, sizes, dim = parts.args
    if dim != -1 or len(sizes) != 2 or sizes[0] != sizes[1]:
        return
    graph = node.graph
    with graph.inserting_before(node):  # changed in place, it would keep the strides that its arguments had
        y = _call(graph, node.target, both, None)
    node.replace_all_uses_with(y)
    graph.erase_node(node)
