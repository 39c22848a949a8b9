"""Layers with quantised weights give what ComfyUI's give, and changed weights are quantised again alike.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest …/test_against_upstream.py
"""

import os
import pathlib
import subprocess

import pytest
import safetensors.torch
import torch
from quantised_files import KINDS, quantised, settings_for, text

import comfy.ops
from comfy.families.published_weights import load_published
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import PrefixedSource, StateDictSource
from comfy.loading.components import multiplies
from comfy.quantisation import kitchen
from comfy.quantisation.linear import allow_few_bits
from comfy.quantisation.weights import dequantised, requantised

CHECKOUT = os.environ.get("KEEPWARM_UPSTREAM_CHECKOUT")
PYTHON = os.environ.get("KEEPWARM_UPSTREAM_PYTHON")
OLD = "fp8 old"
EVEN = "w4a8 even"  # of the other codes; ComfyUI leaves out what is added to groups, and its comfy-kitchen may be without six bits
ALL = (*KINDS, EVEN, OLD)
ROUNDED_AS_UPSTREAM = ("fp8", OLD, "fp8 e5m2", "mxfp8", "int8", "int8 rows", "int8 convrot", "w4a8")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHECKOUT and PYTHON), reason="KEEPWARM_UPSTREAM_CHECKOUT and KEEPWARM_UPSTREAM_PYTHON name no ComfyUI to test"),
]
pytest.importorskip("comfy_kitchen", reason=kitchen.INSTALL)


def numbers(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def asked():
    """What both are given."""
    tensors = {"x": numbers(2, 7, 256, seed=1)}
    for kind in ALL:
        stored, values = quantised(kind, numbers(160, 256, seed=2))
        own = {**stored, "bias": numbers(160, seed=3), "changed": values + 0.05 * numbers(160, 256, seed=4)}
        if kind == OLD:
            own |= {"scale_weight": own.pop("weight_scale"), "scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
        else:
            own["comfy_quant"] = text(settings_for(kind))
        tensors |= {f"{kind}/{key}": tensor for key, tensor in own.items()}
    return tensors


@pytest.fixture(scope="module")
def answered(asked, tmp_path_factory):
    """What ComfyUI makes of it."""
    folder = tmp_path_factory.mktemp("upstream")
    safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in asked.items()}, folder / "in.safetensors")
    script = pathlib.Path(__file__).with_name("upstream_layers.py")
    subprocess.run([PYTHON, script, folder / "in.safetensors", folder / "out.safetensors"], cwd=CHECKOUT, check=True, timeout=600)
    return safetensors.torch.load_file(folder / "out.safetensors")


def own_layer(asked, kind):
    layer = comfy.ops.disable_weight_init.Linear(256, 160).requires_grad_(False)
    own = {f"u.{key.partition('/')[2]}": tensor for key, tensor in asked.items() if key.startswith(f"{kind}/") and "changed" not in key}
    load_published(layer, PrefixedSource(plain_weights(StateDictSource(own)), "u."), torch.float32, "a layer")
    allow_few_bits(layer, lambda found: multiplies(found.format.name, torch.device("cpu")))
    return layer


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ALL)
def test_layers_give_what_upstreams_give(asked, answered, kind):
    layer = own_layer(asked, kind)
    with torch.inference_mode():
        own, other = layer(asked["x"]), answered[f"{kind}/output"]
    assert (own - other).norm() / other.norm() <= 1e-3
    patched = dequantised(requantised(layer.weight, asked[f"{kind}/changed"].clone(), 7))
    expected = answered[f"{kind}/patched"]
    assert (patched - expected).norm() / expected.norm() <= (1e-3 if kind in ROUNDED_AS_UPSTREAM else 0.3)
