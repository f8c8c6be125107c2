"""PyG's contract: flow, hooks, methods of subclasses, explainers and aggregations. Values are those of e3nn, edge by
edge."""

import copy
import warnings

import pytest
import torch
from torch_geometric.explain.algorithm.utils import clear_masks, set_masks
from torch_geometric.nn.aggr import MaxAggregation

from pyg_cgconv import Edges, TensorProductConv
from tests.orders import INPUTS, IRREPS, SOURCES, TARGETS, assert_orders, expected_messages, orders

X, EDGE_INDEX, EDGE_ATTR, WEIGHT = INPUTS
FUSED = TensorProductConv(*IRREPS)
BACKENDS = ["auto", "reference"]


def summed(messages):
    return messages.new_zeros(SOURCES, messages.shape[1]).index_add(0, EDGE_INDEX[1], messages)


def expected(x, edge_index, edge_attr, weight):
    return summed(expected_messages(x, edge_index, edge_attr, weight))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("is_attribute", [False, True])
def test_flow_says_which_row_holds_the_sources(backend, is_attribute):
    layer = TensorProductConv(*IRREPS, backend=backend, flow="source_to_target" if is_attribute else "target_to_source")
    layer.flow = "target_to_source"
    assert_orders(orders(layer, X, EDGE_INDEX.flip(0), EDGE_ATTR, WEIGHT), orders(expected, *INPUTS))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("targets", [TARGETS, SOURCES, SOURCES + 3])
def test_pairs_are_source_and_target_in_either_flow(backend, targets):
    layer = TensorProductConv(*IRREPS, backend=backend, flow="target_to_source")
    wanted = FUSED((X, None), EDGE_INDEX, EDGE_ATTR, WEIGHT, size=(SOURCES, targets))
    reverse, features = EDGE_INDEX.flip(0), X.new_ones(targets, 3)
    for pair, size in (((X, None), (SOURCES, targets)), ((X, features), None)):
        torch.testing.assert_close(layer(pair, reverse, EDGE_ATTR, WEIGHT, size=size), wanted)
    edges = Edges(EDGE_INDEX, SOURCES, targets)
    torch.testing.assert_close(layer((X, None), edges, EDGE_ATTR, WEIGHT), wanted)


def test_an_unknown_flow_is_named():
    with pytest.raises(
        ValueError, match=r"^flow: expected one of \('source_to_target', 'target_to_source'\), got 'up'"
    ):
        TensorProductConv(*IRREPS, flow="up")


HOOKS = ["propagate_forward_pre", "propagate_forward", "message_forward_pre", "message_forward"]
HOOKS += ["aggregate_forward_pre", "aggregate_forward"]


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_are_called_and_change_nothing_by_themselves(hook):
    layer, calls = TensorProductConv(*IRREPS), []
    handle = getattr(layer, f"register_{hook}_hook")(lambda *arguments: calls.append(arguments))
    assert_orders(orders(layer, *INPUTS), orders(FUSED, *INPUTS))
    assert len(calls) == 1
    handle.remove()
    layer(*INPUTS)
    assert len(calls) == 1


@pytest.mark.parametrize("place", ["message", "aggregate", "propagate"])
def test_what_a_hook_returns_is_taken(place):
    layer = TensorProductConv(*IRREPS)
    getattr(layer, f"register_{place}_forward_hook")(lambda module, inputs, out: 2 * out)
    torch.testing.assert_close(layer(*INPUTS), 2 * FUSED(*INPUTS))


def test_what_a_hook_before_returns_is_taken():
    layer = TensorProductConv(*IRREPS)
    layer.register_message_forward_pre_hook(lambda module, inputs: {**inputs[0], "weight": 2 * inputs[0]["weight"]})
    torch.testing.assert_close(layer(*INPUTS), 2 * FUSED(*INPUTS))


class Differences(TensorProductConv):
    """Messages of what the ends of an edge differ in."""

    def message(self, x_i, x_j, edge_attr, weight):
        return super().message(x_j - x_i, edge_attr, weight)


class Tripled(TensorProductConv):
    def aggregate(self, inputs, index, ptr=None, dim_size=None):
        return 3 * super().aggregate(inputs, index, ptr, dim_size)


class Shifted(TensorProductConv):
    def update(self, inputs, x):
        return inputs + x.sum(1, keepdim=True)


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_a_message_of_both_ends(flow):
    def differences(x, edge_index, edge_attr, weight):
        source, target = edge_index
        return summed(expected_messages(x[source] - x[target], None, edge_attr, weight))

    layer = Differences(*IRREPS, flow=flow)
    edge_index = EDGE_INDEX if flow == "source_to_target" else EDGE_INDEX.flip(0)
    assert_orders(orders(layer, X, edge_index, EDGE_ATTR, WEIGHT), orders(differences, *INPUTS))
    others = X.flip(0)
    found = layer((X, others), edge_index, EDGE_ATTR, WEIGHT)
    source, target = EDGE_INDEX
    wanted = summed(expected_messages(X[source] - others[target], None, EDGE_ATTR, WEIGHT))
    torch.testing.assert_close(found, wanted)


