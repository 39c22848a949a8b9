"""Layers that can fetch, cast and transform their weights at each call."""

import copy

import pytest
import torch

from comfy import ops

MAKERS = {
    "Linear": (lambda kind: kind(4, 6), (2, 4)),
    "Conv1d": (lambda kind: kind(4, 6, 3), (2, 4, 5)),
    "Conv2d": (lambda kind: kind(4, 6, 3, padding=1), (2, 4, 5, 5)),
    "Conv3d": (lambda kind: kind(4, 6, 3), (2, 4, 5, 5, 5)),
    "GroupNorm": (lambda kind: kind(2, 4), (2, 4, 5)),
    "LayerNorm": (lambda kind: kind(4), (2, 4)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_adopted_layers_compute_what_torch_does_and_can_change_weights_per_call(name):
    make, shape = MAKERS[name]
    layer, x = make(getattr(torch.nn, name)), torch.randn(shape)
    expected = layer(x)
    weight = layer.weight
    ops.adopt_layers(layer)
    assert isinstance(layer, getattr(ops.disable_weight_init, name)) and layer.weight is weight
    torch.testing.assert_close(layer(x), expected)
    layer.weight_function, layer.bias_function = [lambda value: value.mul_(2)], [lambda value: value.mul_(2)]
    torch.testing.assert_close(layer(x), expected * 2)
    layer.weight_function, layer.bias_function = [], []
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("name", MAKERS)
def test_casting_layers_follow_their_input(name):
    make, shape = MAKERS[name]
    layer, x = make(getattr(torch.nn, name)).bfloat16(), torch.randn(shape)
    expected = copy.deepcopy(layer).float()(x)
    ops.adopt_layers(layer, ops.manual_cast)
    result = layer(x)
    assert result.dtype is torch.float32 and layer.weight.dtype is torch.bfloat16
    torch.testing.assert_close(result, expected)
    ops.adopt_layers(layer, ops.disable_weight_init)
    assert type(layer) is getattr(ops.disable_weight_init, name)


def test_embeddings_cast_the_rows_they_take():
    table = torch.nn.Embedding(5, 3).half()
    ops.adopt_layers(table)
    assert table(torch.tensor([1]), out_dtype=torch.float32).dtype is torch.float32
    ops.adopt_layers(table, ops.manual_cast)
    torch.testing.assert_close(table(torch.tensor([1, 4]), out_dtype=torch.float32), table.weight[[1, 4]].float())


def test_new_layers_do_not_initialise_and_weights_are_left_as_they_are():
    with torch.device("meta"):
        layer = ops.disable_weight_init.conv_nd(2, 3, 4, 1)
    assert layer.weight.is_meta and type(layer) is ops.disable_weight_init.Conv2d
    with pytest.raises(ValueError, match="4 dimensions"):
        ops.disable_weight_init.conv_nd(4, 1, 1, 1)


def test_the_layers_for_two_dtypes():
    assert ops.pick_operations(torch.float16, None) is ops.disable_weight_init
    assert ops.pick_operations(torch.float16, torch.float16) is ops.disable_weight_init
    assert ops.pick_operations(torch.float16, torch.float32) is ops.manual_cast


def test_weights_are_prepared_for_an_input_or_for_given_places():
    layer = ops.manual_cast.Linear(2, 2, bias=False, dtype=torch.float16)
    torch.nn.init.ones_(layer.weight)
    weight, bias = ops.cast_bias_weight(layer, torch.ones(1, 2))
    assert weight.dtype is torch.float32 and bias is None
    assert ops.cast_bias_weight(layer, dtype=torch.float16, device=torch.device("cpu"))[0] is not None
    assert ops.cast_to(layer.weight, torch.float16) is layer.weight
    assert ops.cast_to_input(layer.weight, torch.ones(1)).dtype is torch.float32


@pytest.mark.parametrize("name", MAKERS)
def test_prepared_weights_go_through_a_method_that_packs_replace(name, monkeypatch):
    make, shape = MAKERS[name]
    kind = getattr(ops.disable_weight_init, name)
    layer, calls = make(kind), []
    original = kind.forward_comfy_cast_weights
    monkeypatch.setattr(kind, "forward_comfy_cast_weights", lambda self, x: calls.append(self) or original(self, x), raising=False)
    for parameter in layer.parameters():
        torch.nn.init.ones_(parameter)
    layer(torch.randn(shape))
    assert calls == []
    layer.comfy_cast_weights = True
    layer(torch.randn(shape))
    assert calls == [layer]


def test_packs_may_ask_for_what_they_then_give_back():
    layer = ops.manual_cast.Linear(2, 2, dtype=torch.float16)
    weight, bias, stream = ops.cast_bias_weight(layer, torch.ones(1, 2), offloadable=True)
    assert weight.dtype is bias.dtype is torch.float32
    ops.uncast_bias_weight(layer, weight, bias, stream)


def test_a_layer_without_its_method_says_so():
    with pytest.raises(NotImplementedError, match="CastWeightBiasOp"):
        ops.CastWeightBiasOp().forward_comfy_cast_weights(torch.ones(1))
