"""Flux in few bits: files stay in their precision and mean what they say, LoRA files change them, and each weight_dtype is kept."""

import flux_loras
import pytest
import torch
from quantised_files import KINDS, quantised_model
from transformer_files import flux_file, flux_tensors

import comfy.sd
from comfy.quantisation import kitchen
from comfy.quantisation.weights import is_quantised

SIZES = {"depth": 1, "single": 1}


def output(patcher):
    """What the network of *patcher* gives for one input, with products in full precision."""
    for layer in patcher.model.modules():
        if getattr(layer, "quantised", None) is not None:
            layer.few_bits = False
    numbers = torch.Generator().manual_seed(1)
    context, pooled = torch.randn(1, 5, 64, generator=numbers), torch.randn(1, 32, generator=numbers)
    arguments = {"c_crossattn": context, "y": pooled, "guidance": torch.tensor([3.5])}
    with torch.inference_mode():
        return patcher.model.apply_model(torch.randn(1, 16, 6, 4, generator=numbers), torch.tensor([0.7]), **arguments)


def model(tensors, metadata=None):
    return comfy.sd.load_diffusion_model_state_dict(dict(tensors), {"dtype": torch.float32}, metadata)


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_file_stays_so_and_means_what_it_says(kind):
    pytest.importorskip("comfy_kitchen", reason=kitchen.INSTALL)
    blocks = ("double_blocks.", "single_blocks.")
    whole = flux_tensors(**SIZES)
    stored, plain, metadata = {}, {}, {}
    for prefix in blocks:
        some = {key: value for key, value in whole.items() if key.startswith(prefix)}
        ours, means, notes = quantised_model(kind, some, prefix, in_metadata=False)
        stored, plain, metadata = stored | ours, plain | means, metadata | notes
    others = {key: value for key, value in whole.items() if not key.startswith(blocks)}
    few, full = model(stored | others, metadata), model(plain | others)
    held = [name for name, value in few.model.diffusion_model.named_parameters() if is_quantised(value.data)]
    assert {"double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"} <= set(held) and len(held) >= 10
    torch.testing.assert_close(output(few), output(full), rtol=1e-4, atol=1e-4)

    before = output(few)
    changed, _ = comfy.sd.load_lora_for_models(few, None, one_layer(flux_loras.kohya()), 1.0, 0)
    changed.patch_model()
    assert not torch.equal(output(changed), before)
    changed.unpatch_model()
    assert torch.equal(output(few), before)


def one_layer(lora):
    """The changes of the first double block alone: the model has one."""
    return {key: value for key, value in lora.items() if "double_blocks_0" in key}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("default", torch.float32),  # what a processor computes in
        ("fp8_e4m3fn", torch.float8_e4m3fn),
        ("fp8_e4m3fn_fast", torch.float8_e4m3fn),
        ("fp8_e5m2", torch.float8_e5m2),
    ],
)
def test_each_weight_dtype_is_kept(tmp_path, monkeypatch, name, dtype):
    import folder_paths
    from comfy_extras.core_loaders import UNETLoader

    path = flux_file(tmp_path / "flux.safetensors", dtype=torch.bfloat16, **SIZES)
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda kind, name: path)
    (patcher,) = UNETLoader().load_unet("flux.safetensors", name)
    assert {value.dtype for value in patcher.model.diffusion_model.parameters()} == {dtype}
    exact, rounded = output(model(flux_tensors(**SIZES))), output(patcher)
    assert rounded.isfinite().all() and (rounded - exact).norm() < 0.2 * exact.norm()