def test_an_aggregation_of_a_subclass():
    assert_orders(orders(Tripled(*IRREPS), *INPUTS), orders(lambda *inputs: 3 * expected(*inputs), *INPUTS))
    torch.testing.assert_close(
        Tripled(*IRREPS, aggr="mean")(*INPUTS), 3 * TensorProductConv(*IRREPS, aggr="mean")(*INPUTS)
    )


def test_an_update_of_a_subclass():
    torch.testing.assert_close(Shifted(*IRREPS)(*INPUTS), expected(*INPUTS) + X.sum(1, keepdim=True))


def test_a_message_that_was_set():
    layer = TensorProductConv(*IRREPS)
    layer.message = lambda x_j, edge_attr, weight: torch.zeros_like(expected_messages(x_j, None, edge_attr, weight))
    assert not layer(*INPUTS).any()


@pytest.mark.parametrize("options", [{}, {"aggr": "mean"}, {"layout": "ir_mul"}, {"flow": "target_to_source"}], ids=str)
def test_without_fusion_messages_are_computed(options):
    layer, fused, messages = TensorProductConv(*IRREPS, **options), TensorProductConv(*IRREPS, **options), []
    layer.fuse = False
    compute = layer._reference
    layer._reference = lambda *inputs: messages.append(compute(*inputs)) or messages[-1]
    layer._reference.scatter = compute.scatter
    assert_orders(orders(layer, *INPUTS), orders(fused, *INPUTS))
    assert [message.shape for message in messages] == [(EDGE_INDEX.shape[1], layer.irreps_out.dim)]


def test_an_explainer_masks_messages():
    layer, mask = TensorProductConv(*IRREPS), torch.rand(EDGE_INDEX.shape[1], dtype=torch.float64)
    set_masks(layer, torch.nn.Parameter(mask), EDGE_INDEX, apply_sigmoid=False)
    torch.testing.assert_close(layer(*INPUTS), FUSED(X, EDGE_INDEX, EDGE_ATTR, WEIGHT * mask[:, None]))
    clear_masks(layer)
    torch.testing.assert_close(layer(*INPUTS), FUSED(*INPUTS))


def test_indices_out_of_range_are_named_on_the_message_path():
    layer = TensorProductConv(*IRREPS, backend="reference")
    with pytest.raises(ValueError, match=r"^edge_index: a source node is not in 0..4"):
        layer(X, EDGE_INDEX + 3, EDGE_ATTR, WEIGHT)
    with pytest.raises(ValueError, match=r"^edge_index: a target node is not in 0..1"):
        layer((X, None), EDGE_INDEX, EDGE_ATTR, WEIGHT, size=(SOURCES, 2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_indices_of_32_bits(backend):
    layer = TensorProductConv(*IRREPS, backend=backend)
    found = orders(layer, X, EDGE_INDEX.int(), EDGE_ATTR, WEIGHT)
    assert_orders(found, orders(expected, *INPUTS))


@pytest.mark.parametrize(("aggr", "reduce"), [("max", "amax"), ("min", "amin"), (MaxAggregation(), "amax")], ids=str)
def test_other_aggregations_run_on_messages_and_say_so(aggr, reduce):
    with pytest.warns(UserWarning, match=r"^aggr: .* has no fused kernel.* runs on the reference backend") as told:
        layer = TensorProductConv(*IRREPS, aggr=aggr)
    messages = expected_messages(*INPUTS)
    index = EDGE_INDEX[1][:, None].expand_as(messages)
    wanted = messages.new_zeros(SOURCES, messages.shape[1]).scatter_reduce(
        0, index, messages, reduce, include_self=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(layer(*INPUTS), wanted)
    assert len(told) == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(("name", "value"), [("aggr", "max"), ("aggr_module", MaxAggregation())], ids=str)
def test_an_aggregation_that_is_set_later_is_taken(name, value, backend, fuse):
    layer = TensorProductConv(*IRREPS, backend=backend)
    wanted = TensorProductConv(*IRREPS, aggr="max", backend="reference")
    layer.fuse = layer.fuse and fuse
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        setattr(layer, name, value)
    assert [str(w.message).startswith("aggr: ") for w in told] == [True] * (backend == "auto")
    assert_orders(orders(copy.deepcopy(layer), *INPUTS), orders(wanted, *INPUTS))
    layer.aggr = "mean"
    torch.testing.assert_close(layer(*INPUTS), TensorProductConv(*IRREPS, aggr="mean")(*INPUTS))


def test_an_aggregation_without_a_kernel_is_refused_by_a_layer_of_kernels():
    layer = TensorProductConv(*IRREPS, backend="cpu")
    for name, value in (("aggr", "max"), ("aggr_module", MaxAggregation()), ("aggr", "most"), ("aggr_module", None)):
        with pytest.raises(ValueError, match=r"^aggr: "):
            setattr(layer, name, value)
    torch.testing.assert_close(layer(*INPUTS), FUSED(*INPUTS))


@pytest.mark.parametrize("aggr", [None, 3, "most"])
def test_other_things_than_aggregations_are_named(aggr):
    with pytest.raises(ValueError, match=r"^aggr: "):
        TensorProductConv(*IRREPS, aggr=aggr)
