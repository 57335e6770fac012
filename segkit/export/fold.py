"""Batch normalisation folded into the convolution before it.

Shapes: C/D channels in/out, g groups, k kernel size.
"""

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

aten = torch.ops.aten
CONV, TRANSPOSED, NORM = aten.conv2d.default, aten.conv_transpose2d.input, aten.batch_norm.default
BIAS, GROUPS = 2, 6  # their places among the arguments of both convolutions


@torch.no_grad()
def fold_batch_norms(graph: GraphModule) -> int:
    """Folds every batch norm whose input is a convolution that nothing else reads; in place.

    In evaluation mode a batch norm is y = scale * x + shift per channel, so that the convolution computes it too with its weights times
    scale, and a bias. The graph of what is computed decides, not the order of modules: a norm behind a sum or a concatenation, a
    convolution that has a second reader, and weights that are used twice stay as they are.

    Args:
        graph: A network in evaluation mode, as `torch.export.export(...).module()` writes it out.

    Returns:
        How many were folded.
    """
    folded = 0
    for norm in graph.graph.find_nodes(op="call_function", target=NORM):
        conv, *statistics, training, _, eps = norm.args[:8]
        if conv.target not in (CONV, TRANSPOSED) or len(conv.users) > 1 or training:
            continue
        if not _own(conv.args[1]) or not _own(_argument(conv, BIAS)):
            continue
        gamma, beta, mean, variance = (_value(graph, node) for node in statistics)
        assert mean is not None
        assert variance is not None
        scale = (variance.double() + eps).rsqrt() * (1 if gamma is None else gamma.double())
        weight, bias = _value(graph, conv.args[1]), _value(graph, _argument(conv, BIAS))
        assert weight is not None
        shift = ((0 if bias is None else bias.double()) - mean.double()) * scale + (0 if beta is None else beta.double())
        groups = _argument(conv, GROUPS) or 1
        assert isinstance(groups, int)
        _set(graph, conv.args[1].target, _scaled(weight, scale, groups if conv.target == TRANSPOSED else None))
        place = f"{conv.args[1].target.rpartition('.')[0]}.bias".removeprefix(".")
        _set(graph, place, shift.to(weight.dtype))
        with graph.graph.inserting_before(conv):
            conv.args = (*conv.args[:BIAS], graph.graph.get_attr(place), *conv.args[BIAS + 1 :])
        norm.replace_all_uses_with(conv)
        graph.graph.erase_node(norm)
        folded += 1
    graph.graph.eliminate_dead_code()
    _drop_unused(graph)
    graph.recompile()
    return folded


def _scaled(weight: Tensor, scale: Tensor, groups: int | None) -> Tensor:
    """Weights times a factor per output channel: `[D, C/g, k, k]`, or, of a transposed convolution, `[C, D/g, k, k]` with its `groups`."""
    if groups is None:
        return (weight.double() * scale[:, None, None, None]).to(weight.dtype)
    c, d, *kernel = weight.shape
    grouped = weight.double().view(groups, c // groups, d, *kernel) * scale.view(groups, 1, d, 1, 1)
    return grouped.view_as(weight).to(weight.dtype)


def _argument(node: Node, place: int) -> object:
    return node.args[place] if len(node.args) > place else None


def _own(node: object) -> bool:
    """Whether a parameter, where there is one, has no second reader."""
    return not isinstance(node, Node) or (node.op == "get_attr" and len(node.users) == 1)


def _value(graph: GraphModule, node: object) -> Tensor | None:
    if node is None:
        return None
    assert isinstance(node, Node)
    path, _, name = str(node.target).rpartition(".")
    value: Tensor = getattr(graph.get_submodule(path), name)
    return value


def _set(graph: GraphModule, target: object, value: Tensor) -> None:
    path, _, name = str(target).rpartition(".")
    owner = graph.get_submodule(path)
    if name in owner._buffers:
        del owner._buffers[name]
    owner.register_parameter(name, nn.Parameter(value, requires_grad=False))


def _drop_unused(graph: GraphModule) -> None:
    used = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [*dict(graph.named_parameters()), *dict(graph.named_buffers())]:
        if name not in used:
            path, _, last = name.rpartition(".")
            delattr(graph.get_submodule(path), last)
