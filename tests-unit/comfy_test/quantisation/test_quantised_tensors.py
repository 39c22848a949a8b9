"""Quantised tensors and layers: what they mean, by the formats' definitions, and what becomes of them when values change."""

import pytest
import torch
from quantised_files import KINDS, OTHER_CODES, quantised, settings_for

import comfy.ops
import comfy.quant_ops
from comfy.families.conversion_plan import assign
from comfy.families.quantised_layers import is_padded, settled
from comfy.quantisation import formats, kitchen
from comfy.quantisation.linear import allow_few_bits, allow_plain_fp8
from comfy.quantisation.weights import LayerSettings, dequantised, in_dtype, is_quantised, quantised_weight, requantised, with_shape
from comfy.ram_model_cache.checksums import checksum
from comfy.residency.simulated import SimulatedDevice
from comfy.wrapper_tensors import inner_tensors, parameter_over, rebuilt, stored_bytes

pytest.importorskip("comfy_kitchen", reason=kitchen.INSTALL)
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(kind, shape=(96, 64), dtype=torch.float32):
    """(the tensor, its values by definition, the stored tensors)."""
    stored, values = quantised(kind, numbers(*shape))
    scales = {suffix: tensor for suffix, tensor in stored.items() if suffix != "weight"}
    layer = formats.read_settings(settings_for(kind))
    padded = shape if layer.format.grouped else layer.format.logical_shape(tuple(stored["weight"].shape))
    weight = quantised_weight(layer, stored["weight"], scales, padded, dtype)
    weight.layer_settings = LayerSettings(layer)
    return weight, values, stored


def made_layer(kind, shape=(96, 64), few_bits=False):
    """(a linear layer over such a weight, the weight's values)."""
    weight, values, _ = made(kind, shape)
    layer = comfy.ops.disable_weight_init.Linear(shape[1], shape[0]).requires_grad_(False)
    assign(layer, settled(layer, {"weight": weight, "bias": numbers(shape[0], seed=3)}, torch.float32))
    assert allow_few_bits(layer, lambda _: few_bits) == int(few_bits and kind != "fp8 rows")
    return layer, values


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(kind, shape) for kind in KINDS for shape in ((96, 64), (160, 320), (16, 16))] + [(one, (24, 64)) for one in OTHER_CODES],
)
def test_a_quantised_tensor_means_what_its_format_defines(kind, shape):
    weight, values, stored = made(kind, shape)
    cut = with_shape(weight, shape)
    assert is_quantised(cut) and tuple(cut.shape) == shape and is_padded(tuple(weight.shape), shape)
    assert torch.allclose(dequantised(cut), values, rtol=1e-6, atol=1e-7)
    assert dequantised(cut, torch.bfloat16).dtype == torch.bfloat16
    assert stored_bytes(cut) == sum(tensor.nbytes for tensor in stored.values())
    own = {tensor.data_ptr() for tensor in stored.values()}
    assert {part.data_ptr() for part in inner_tensors(cut)} == own, "nothing is copied"
    parameter = parameter_over(cut)
    assert isinstance(parameter, torch.nn.Parameter) and {part.data_ptr() for part in inner_tensors(parameter)} == own


