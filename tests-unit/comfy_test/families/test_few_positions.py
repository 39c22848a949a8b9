import pytest
import torch

import comfy.families.few_positions
import comfy.ops


@pytest.fixture
def layers_are_large(monkeypatch):
    monkeypatch.setattr(comfy.families.few_positions, "LEAST_WEIGHT_BYTES", 0)


@pytest.fixture
def products(monkeypatch):
    """The number of convolutions done as a product."""
    done = []
    original = comfy.families.few_positions.convolve
    monkeypatch.setattr(comfy.families.few_positions, "convolve", lambda *given: (done.append(1), original(*given))[1])
    return done


def layer(*sizes, **settings):
    made = comfy.ops.disable_weight_init.Conv2d(*sizes, **settings)
    generator = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return made


def picture(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    "settings",
    [{"padding": 1}, {"padding": 1, "stride": 2}, {"padding": 2, "dilation": 2, "bias": False}, {"padding": (0, 1), "stride": (1, 2)}],
)
@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (1, 6, 8, 8), (3, 6, 3, 3)])
def test_a_product_is_the_convolution(layers_are_large, products, settings, shape):
    conv, x = layer(6, 9, 3, **settings), picture(*shape)
    if settings.get("dilation") == 2 and shape[2] == 3:
        x = picture(3, 6, 5, 5)
    torch.testing.assert_close(
        conv(x), torch.nn.functional.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation), rtol=1e-5, atol=1e-5
    )
    assert products and conv(x).is_contiguous()


def test_cast_weights_give_the_same_bits(layers_are_large, products):
    conv, x = layer(6, 9, 3, padding=1), picture(1, 6, 4, 4)
    expected = conv(x)
    conv.comfy_cast_weights = True
    assert torch.equal(conv(x), expected)
    conv.weight_function = [lambda weight: weight * 1.0]
    assert torch.equal(conv(x), expected)
    assert len(products) == 3


@pytest.mark.parametrize("change", ["groups", "reflect", "same", "positions", "dtype", "unbatched"])
def test_other_convolutions_are_torchs(layers_are_large, products, change):
    settings = {"groups": {"groups": 3}, "reflect": {"padding_mode": "reflect", "padding": 1}, "same": {"padding": "same"}}.get(change, {})
    conv, x = layer(6, 9, 3, **settings), picture(2, 6, 20 if change == "positions" else 5, 20)
    if change == "dtype":
        conv, x = conv.bfloat16(), x.bfloat16()
    if change == "unbatched":
        x = x[0]
    assert torch.equal(conv(x), torch.nn.Conv2d.forward(conv, x))
    assert not products


def test_small_weights_stay_with_torch(products):
    layer(6, 9, 3)(picture(2, 6, 5, 5))
    assert not products


def test_gradients_pass(layers_are_large, products):
    conv, x = layer(6, 9, 3, padding=1), picture(2, 6, 5, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(conv(x).square().sum(), x)
    (expected,) = torch.autograd.grad(torch.nn.Conv2d.forward(conv, x).square().sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-3)
    assert products