@EVERY_KIND
def test_a_layer_computes_with_what_its_weight_means(kind):
    layer, values = made_layer(kind)
    x = numbers(2, 5, 64, seed=1)
    expected = torch.nn.functional.linear(x, values, layer.bias)
    assert layer.prepares_weights() and torch.allclose(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert layer(x.half()).dtype == torch.float16
    weight, bias = comfy.ops.cast_bias_weight(layer, x)
    assert torch.allclose(weight, values, rtol=1e-6, atol=1e-7) and torch.equal(bias, layer.bias)
    layer.weight_function = [lambda weight: weight * 2]
    assert torch.allclose(layer(x), expected * 2 - layer.bias, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mxfp8"])  # which torch multiplies on cards only
def test_products_in_few_bits_are_near(kind):
    layer, values = made_layer(kind, few_bits=True)
    x = numbers(3, 7, 64, seed=1)
    expected = torch.nn.functional.linear(x, values, layer.bias)
    error = (layer(x) - expected).norm() / expected.norm()
    assert error < {"nvfp4": 0.15, "w4a8": 0.03, "fp8": 0.05, "fp8 e5m2": 0.1, "mxfp8": 0.05}.get(kind, 0.02)


def test_input_scales_and_factors_of_columns_are_used():
    layer, values = made_layer("fp8", few_bits=True)
    factors = torch.rand(64) + 0.5
    layer.quantised = LayerSettings(layer.quantised.layer, torch.tensor(0.01), factors)
    x = numbers(4, 64, seed=1)
    expected = torch.nn.functional.linear(x * factors, values, layer.bias)
    assert (layer(x) - expected).norm() / expected.norm() < 0.05
    layer.quantised = LayerSettings(layer.quantised.layer, torch.tensor(1e-4))  # what is too large for it is cut off
    assert (layer(x) - expected).norm() / expected.norm() > 0.5


@EVERY_KIND
def test_changed_values_are_quantised_again_in_the_same_way_each_time(kind):
    weight, values, stored = made(kind)
    before = checksum(weight)
    changed = values + 0.02 * numbers(96, 64, seed=5)
    again, other = requantised(weight, changed.clone(), 7), requantised(weight, changed.clone(), 8)
    assert checksum(again) == checksum(requantised(weight, changed.clone(), 7)) != checksum(other)
    assert checksum(weight) == before and type(again) is type(weight) and again._layout_cls == weight._layout_cls
    assert stored_bytes(again) == sum(tensor.nbytes for tensor in stored.values()) and again.dtype == weight.dtype
    error = dequantised(again) - changed
    step = {"nvfp4": 0.3, "w4a8": 0.2, "fp8 e5m2": 0.3, "fp8": 0.15, "fp8 rows": 0.15, "mxfp8": 0.15}.get(kind, 0.06)
    assert error.norm() / changed.norm() < step
    many = torch.stack([dequantised(requantised(weight, changed.clone(), seed)) for seed in range(1, 33)]).mean(0)
    assert (many - changed).norm() < error.norm() / 2.5, "rounding by chance is right on average"


@pytest.mark.parametrize("kind", OTHER_CODES)
def test_changed_values_get_codes_of_the_same_kind(kind):
    weight, values, stored = made(kind)
    again = requantised(weight, values.clone(), 7)
    assert again._qdata.shape == weight._qdata.shape and stored_bytes(again) == sum(tensor.nbytes for tensor in stored.values())
    assert (again._params.codebook is None) and (again._params.correction is None) == (kind != "w4a8 shifted")
    assert (dequantised(again) - values).norm() / values.norm() < (0.04 if kind == "w6a8" else 0.2)


def test_a_change_that_makes_a_weight_larger_is_no_quantised_weight_any_more():
    weight, _, _ = made("fp8")
    assert not is_quantised(requantised(weight, torch.ones(2, 3, 4), 1))
    zero = requantised(made("nvfp4")[0], torch.zeros(96, 64), 1)
    assert not dequantised(zero).any()


@EVERY_KIND
def test_tensors_made_of_others_are_moved_and_counted_whole(kind):
    weight, values, stored = made(kind)
    device = SimulatedDevice(0, 1 << 20)
    copy = device.receive(weight)
    assert device.used_bytes() == sum(tensor.nbytes for tensor in stored.values()) == stored_bytes(weight)
    assert device.plays_memory_of(copy) and not device.plays_memory_of(weight)
    assert torch.equal(dequantised(copy), dequantised(weight)) and checksum(copy) == checksum(weight)
    del copy
    assert device.used_bytes() == 0
    twin = rebuilt(weight, torch.clone)
    inner_tensors(twin)[0].view(torch.uint8)[0] ^= 1
    assert checksum(twin) != checksum(weight)
    assert in_dtype(weight, torch.float16)._qdata is weight._qdata and in_dtype(weight, weight.dtype) is weight
    assert torch.equal(weight.to("cpu", copy=True).dequantize(), dequantised(weight))


def test_plain_fp8_weights_may_be_multiplied_as_they_are():
    layer = comfy.ops.manual_cast.Linear(64, 96, dtype=torch.float8_e4m3fn).requires_grad_(False)
    assign(layer, {"weight": numbers(96, 64).to(torch.float8_e4m3fn), "bias": numbers(96, seed=3).to(torch.float8_e4m3fn)})
    x = numbers(2, 5, 64, seed=1)
    expected = torch.nn.functional.linear(x, layer.weight.float(), layer.bias.float())
    assert torch.equal(layer(x), expected) and allow_plain_fp8(layer) == 1
    found = layer(x)
    assert not torch.equal(found, expected) and (found - expected).norm() / expected.norm() < 0.05
    layer.weight_function = [lambda weight: weight]
    assert torch.equal(layer(x), expected)
    assert allow_plain_fp8(comfy.ops.manual_cast.Linear(2, 2)) == 0


def test_layers_that_are_not_linear_get_values():
    weight, values, _ = made("int8", (8, 8))
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(8, 8), "b": comfy.ops.disable_weight_init.Embedding(8, 8)}).requires_grad_(False)
    found = settled(module, {"a.weight": weight, "b.weight": weight, "c.weight": weight}, torch.float16)
    for value in found.values():
        assert not is_quantised(value) and value.dtype == torch.float16 and torch.equal(value, values.half())
    layer, _ = made_layer("int8")
    settled(layer, {"weight": numbers(96, 64)}, None)
    assert layer.quantised is None


def test_packs_get_the_real_names():
    weight, values, _ = made("fp8")
    assert isinstance(weight, comfy.quant_ops.QuantizedTensor) and set(comfy.quant_ops.QUANT_ALGOS) == set(formats.FORMATS)
    layout = comfy.quant_ops.QUANT_ALGOS["float8_e4m3fn"]["comfy_tensor_layout"]
    again = comfy.quant_ops.QuantizedTensor.from_float(values, layout, scale="recalculate")
    assert torch.allclose(dequantised(again), values, rtol=0.1, atol=1e-3)
